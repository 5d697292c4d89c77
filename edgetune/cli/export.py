"""`edgetune export`: write a base and its adapter as one GGUF file for llama.cpp."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetune import console
from edgetune.cli.options import SOURCE_HELP, BaseOption, ForceOption, JsonOption
from edgetune.errors import UsageError
from edgetune.gguf.presets import DEFAULT_PRESET, PRESETS, find_preset

if TYPE_CHECKING:
    from edgetune.gguf.export_report import ExportReport
    from edgetune.gguf.imatrix import Imatrix
    from edgetune.weights.source import ModelSource

_OUTTYPES = ("auto", "f32", "f16", "bf16")
_BASE_AS = ("16bit", "trained")
_EXCLUDED = {
    "--adapter-only": {
        "--quant",
        "--tensor-type",
        "--calibrate",
        "--imatrix",
        "--base-as",
        "--requantize",
        "--converter",
    },
    "--converter": {"--tensor-type", "--calibrate", "--imatrix", "--base-as", "--requantize"},
    "--imatrix": {"--calibrate"},
}
"""Option -> options that cannot be combined with it."""


def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    quant: Annotated[str, typer.Option("--quant", metavar="PRESET", help=f"{', '.join(PRESETS)}.")] = DEFAULT_PRESET,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Output .gguf file. (default: NAME-PRESET.gguf)")
    ] = None,
    base: BaseOption = None,
    base_as: Annotated[
        str,
        typer.Option(
            "--base-as",
            metavar="FORM",
            help="Base weights to merge into: the original ones (16bit), or the quantized ones that a QLoRA run was "
            "trained on (trained).",
        ),
    ] = "16bit",
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type", metavar="PATTERN=TYPE", help="Tensor type for names that match the pattern. Repeatable."
        ),
    ] = None,
    outtype: Annotated[
        str,
        typer.Option(
            "--outtype",
            metavar="TYPE",
            help=f"Intermediate float type before quantization, as in llama.cpp's converter: "
            f"{', '.join(_OUTTYPES)} (auto: the base's own 16-bit type, else f16).",
        ),
    ] = "auto",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="DATA",
            help="Measure an importance matrix on this text or these conversations, and use it.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", metavar="FILE", help="Use this importance matrix (llama.cpp's format).")
    ] = None,
    save_imatrix: Annotated[
        Path | None, typer.Option("--save-imatrix", metavar="FILE", help="Save the importance matrix of --calibrate.")
    ] = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Write only the LoRA adapter, to load with the base's GGUF.")
    ] = False,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Requantize tensors of a GGUF base that are quantized already.")
    ] = False,
    converter: Annotated[
        Path | None,
        typer.Option(
            "--converter", metavar="PATH", help="Convert with llama.cpp's convert_hf_to_gguf.py at this path."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. (default: all cores)")] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Write a quantized GGUF for llama.cpp in one pass, and check it."""
    console.configure(json_mode=json)
    preset = find_preset(quant)
    _check_word("--outtype", outtype, _OUTTYPES)
    _check_word("--base-as", base_as, _BASE_AS)
    given = {
        "--tensor-type": tensor_type,
        "--calibrate": calibrate,
        "--imatrix": imatrix,
        "--save-imatrix": save_imatrix,
        "--adapter-only": adapter_only,
        "--base-as": base_as != "16bit",
        "--requantize": requantize,
        "--converter": converter,
        "--quant": quant != DEFAULT_PRESET,
    }
    _refuse_combinations({option for option, value in given.items() if value}, plain=preset.plain)
    from edgetune.weights.source import resolve_source

    resolved = resolve_source(source, base=base)
    if adapter_only:
        _export_adapter(resolved, out, outtype, force=force)
        return
    file = out or Path(f"{resolved.name}-{preset.name}.gguf")
    if converter is not None:
        from edgetune.gguf.converter import export_with_converter

        report = export_with_converter(resolved, file, converter, preset=preset.name, outtype=outtype, force=force)
    else:
        from edgetune.gguf.tensor_plan import ExportOptions
        from edgetune.gguf.tensor_types import parse_override
        from edgetune.gguf.write import export as write_gguf
        from edgetune.outputs import check_target

        overrides = tuple(parse_override(text) for text in tensor_type or ())
        check_target(file, force=force)
        options = ExportOptions(
            preset=preset.name,
            outtype=outtype,
            base_as="trained" if base_as == "trained" else "16bit",
            overrides=overrides,
            importance=_importance(resolved, calibrate, imatrix, save_imatrix, force=force),
            requantize=requantize,
            threads=threads,
        )
        report = write_gguf(resolved, file, options, force=force)
    _show(report)
    if report.copied_tensors and resolved.adapter is None:
        console.note(
            f"{report.copied_tensors} tensors were quantized already and were copied unchanged; --requantize "
            f"converts them to {preset.name}, with a small further loss"
        )


def _importance(
    source: ModelSource, calibrate: Path | None, imatrix: Path | None, save: Path | None, *, force: bool
) -> Imatrix | None:
    if imatrix is not None:
        from edgetune.gguf.imatrix import read_imatrix

        return read_imatrix(imatrix)
    if calibrate is None:
        return None
    from edgetune.gguf.calibrate import collect_imatrix
    from edgetune.gguf.imatrix import write_imatrix

    measured = collect_imatrix(source, calibrate)
    if save is not None:
        write_imatrix(measured, save, force=force)
        console.note(f"importance matrix written to {save}")
    return measured


def _export_adapter(source: ModelSource, out: Path | None, outtype: str, *, force: bool) -> None:
    from edgetune.gguf.lora import export_adapter

    if outtype == "bf16":
        raise UsageError("an adapter is written in f32 or f16", where=f"--outtype {outtype}")
    file = out or Path(f"{source.name}-lora.gguf")
    report = export_adapter(source, file, outtype="f16" if outtype == "f16" else "f32", force=force)
    console.document(asdict(report))
    console.result(
        f"{report.bytes / 1e6:.1f} MB, {report.tensors} tensors, written to {file}\n\n"
        f"next: load it with the base's GGUF, for instance llama-cli -m BASE.gguf --lora {file}"
    )


def _show(report: ExportReport) -> None:
    console.document(asdict(report))
    types = ", ".join(f"{count} {kind}" for kind, count in report.types.items())
    copied = f" ({report.copied_tensors} copied from the base)" if report.copied_tensors else ""
    ids = "gives the tokenizer's ids" + (" except as warned above" if report.differences else "")
    console.result(
        f"{report.bytes / 1e6:.0f} MB in {sum(report.seconds.values()):.0f} s, tensors: {types}{copied}\n"
        f"written to {report.out} and checked: llama.cpp opens it, {ids}, and computes with it\n\n"
        f"next: edgetune chat {report.out}"
    )


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


def _check_word(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        from edgetune.recipe.yaml_input import nearest

        raise UsageError(
            f"invalid value{nearest(given, known)}",
            where=f"{option} {given}",
            remedy=f"use one of {', '.join(known)}",
        )
