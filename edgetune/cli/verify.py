"""`edgetune verify`: check a GGUF file, and compare it with the model that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetune
from edgetune import console
from edgetune.cli.options import BaseOption, JsonOption
from edgetune.errors import VerificationFailed
from edgetune.gguf.verification.thresholds import DEFAULTS


def _limit(name: str, what: str) -> typer.models.OptionInfo:
    defaults = ", ".join(
        f"{getattr(limits, name):g} {f'from {bits} bits per weight on' if bits else 'below'}"
        for bits, limits in DEFAULTS.items()
    )
    return typer.Option(metavar="X", min=0.0, help=f"{what} (default: {defaults})")


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .gguf file to check.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="SOURCE",
            help="Compare with this source of the file: a run directory, a model, or any PEFT adapter folder.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Compare on this text. (default: built-in conversations)"),
    ] = None,
    max_kl_mean: Annotated[float | None, _limit("max_kl_mean", "Maximum mean KL divergence, in nats.")] = None,
    max_kl_p99: Annotated[
        float | None, _limit("max_kl_p99", "Maximum 99th percentile of the KL divergence, in nats.")
    ] = None,
    min_top1: Annotated[
        float | None, _limit("min_top1", "Minimum share of tokens with the same most likely token.")
    ] = None,
    max_perplexity_ratio: Annotated[
        float | None, _limit("max_perplexity_ratio", "Maximum ratio of the file's perplexity to the model's.")
    ] = None,
    base: BaseOption = None,
    json: JsonOption = False,
) -> None:
    """Check that llama.cpp can run a GGUF; with --against, also compare its tokens, chats and predictions.

    Exit code 1 when a check fails or a limit is exceeded.
    """
    console.configure(json_mode=json)
    result = edgetune.verify(
        file,
        against=against,
        text=text,
        max_kl_mean=max_kl_mean,
        max_kl_p99=max_kl_p99,
        min_top1=min_top1,
        max_perplexity_ratio=max_perplexity_ratio,
        base=base,
    )
    from edgetune.gguf.verification.proof_table import render_divergence, render_verification

    console.result(render_verification(result.checks, against=against is not None))
    if result.divergence is not None:
        console.result(render_divergence(result.divergence, result.figures))
    console.document(result.document())
    if not result.passed:
        console.error(VerificationFailed(f"exceeds its limits: {', '.join(result.exceeded)}", where=file))
        raise typer.Exit(VerificationFailed.exit_code)
