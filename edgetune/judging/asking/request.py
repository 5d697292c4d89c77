"""One question to a judge, and its reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgetune.data.example import Message


@dataclass(frozen=True)
class VerdictForm:
    """What a verdict must hold: a reason, then for every field one of its choices. A JSON object in this order."""

    fields: dict[str, tuple[int, ...] | tuple[str, ...]]
    """Name -> choices: {"correctness": (1, 2, 3, 4, 5)}, {"winner": ("first", "second", "tie")}."""

    def json_schema(self) -> dict[str, Any]:
        """The form as a JSON schema that every endpoint's strict mode takes."""
        properties: dict[str, Any] = {"reason": {"type": "string"}}
        for name, choices in self.fields.items():
            kind = "integer" if isinstance(choices[0], int) else "string"
            properties[name] = {"type": kind, "enum": list(choices)}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class JudgeRequest:
    """A question. `messages` builds the prompt, each time with new random delimiters.

    `identity` is plain JSON: everything that shapes the verdict but the judge (prompt version, rubric, what is judged,
    order, repeat). Requests of equal identity to an equal judge have one verdict, which is cached.
    """

    identity: dict[str, Any]
    messages: Callable[[], tuple[Message, ...]]
    form: VerdictForm


@dataclass(frozen=True)
class Reply:
    """What a judge answered.

    `text` is the answer as it was written. `probabilities` holds, for the form's fields where the judge gave token
    probabilities, each choice (as text) with its share, summing to 1 over the choices. `cached` replies cost nothing.
    """

    text: str
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True)
class Failed:
    """A question without an answer, after all attempts; `reason` is for people and holds no key.

    `asked` is False where the judge was not asked because its judgement is already invalid.
    """

    reason: str
    asked: bool = True


NOT_ASKED = "not asked any more"
"""The beginning of the reason of a question that was not asked."""
