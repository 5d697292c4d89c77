"""A model's tokenizer without Transformers around it: text -> ids, special tokens, chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

ROLES = ("bos", "eos", "unk", "pad", "sep", "cls", "mask")
"""The roles of special tokens, by Transformers' names."""


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer as training uses it. `where` names the model in errors.

    `special` maps roles to special tokens; `further_special` are special tokens without a role. `chat_template` is a
    Jinja source, several by name, or None.
    """

    backend: Tokenizer
    special: Mapping[str, str]
    chat_template: str | dict[str, str] | None
    where: str
    further_special: tuple[str, ...] = ()

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of `text`, in which special tokens are recognized; `add_special` adds those that the model expects."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=add_special).ids
        return ids

    def token_id(self, role: str) -> int | None:
        """The id of the special token of this role; None when there is none."""
        token = self.special.get(role)
        number: int | None = None if token is None else self.backend.token_to_id(token)
        return number

    def require_rows(self, rows: int, *, where: str) -> None:
        """Raise ModelError when there are ids beyond an embedding of `rows` rows."""
        last = max(self.vocabulary.values())
        if last >= rows:
            raise ModelError(
                f"the tokenizer has ids up to {last}, but the embedding has only {rows} rows",
                where=where,
                remedy="train with resized embeddings and save them with the adapter, or use the base's own tokenizer",
            )

    @property
    def bos_token(self) -> str:
        """The token that begins a sequence; empty where there is none."""
        return self.special.get("bos", "")

    @property
    def eos_token(self) -> str:
        """The token that ends a sequence; empty where there is none."""
        return self.special.get("eos", "")

    @property
    def default_template(self) -> str | None:
        """The only chat template, or the one named default."""
        template = self.chat_template
        return template.get("default") if isinstance(template, dict) else template

    @property
    def all_special(self) -> tuple[str, ...]:
        """The texts of all special tokens."""
        return tuple(dict.fromkeys([*self.special.values(), *self.further_special]))

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        vocabulary: dict[str, int] = self.backend.get_vocab(with_added_tokens=True)
        return vocabulary

    @cached_property
    def added(self) -> dict[int, AddedToken]:
        """The tokens that are found in the text before anything else, by id."""
        added: dict[int, AddedToken] = self.backend.get_added_tokens_decoder()
        return added

    @cached_property
    def settings(self) -> dict[str, Any]:
        """tokenizer.json, in the newest format of the tokenizers library."""
        settings: dict[str, Any] = json.loads(self.backend.to_str())
        return settings


def wrap_tokenizer(tokenizer: PreTrainedTokenizerBase, *, where: str) -> ModelTokenizer:
    """Transformers' tokenizer as a ModelTokenizer. Raises ModelError when it does not use the tokenizers library."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "this tokenizer has no fast version (tokenizer.json)",
            where=where,
            remedy="save it with a newer Transformers",
        )
    named = {role: getattr(tokenizer, f"{role}_token", None) for role in ROLES}
    special = {role: str(token) for role, token in named.items() if token is not None}
    further = [token for token in tokenizer.all_special_tokens if token not in special.values()]
    return ModelTokenizer(plain(backend), special, tokenizer.chat_template, where, tuple(further))


def plain(backend: Tokenizer) -> Tokenizer:
    """The tokenizer without truncation and padding, which a tokenizer.json may have; Transformers removes them too."""
    backend.no_truncation()
    backend.no_padding()
    return backend
