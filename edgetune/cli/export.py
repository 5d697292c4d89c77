"""`edgetune export`: write a base and its adapter as one GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import edgetune
from edgetune import console, events
from edgetune.api.export import Outtype
from edgetune.cli.options import SOURCE_HELP, BaseOption, ForceOption, JsonOption
from edgetune.errors import UsageError
from edgetune.gguf.presets import DEFAULT_PRESET, PRESETS


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
            f"{', '.join(get_args(Outtype))} (auto: the base's own 16-bit type, else f16).",
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
    shared: dict[str, Any] = {"out": out, "base": base, "outtype": outtype, "force": force}
    of_the_model: dict[str, Any] = {
        "quant": quant,
        "base_as": base_as,
        "tensor_type": tensor_type or (),
        "calibrate": calibrate,
        "imatrix": imatrix,
        "save_imatrix": save_imatrix,
        "requantize": requantize,
        "converter": converter,
        "threads": threads,
    }
    if adapter_only:
        _refuse_options_of_the_model(of_the_model)
        adapter = edgetune.export_adapter(source, **shared)
        console.document(adapter.document())
        console.result(
            f"{adapter.bytes / 1e6:.1f} MB, {adapter.tensors} tensors, written to {adapter.path}\n\n"
            f"next: load it with the base's GGUF, for instance llama-cli -m BASE.gguf --lora {adapter.path}"
        )
        return
    written = edgetune.export(source, **shared, **of_the_model)
    console.document(written.document())
    types = ", ".join(f"{count} {kind}" for kind, count in written.types.items())
    copied = f" ({written.copied_tensors} copied from the base)" if written.copied_tensors else ""
    ids = "gives the tokenizer's ids" + (" except as warned above" if written.differences else "")
    console.result(
        f"{written.bytes / 1e6:.0f} MB in {sum(written.seconds.values()):.0f} s, tensors: {types}{copied}\n"
        f"written to {written.path} and checked: llama.cpp opens it, {ids}, and computes with it\n\n"
        f"next: edgetune chat {written.path}"
    )
    if written.copied_tensors and not written.folded_modules:
        events.note(
            f"{written.copied_tensors} tensors were quantized already and were copied unchanged; --requantize "
            f"converts them to {written.preset}, with a small further loss"
        )


def _refuse_options_of_the_model(given: dict[str, Any]) -> None:
    """Raise UsageError for an option that does not apply to an adapter's file."""
    clashing = {name for name, value in given.items() if value} - {"threads"}
    if given["quant"] == DEFAULT_PRESET:
        clashing.remove("quant")
    if given["base_as"] == "16bit":
        clashing.remove("base_as")
    if clashing:
        option = f"--{min(clashing)}".replace("_", "-")
        raise UsageError(f"{option} cannot be combined with --adapter-only", remedy=f"leave {option} out")
