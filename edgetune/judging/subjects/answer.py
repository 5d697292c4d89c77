"""A model's answer to one item: its text, its label, its likelihoods, and the time it took."""

from __future__ import annotations

from dataclasses import dataclass

IN_REASONING = "reasoning"
"""Why a text ended: inside the model's reasoning, before any answer."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to the item with this id; what the task does not ask for is None.

    `text` is what it answered, `reasoning` what it said to itself before that (None where it wrote none), and
    `predicted` the label (None when the text names no label, or several).
    `log_probabilities` are nats by label, of the label with its end-of-turn markup. `nll_nats` is the sum over
    `nll_tokens` tokens of the item's own text, which spans `nll_bytes` bytes of UTF-8 (task perplexity).
    `generated_tokens`, `seconds` (the whole answer), `first_token_seconds` (time to first token) and
    `tokens_per_second` (decoding only) are measured where the model was run here. `finish` says why the text ended:
    "stop", "length", "context", "reasoning" (inside it, whatever ended it), or "content_filter" from an endpoint.
    `unanswered` says why an endpoint gives no answer to this item however often it is asked; `text` is empty then,
    which every metric takes for what it is.
    """

    id: str
    text: str | None = None
    predicted: str | None = None
    log_probabilities: dict[str, float] | None = None
    nll_nats: float | None = None
    nll_tokens: int | None = None
    nll_bytes: int | None = None
    generated_tokens: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None
    finish: str | None = None
    reasoning: str | None = None
    unanswered: str | None = None

    @property
    def is_cut_off(self) -> bool:
        """True where the text ended before the model did: at max_tokens, at the context's end, or in its reasoning."""
        return self.finish in ("length", "context", IN_REASONING)

    @property
    def is_empty(self) -> bool:
        """True for a text of nothing but white space."""
        return self.text is not None and not self.text.strip()

    @property
    def written(self) -> str | None:
        """The text as it is shown; of an unanswered item, the reason."""
        return self.text if self.unanswered is None else f"(unanswered: {self.unanswered})"
