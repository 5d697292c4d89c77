"""The divergence of a GGUF's predictions from those of its source model, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.errors import ModelError, VerificationFailed

LogProbabilities = Callable[[Sequence[int]], NDArray[np.float32]]
"""Ids -> the log-probabilities of every next token after each of them, (ids, vocabulary), in nats."""

WINDOW_TOKENS = 512
"""Tokens per window, as in llama.cpp's own perplexity. With a vocabulary of 128k tokens, 260 MB for each model."""

_ROWS = 32
"""Positions that are compared at once, in double precision."""


@dataclass(frozen=True)
class Divergence:
    """Measured at `tokens` positions. Perplexities are per token, over the same tokens on both sides."""

    tokens: int
    kl_mean: float
    """Kullback-Leibler divergence of the file's predictions from the model's, over the whole vocabulary, in nats."""
    kl_p99: float
    """The 99th percentile of the positions' divergences, in nats."""
    top1_agreement: float
    """The share of positions with the same most likely token."""
    model_perplexity: float
    file_perplexity: float
    perplexity_ratio: float
    """The file's over the model's."""


def measure_divergence(
    windows: Iterable[Sequence[int]],
    model: LogProbabilities,
    file: LogProbabilities,
    *,
    advance: Callable[[int], None] = lambda _tokens: None,
) -> Divergence:
    """Compare the predictions of both models on each window. `advance` gets the number of tokens that were read.

    Raises ModelError if the vocabularies have different sizes, VerificationFailed if a figure is not finite.
    """
    divergences: list[NDArray[np.float64]] = []
    agreements: list[NDArray[np.bool_]] = []
    likelihoods: list[tuple[float, float]] = []
    for ids in windows:
        expected, found = model(ids), file(ids)
        if expected.shape != found.shape:
            raise ModelError(
                f"predicts {found.shape[1]} tokens, the model {expected.shape[1]}",
                remedy="compare the file with the model that it was made from",
            )
        for start in range(0, len(ids), _ROWS):
            rows = slice(start, start + _ROWS)
            divergences.append(kl_divergence(expected[rows], found[rows]))
            agreements.append(expected[rows].argmax(-1) == found[rows].argmax(-1))
        following = np.arange(len(ids) - 1), np.asarray(ids[1:], dtype=np.int64)
        likelihoods += zip(expected[following].tolist(), found[following].tolist(), strict=True)
        advance(len(ids))
    return _summarize(np.concatenate(divergences), np.concatenate(agreements), np.array(likelihoods).reshape(-1, 2))


def kl_divergence(expected: NDArray[np.floating], found: NDArray[np.floating]) -> NDArray[np.float64]:
    """KL(expected || found) of each row, in nats. Both are log-probabilities, (positions, vocabulary)."""
    reference = expected.astype(np.float64)
    probabilities = np.exp(reference)
    with np.errstate(invalid="ignore"):  # a token of probability 0 adds 0, whatever its logarithm is
        terms = np.where(probabilities == 0, 0.0, probabilities * (reference - found))
    # Both sides are rounded to single precision, so equal ones give values slightly below 0.
    return np.maximum(terms.sum(-1), 0.0)


def cut_windows(ids: Sequence[int], window_tokens: int, *, prefix: Sequence[int] = ()) -> Iterator[list[int]]:
    """`ids` in windows of at most `window_tokens`, each after `prefix` (the BOS that a model expects in front)."""
    step = window_tokens - len(prefix)
    for start in range(0, len(ids), step):
        yield [*prefix, *ids[start : start + step]]


def _summarize(
    divergences: NDArray[np.float64], agreements: NDArray[np.bool_], likelihoods: NDArray[np.float64]
) -> Divergence:
    model, file = np.exp(-likelihoods.mean(0)).tolist()
    figures = Divergence(
        tokens=len(divergences),
        kl_mean=float(divergences.mean()),
        kl_p99=float(np.quantile(divergences, 0.99)),
        top1_agreement=float(agreements.mean()),
        model_perplexity=model,
        file_perplexity=file,
        perplexity_ratio=file / model,
    )
    if not all(map(math.isfinite, (figures.kl_mean, figures.perplexity_ratio))):
        raise VerificationFailed("its predictions are not finite, or never those of the model")
    return figures
