"""`edgetune.verify`: whether a GGUF file does what the model does that it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune import events
from edgetune.api.public import PathLike, public
from edgetune.errors import DataError, ModelError, UsageError

if TYPE_CHECKING:
    from edgetune.gguf.verification.divergence import Divergence
    from edgetune.gguf.verification.thresholds import CheckedFigure, Thresholds
    from edgetune.gguf.verification.verify import Verification
    from edgetune.models.gguf_file import GgufFile
    from edgetune.models.tokenizer import ModelTokenizer
    from edgetune.weights.source import ModelSource


@dataclass(frozen=True)
class VerifyResult:
    """The `checks` that a file has passed and, against its model, how far its predictions are from the model's.

    `figures` are those of `divergence` beside their `limits`; `exceeded` names those that do not keep theirs.
    """

    file: Path
    checks: Verification
    against: str | None = None
    divergence: Divergence | None = None
    limits: Thresholds | None = None
    figures: tuple[CheckedFigure, ...] = ()

    @property
    def exceeded(self) -> list[str]:
        return [figure.name for figure in self.figures if not figure.kept]

    @property
    def passed(self) -> bool:
        """Whether every figure keeps its limit."""
        return not self.exceeded

    def document(self) -> dict[str, Any]:
        """The result in JSON's types."""
        alone = {"file": str(self.file), "passed": self.passed, "checks": asdict(self.checks)}
        if self.divergence is None or self.limits is None:
            return alone
        compared = {"against": self.against, "divergence": asdict(self.divergence), "limits": asdict(self.limits)}
        return alone | compared | {"exceeded": self.exceeded}


@public
def verify(
    file: PathLike,
    *,
    against: PathLike | None = None,
    text: PathLike | None = None,
    max_kl_mean: float | None = None,
    max_kl_p99: float | None = None,
    min_top1: float | None = None,
    max_perplexity_ratio: float | None = None,
    base: PathLike | None = None,
) -> VerifyResult:
    """Check that llama.cpp opens and computes a GGUF; with `against`, also its tokens, chats and predictions.

    `against` is what the file was made from: a Run, a run directory, a model or any PEFT adapter folder, with `base` in
    place of the base model that it records. Predictions are compared on the file `text`, or on the check's own
    conversations. KL divergences are in nats; limits that are not given depend on the file's bits per weight.
    Raises VerificationFailed for a file that fails a check; one that exceeds a limit has a result that is not `passed`.
    """
    from edgetune.gguf.verification.verify import verify_file

    file = Path(file)
    limits = {
        "max_kl_mean": max_kl_mean,
        "max_kl_p99": max_kl_p99,
        "min_top1": min_top1,
        "max_perplexity_ratio": max_perplexity_ratio,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    if against is None:
        if text is not None or base is not None or given:
            raise UsageError(
                "--text, --base and the limits need --against", remedy="name its model with --against SOURCE"
            )
        return VerifyResult(file, verify_file(file))
    from edgetune.data.text_file import read_text
    from edgetune.gguf.verification.inspection import bits_per_weight
    from edgetune.gguf.verification.thresholds import default_thresholds
    from edgetune.models.gguf_file import GgufFile
    from edgetune.weights.source import resolve_source

    source = resolve_source(against, base=base)
    tokenizer = source.open_tokenizer()
    own_text = None if text is None else read_text(Path(text))
    checks = verify_file(file, tokenizer, [] if own_text is None else [own_text])
    if checks.kind != "decoder":
        raise ModelError(
            f"all other checks passed; predictions of {checks.kind} models are not compared, only those of decoders",
            where=file,
            remedy="leave out --against",
        )
    opened = GgufFile(file)
    thresholds = replace(default_thresholds(bits_per_weight(opened.tensors.values())), **given)
    measured = _compare(opened, source, tokenizer, own_text)
    return VerifyResult(file, checks, str(against), measured, thresholds, tuple(thresholds.judge(measured)))


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
        events.progress("comparing", sum(map(len, windows)), "tokens") as bar,
    ):
        return measure_divergence(
            windows, open_reference(source), session.context.log_probabilities, advance=bar.advance
        )


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
