"""What a model made of one item: its text, its label, its likelihoods, and what that took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One model's answer to the item with this id; what the task does not ask for is None.

    `text` is what it wrote and `predicted` the label (None when the text names no label, or several).
    `log_probabilities` are nats by label, of the label with its end-of-turn markup. `nll_nats` is the sum over
    `nll_tokens` tokens of the item's own text, which spans `nll_bytes` bytes of UTF-8 (task perplexity).
    `generated_tokens`, `seconds` (the whole answer), `first_token_seconds` (time to first token) and
    `tokens_per_second` (decoding only) are measured where the model was run here. `finish` says why the text ended:
    "stop", "length", "context", or "content_filter" from an endpoint. `unanswered` says why an endpoint gives no answer
    to this item however often it is asked; `text` is empty then, which every metric takes for what it is.
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
    unanswered: str | None = None

    @property
    def written(self) -> str | None:
        """What people are shown of the text: why there is none, of an unanswered item."""
        return self.text if self.unanswered is None else f"(unanswered: {self.unanswered})"
