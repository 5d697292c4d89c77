"""`edgetune export`: a base and its adapter become one GGUF file for llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgetune
from edgetune import console
from edgetune.api.export import OUTTYPES
from edgetune.cli.options import SOURCE_HELP, BaseOption, ForceOption, JsonOption
from edgetune.errors import UsageError
from edgetune.gguf.presets import DEFAULT_PRESET, PRESETS


def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)],
    quant: Annotated[str, typer.Option("--quant", metavar="PRESET", help=f"{', '.join(PRESETS)}.")] = DEFAULT_PRESET,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The .gguf file to write. (default: NAME-PRESET.gguf)")
    ] = None,
    base: BaseOption = None,
    base_as: Annotated[
        str,
        typer.Option(
            "--base-as",
            metavar="FORM",
            help="What the adapter is folded into: the base's own weights (16bit), or those as a QLoRA run trained on "
            "them (trained).",
        ),
    ] = "16bit",
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type", metavar="PATTERN=TYPE", help="A type for the tensors whose name matches. Repeatable."
        ),
    ] = None,
    outtype: Annotated[
        str,
        typer.Option(
            "--outtype",
            metavar="TYPE",
            help=f"Intermediate float type before quantization, as in llama.cpp's converter: "
            f"{', '.join(OUTTYPES)} (auto: the base's own 16-bit type, else f16).",
        ),
    ] = "auto",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate", metavar="DATA", help="Text or conversations to measure which weights matter, and use that."
        ),
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", metavar="FILE", help="Use this importance matrix (llama.cpp's file).")
    ] = None,
    save_imatrix: Annotated[
        Path | None, typer.Option("--save-imatrix", metavar="FILE", help="Keep what --calibrate measured.")
    ] = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Write the LoRA alone, to load beside the base's GGUF.")
    ] = False,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Quantize again what a GGUF base holds quantized already.")
    ] = False,
    converter: Annotated[
        Path | None,
        typer.Option("--converter", metavar="PATH", help="Use this llama.cpp converter (convert_hf_to_gguf.py)."),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="(default: all cores)")] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Write a quantized GGUF that chats, serves and classifies without a GPU, in one pass, and check it."""
    console.configure(json_mode=json)
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
        adapter = edgetune.export_adapter(source, out=out, base=base, outtype=outtype, force=force)
        console.document(adapter.document())
        console.result(
            f"{adapter.bytes / 1e6:.1f} MB, {adapter.tensors} tensors, written to {adapter.path}\n\n"
            f"next: load it beside the base's GGUF, for instance llama-cli -m BASE.gguf --lora {adapter.path}"
        )
        return
    written = edgetune.export(source, out=out, base=base, outtype=outtype, force=force, **of_the_model)
    console.document(written.document())
    types = ", ".join(f"{count} {kind}" for kind, count in written.types.items())
    copied = f" ({written.copied_tensors} as the base has them)" if written.copied_tensors else ""
    ids = "gives the tokenizer's ids" + (" but where the warnings above say so" if written.differences else "")
    console.result(
        f"{written.bytes / 1e6:.0f} MB in {sum(written.seconds.values()):.0f} s, tensors: {types}{copied}\n"
        f"written to {written.path} and checked: llama.cpp opens it, {ids}, and runs it\n\n"
        f"next: edgetune chat {written.path}"
    )
    if written.copied_tensors and not written.folded_modules:
        console.note(
            f"{written.copied_tensors} tensors were quantized already and are kept as they were; --requantize makes "
            f"them {written.preset}, and loses a little more"
        )


def _refuse_options_of_the_model(given: dict[str, Any]) -> None:
    """Raise UsageError for an option that says nothing about an adapter's file."""
    says_nothing = {name for name, value in given.items() if value} - {"threads"}
    if given["quant"] == DEFAULT_PRESET:
        says_nothing.remove("quant")
    if given["base_as"] == "16bit":
        says_nothing.remove("base_as")
    if says_nothing:
        option = f"--{min(says_nothing)}".replace("_", "-")
        raise UsageError(f"{option} has no meaning together with --adapter-only", remedy=f"leave {option} out")
