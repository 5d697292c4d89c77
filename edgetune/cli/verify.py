"""`edgetune verify`: check a GGUF file, and compare it with the model that it was made from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetune import console
from edgetune.cli.options import BaseOption, JsonOption
from edgetune.data.text_file import read_text
from edgetune.errors import DataError, ModelError, UsageError, VerificationFailed
from edgetune.gguf.verification.thresholds import DEFAULTS, default_thresholds

if TYPE_CHECKING:
    from edgetune.gguf.verification.divergence import Divergence
    from edgetune.models.gguf_file import GgufFile
    from edgetune.models.tokenizer import ModelTokenizer
    from edgetune.weights.source import ModelSource


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
    limits = {
        "max_kl_mean": max_kl_mean,
        "max_kl_p99": max_kl_p99,
        "min_top1": min_top1,
        "max_perplexity_ratio": max_perplexity_ratio,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    from edgetune.gguf.verification.proof_table import render_divergence, render_verification
    from edgetune.gguf.verification.verify import verify_file

    if against is None:
        if text is not None or base is not None or given:
            raise UsageError(
                "--text, --base and the limits need --against", remedy="name its model with --against SOURCE"
            )
        checked = verify_file(file)
        console.result(render_verification(checked, against=False))
        console.document({"file": str(file), "passed": True, "checks": asdict(checked)})
        return
    from edgetune.gguf.verification.inspection import bits_per_weight
    from edgetune.models.gguf_file import GgufFile
    from edgetune.weights.source import resolve_source

    source = resolve_source(against, base=base)
    tokenizer = source.open_tokenizer()
    own_text = None if text is None else read_text(text)
    checked = verify_file(file, tokenizer, [] if own_text is None else [own_text])
    console.result(render_verification(checked, against=True))
    if checked.kind != "decoder":
        raise ModelError(
            f"the checks above passed; predictions of {checked.kind} models are not compared, only those of decoders",
            where=file,
            remedy="leave out --against",
        )
    opened = GgufFile(file)
    thresholds = replace(default_thresholds(bits_per_weight(opened.tensors.values())), **given)
    measured = _compare(opened, source, tokenizer, own_text)
    findings = thresholds.judge(measured)
    exceeded = [finding.name for finding in findings if not finding.kept]
    console.result(render_divergence(measured, findings))
    console.document(
        {
            "file": str(file),
            "against": against,
            "passed": not exceeded,
            "checks": asdict(checked),
            "divergence": asdict(measured),
            "limits": asdict(thresholds),
            "exceeded": exceeded,
        }
    )
    if exceeded:
        console.error(VerificationFailed(f"exceeds its limits: {', '.join(exceeded)}", where=file))
        raise typer.Exit(VerificationFailed.exit_code)


def _compare(file: GgufFile, source: ModelSource, tokenizer: ModelTokenizer, text: str | None) -> Divergence:
    """Read the text (or the check's conversations) in llama.cpp and in Transformers."""
    from edgetune.gguf.verification.divergence import WINDOW_TOKENS, cut_windows, measure_divergence
    from edgetune.gguf.verification.reference import open_reference
    from edgetune.runtime.session import Session

    trained = file.metadata.get(f"{file.metadata['general.architecture']}.context_length", WINDOW_TOKENS)
    size = min(WINDOW_TOKENS, trained)
    if text is None:
        windows = [part for chat in _chats(tokenizer) for part in cut_windows(tokenizer.encode(chat), size)]
    else:
        windows = list(cut_windows(tokenizer.encode(text), size, prefix=_prefix(tokenizer)))
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise DataError("the text has fewer than two tokens, so there is nothing to predict", where="--text")
    with (
        Session.open(file.path, context_tokens=size, flash_attention=False) as session,
        console.progress("comparing", sum(map(len, windows)), "tokens") as bar,
    ):
        return measure_divergence(windows, open_reference(source), session.log_probabilities, advance=bar.advance)


def _chats(tokenizer: ModelTokenizer) -> list[str]:
    """The built-in conversations rendered by the chat template. Raises UsageError if there is no template."""
    from edgetune.gguf.verification.chat_parity import render_chats

    chats = render_chats(tokenizer)
    if not chats:
        raise UsageError("the model has no chat template to make a text with", remedy="give a text with --text FILE")
    return chats


def _prefix(tokenizer: ModelTokenizer) -> list[int]:
    """The BOS token if the model expects one before any text."""
    first = tokenizer.encode("a", add_special=True)[:1]
    return first if first and first[0] == tokenizer.token_id("bos") else []
