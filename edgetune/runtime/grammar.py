"""Texts that are written under a grammar, in llama.cpp's own notation (GBNF)."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgetune.errors import UsageError

JSON_STRING = r"""( [^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt] )*"""
"""What stands inside a JSON string. Escapes by code point are left out: half a surrogate pair is no text."""


class TokenSampler:
    """Draws tokens as a chain does: any, or those that fit a grammar's `root`."""

    def __init__(self, chain: Any, grammar: str | None, vocabulary: Any) -> None:
        """It owns `chain`. Raises ValueError when the grammar is no valid GBNF."""
        import llama_cpp

        self._llama, self._chain, self._whole = llama_cpp, chain, chain
        self._grammar = None
        if grammar is not None:
            self._grammar = llama_cpp.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
            if not self._grammar:
                llama_cpp.llama_sampler_free(chain)
                raise ValueError("this grammar is no valid GBNF")
            self._whole = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
            llama_cpp.llama_sampler_chain_add(self._whole, self._grammar)
            llama_cpp.llama_sampler_chain_add(self._whole, chain)

    def sample(self, context: Any) -> int:
        """The next token.

        Holding a whole vocabulary against a grammar takes as long as a small model's forward pass, so the chain draws
        first, and only a token that does not fit is drawn again among those that do. Every token keeps the probability
        that it has among them: with a share v of tokens that fit, p + (1 - v) p / v = p / v.
        """
        token: int = self._llama.llama_sampler_sample(self._chain, context, -1)
        if self._grammar is None:
            return token
        if not self._fits(token):
            return self._llama.llama_sampler_sample(self._whole, context, -1)
        self._llama.llama_sampler_accept(self._grammar, token)
        return token

    def free(self) -> None:
        """Free the grammar and the chain."""
        self._llama.llama_sampler_free(self._whole)

    def _fits(self, token: int) -> bool:
        only = self._llama.llama_token_data(token, 0.0, 0.0)
        candidates = self._llama.llama_token_data_array(ctypes.pointer(only), 1, -1, False)
        self._llama.llama_sampler_apply(self._grammar, ctypes.byref(candidates))
        return only.logit == 0.0


def object_after_text(fields: Mapping[str, Sequence[int] | Sequence[str]]) -> str:
    """The grammar of a JSON object from inside its first value on, which is a string that has begun.

    After that string come the fields in their order, each with one of its choices.
    """
    rest = []
    for name, choices in fields.items():
        options = " | ".join(_quote(json.dumps(choice)) for choice in choices)
        rest.append(f"{_quote(f', {json.dumps(name)}: ')} ( {options} )")
    return f'root ::= text "\\"" {" ".join(rest)} "}}"\ntext ::= {JSON_STRING}\n'


def object_of_schema(schema: dict[str, Any]) -> str:
    """The grammar of a JSON document that fits a JSON schema, as far as llama.cpp's converter takes it.

    Raises UsageError for a schema that it does not take.
    """
    import jsonschema
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
        grammar: str = json_schema_to_gbnf(json.dumps(schema))
    except jsonschema.SchemaError as problem:
        raise UsageError(f"this is no valid JSON schema ({problem.message})") from None
    except Exception as problem:  # the converter raises whatever its own assertions and look-ups raise
        reason = " ".join(str(problem).split())
        raise UsageError(
            f"llama.cpp cannot write by this JSON schema ({reason})", remedy="use a simpler one, without remote $ref"
        ) from None
    return grammar


def _quote(text: str) -> str:
    """A literal of GBNF, whose escapes are JSON's."""
    return json.dumps(text)
