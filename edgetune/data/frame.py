"""The special tokens that a tokenizer puts around every text, and cutting what is between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.tokenize import Encode

_PROBE = "a"


@dataclass(frozen=True)
class Frame:
    """Ids in front of a text and behind it: [CLS] and [SEP], nothing and </s>, <s> and nothing."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def cut(self, ids: Sequence[int], limit: int) -> tuple[int, ...]:
        """The ids of a framed text, shortened to `limit` before what is behind the text, which stays.

        A limit that not even the frame fits into keeps the beginning of the frame.
        """
        if len(ids) <= limit:
            return tuple(ids)
        text = limit - len(self.after)
        return (*ids[:text], *self.after) if text >= len(self.before) else (*self.before, *self.after)[:limit]


def frame_of(encode_whole: Encode) -> Frame:
    """The frame that a tokenizer puts around texts, seen by what it makes of an empty one and of a letter."""
    around = encode_whole("")
    letter = encode_whole(_PROBE)
    front = 0
    while front < len(around) and letter[front] == around[front]:
        front += 1
    return Frame(tuple(around[:front]), tuple(around[front:]))
