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
"""What special tokens are for, by Transformers' words."""


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer as training uses it; `where` names the model in errors.

    `special` gives the special token of a role (only those that there are); `further_special` are special tokens
    without a role. `chat_template` is a Jinja source, several by name, or None.
    """

    backend: Tokenizer
    special: Mapping[str, str]
    chat_template: str | dict[str, str] | None
    where: str
    further_special: tuple[str, ...] = ()

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Ids of `text`, special tokens in it recognized; with `add_special`, those that the model expects around."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=add_special).ids
        return ids

    def token_id(self, role: str) -> int | None:
        """The id of the special token of this role; None when there is none."""
        token = self.special.get(role)
        number: int | None = None if token is None else self.backend.token_to_id(token)
        return number

    def require_rows(self, rows: int, *, where: str) -> None:
        """Raise ModelError when there are ids for which an embedding of `rows` rows has no vector."""
        last = max(self.vocabulary.values())
        if last >= rows:
            raise ModelError(
                f"the tokenizer has ids up to {last}, but the embedding has only {rows} rows",
                where=where,
                remedy="train with resized embeddings and save them with the adapter, or use the base's own tokenizer",
            )

    @property
    def bos_token(self) -> str:
        """The text that begins a sequence, empty where there is none."""
        return self.special.get("bos", "")

    @property
    def eos_token(self) -> str:
        """The text that ends a sequence, empty where there is none."""
        return self.special.get("eos", "")

    @property
    def default_template(self) -> str | None:
        """The one chat template, or of several by name the one that is used when none is named."""
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
        """The tokens that are looked for in the text before anything else, by id."""
        added: dict[int, AddedToken] = self.backend.get_added_tokens_decoder()
        return added

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What tokenizer.json says, in the tokenizers library's newest spelling."""
        settings: dict[str, Any] = json.loads(self.backend.to_str())
        return settings


def wrap_tokenizer(tokenizer: PreTrainedTokenizerBase, *, where: str) -> ModelTokenizer:
    """Transformers' tokenizer as ours. Raises ModelError when it does not rest on the tokenizers library."""
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
    """A tokenizer.json may cut or pad every text, as its author happened to save it; Transformers undoes that."""
    backend.no_truncation()
    backend.no_padding()
    return backend
