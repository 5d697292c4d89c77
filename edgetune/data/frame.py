"""The special tokens that a tokenizer adds around every text, and how a framed text is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.tokenize import Encode

_PROBE = "a"


@dataclass(frozen=True)
class Frame:
    """Ids before and after a text: [CLS] and [SEP], nothing and </s>, <s> and nothing."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def cut(self, ids: Sequence[int], limit: int) -> tuple[int, ...]:
        """A framed text cut to `limit` ids; the frame is kept. A limit below the frame's length cuts the frame."""
        if len(ids) <= limit:
            return tuple(ids)
        text = limit - len(self.after)
        return (*ids[:text], *self.after) if text >= len(self.before) else (*self.before, *self.after)[:limit]


def frame_of(encode_whole: Encode) -> Frame:
    """The frame that a tokenizer adds, found by encoding an empty text and a letter."""
    around = encode_whole("")
    letter = encode_whole(_PROBE)
    front = 0
    while front < len(around) and letter[front] == around[front]:
        front += 1
    return Frame(tuple(around[:front]), tuple(around[front:]))
