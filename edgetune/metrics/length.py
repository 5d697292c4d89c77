"""How long texts are. Neither longer nor shorter is better, so no gate compares lengths."""

from __future__ import annotations

from collections.abc import Callable

from edgetune.metrics.metric import Metric, by_item
from edgetune.metrics.samples import Sample


def count_words(text: str) -> int:
    """Words: what white space divides."""
    return len(text.split())


def count_characters(text: str) -> int:
    """Characters: Unicode code points."""
    return len(text)


def _length(what: str, count: Callable[[Sample], int | None], meaning: str, needs: str = "text") -> Metric:
    return Metric(
        f"length_{what}",
        f"Length in {what}",
        by_item(count),
        unit="number",
        higher_is_better=None,
        default_margin=None,
        needs=(needs,),
        details={what: meaning},
    )


def _of_text(count: Callable[[str], int]) -> Callable[[Sample], int | None]:
    return lambda sample: count(sample.text) if sample.answered and sample.text is not None else None


LENGTH_WORDS = _length("words", _of_text(count_words), "what white space divides")
LENGTH_CHARACTERS = _length("characters", _of_text(count_characters), "Unicode code points")
LENGTH_TOKENS = _length("tokens", lambda sample: sample.generated_tokens, "the model's own", "generated_tokens")
