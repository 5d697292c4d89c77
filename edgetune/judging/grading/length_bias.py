"""Whether verdicts follow the length of the answers: the best known bias of judges, which any model can exploit.

Verdicts that are ties or noise follow no length, and are no problem. A preference for shorter answers is only noted:
small models ramble, and the answer that does not ramble is both shorter and better. Only votes of people can show the
difference (calibration/length_preference.py).

Zheng et al. (2023), "Judging LLM-as-a-judge with MT-bench and Chatbot Arena", arXiv:2306.05685, section 3.3; Dubois et
al. (2024), "Length-controlled AlpacaEval", arXiv:2404.04475.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

from edgetune.judging.grading.degenerate import text_of
from edgetune.judging.grading.validity import Validity
from edgetune.judging.subjects.answer import Answer

LENGTH_PAIRS, LENGTH_SHARE = 10, 0.95
"""Verdicts follow length when the longer answer wins this share of pairs both where it is the candidate's and where it
is the baseline's, with at least so many pairs of each kind: quality that comes with length shows on one side."""

LENGTH_CORRELATION, LENGTH_NOTE_PAIRS = 0.5, 20
"""From this rank correlation of length and verdict on, to either side, over so many pairs, there is a note."""

LENGTH_ALPHA = 0.01
"""Its level of significance."""


def check_length(
    judge: str, candidate: Sequence[Answer], baseline: Sequence[Answer], values: Mapping[str, float]
) -> Validity:
    """Whether the longer answer wins. `values` by item are positive where the candidate's is the better one.

    Lengths are Unicode code points; answers of one length say nothing.
    """
    lengths = {answer.id: len(text_of(answer)) for answer in candidate}
    others = {answer.id: len(text_of(answer)) for answer in baseline}
    pairs = [
        (np.log((1 + lengths[item]) / (1 + others[item])), value)
        for item, value in values.items()
        if item in lengths and item in others and lengths[item] != others[item]
    ]
    ours = [value > 0 for longer, value in pairs if longer > 0]
    theirs = [value < 0 for longer, value in pairs if longer < 0]
    if min(len(ours), len(theirs)) >= LENGTH_PAIRS and min(fmean(ours), fmean(theirs)) >= LENGTH_SHARE:
        return Validity.problem(
            f"{judge}: its verdicts follow length. The longer answer won {sum(ours)} of the {len(ours)} pairs "
            f"where it was the candidate's, and {sum(theirs)} of the {len(theirs)} where it was the baseline's."
        )
    if len(pairs) < LENGTH_NOTE_PAIRS or len({value for _, value in pairs}) < 2 or len({size for size, _ in pairs}) < 2:
        return Validity()
    correlation, p_value = spearmanr(*zip(*pairs, strict=True))
    if abs(correlation) < LENGTH_CORRELATION or p_value >= LENGTH_ALPHA:
        return Validity()
    liked = "longer" if correlation > 0 else "shorter"
    return Validity.note(
        f"{judge}: {liked} answers do better (rank correlation with length {correlation:.2f} over {len(pairs)} "
        "items). The cause may be quality, or a judge that prefers a length; a calibration shows which."
    )
