"""`edgetune.export`: a base and its adapter become one GGUF file for llama.cpp; `export_adapter`: the adapter alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune import events
from edgetune.api.public import PathLike, public
from edgetune.errors import UsageError
from edgetune.gguf.presets import DEFAULT_PRESET, find_preset

if TYPE_CHECKING:
    from edgetune.gguf.export_report import ExportResult
    from edgetune.gguf.imatrix import Imatrix
    from edgetune.gguf.lora import AdapterResult
    from edgetune.weights.source import ModelSource

Outtype = Literal["auto", "f32", "f16", "bf16"]
_EXCLUDED = {
    "--converter": {"--tensor-type", "--calibrate", "--imatrix", "--base-as", "--requantize"},
    "--imatrix": {"--calibrate"},
}
"""Option -> options that cannot be combined with it."""


@public
def export(
    source: PathLike,
    *,
    quant: str = DEFAULT_PRESET,
    out: PathLike | None = None,
    base: PathLike | None = None,
    base_as: Literal["16bit", "trained"] = "16bit",
    tensor_type: str | Sequence[str] = (),
    outtype: Outtype = "auto",
    calibrate: PathLike | None = None,
    imatrix: PathLike | None = None,
    save_imatrix: PathLike | None = None,
    requantize: bool = False,
    converter: PathLike | None = None,
    threads: int | None = None,
    force: bool = False,
) -> ExportResult:
    """Write a quantized GGUF that chats, serves and classifies without a GPU, in one pass, and check it.

    `source` is a Run, a run directory, a model (folder, hub id, .gguf file) or any PEFT adapter folder; `base` stands
    in for the base model that it records. `out` is NAME-QUANT.gguf by default. `base_as`: fold the adapter into the
    base's own weights (16bit), or into those as a QLoRA run trained on them (trained). `tensor_type` gives types to
    tensors by name: "PATTERN=TYPE". `outtype` is the float type before quantization, as in llama.cpp's converter.
    `calibrate` measures on this text or conversations which weights matter, and `save_imatrix` keeps what it measured;
    `imatrix` reads such a file. `requantize` quantizes again what a GGUF base holds quantized already. `converter` is
    llama.cpp's own, for architectures that edgetune does not write.
    Raises UsageError, AdapterError, ModelError, DataError, OutputError, NumericalError, VerificationFailed.
    """
    from edgetune.weights.source import resolve_source

    preset = find_preset(quant)
    given = {
        "--tensor-type": tensor_type,
        "--calibrate": calibrate,
        "--imatrix": imatrix,
        "--save-imatrix": save_imatrix,
        "--base-as": base_as != "16bit",
        "--requantize": requantize,
        "--converter": converter,
    }
    _refuse_combinations({option for option, value in given.items() if value}, plain=preset.plain)
    resolved = resolve_source(source, base=base)
    file = Path(out) if out is not None else Path(f"{resolved.name}-{preset.name}.gguf")
    if converter is not None:
        from edgetune.gguf.converter import export_with_converter

        return export_with_converter(resolved, file, Path(converter), preset=preset.name, outtype=outtype, force=force)
    from edgetune.gguf.tensor_plan import ExportOptions
    from edgetune.gguf.tensor_types import parse_override
    from edgetune.gguf.write import export as write_gguf
    from edgetune.outputs import check_target

    patterns = [tensor_type] if isinstance(tensor_type, str) else tensor_type
    overrides = tuple(map(parse_override, patterns))
    check_target(file, force=force)
    options = ExportOptions(
        preset=preset.name,
        outtype=outtype,
        base_as=base_as,
        overrides=overrides,
        importance=_importance(resolved, calibrate, imatrix, save_imatrix, force=force),
        requantize=requantize,
        threads=threads,
    )
    return write_gguf(resolved, file, options, force=force)


@public
def export_adapter(
    source: PathLike,
    *,
    out: PathLike | None = None,
    base: PathLike | None = None,
    outtype: Outtype = "auto",
    force: bool = False,
) -> AdapterResult:
    """Write the LoRA of `source` alone, for llama.cpp to load beside the GGUF of its base.

    `out` is NAME-lora.gguf by default, and `outtype` f32 (also as auto) or f16.
    Raises UsageError, AdapterError, ModelError, OutputError, NumericalError.
    """
    from edgetune.gguf.lora import export_adapter as write_adapter
    from edgetune.weights.source import resolve_source

    resolved = resolve_source(source, base=base)
    if outtype == "bf16":
        raise UsageError("an adapter is written in f32 or f16", where=f"--outtype {outtype}")
    file = Path(out) if out is not None else Path(f"{resolved.name}-lora.gguf")
    return write_adapter(resolved, file, outtype="f16" if outtype == "f16" else "f32", force=force)


def _importance(
    source: ModelSource,
    calibrate: PathLike | None,
    imatrix: PathLike | None,
    save: PathLike | None,
    *,
    force: bool,
) -> Imatrix | None:
    from edgetune.gguf.imatrix import read_imatrix, write_imatrix

    if imatrix is not None:
        return read_imatrix(Path(imatrix))
    if calibrate is None:
        return None
    from edgetune.gguf.calibrate import collect_imatrix

    measured = collect_imatrix(source, Path(calibrate))
    if save is not None:
        write_imatrix(measured, Path(save), force=force)
        events.note(f"importance matrix written to {save}")
    return measured


def _refuse_combinations(given: set[str], *, plain: bool) -> None:
    for option, others in _EXCLUDED.items():
        clash = sorted(given & others) if option in given else []
        if clash:
            raise UsageError(f"{clash[0]} cannot be combined with {option}", remedy=f"leave {clash[0]} out")
    chooses = sorted(given & {"--tensor-type", "--calibrate", "--imatrix"})
    if plain and chooses:
        raise UsageError(f"{chooses[0]} needs a quantized preset", remedy=f"leave {chooses[0]} out")
    if "--save-imatrix" in given and "--calibrate" not in given:
        raise UsageError("--save-imatrix needs --calibrate", remedy="add --calibrate DATA")
