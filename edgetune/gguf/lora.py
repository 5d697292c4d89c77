"""Adapter-only export: a LoRA as llama.cpp's adapter file, a few MB to load with the GGUF of its base.

llama.cpp adds alpha/r · B·(A·x) to a weight's output, with one alpha for the whole file and the rank r of each pair
(llama_adapter_lora_weight::get_scale in src/llama-adapter.h). Other scales of a module are multiplied into its B.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgetune import events
from edgetune.errors import NumericalError, UsageError
from edgetune.gguf.architectures import find_architecture
from edgetune.gguf.checksums import reserve_checksums, store_checksums
from edgetune.gguf.encode import to_float32
from edgetune.gguf.lineage import Lineage, trace_lineage
from edgetune.gguf.lora_pairs import LoraPair, gather_pairs, inexpressible, refuse_other_methods
from edgetune.models.load import open_tokenizer
from edgetune.outputs import WrittenModel, check_target, staged_file
from edgetune.weights.adapter_file import AdapterFile
from edgetune.weights.fold import INVOCATION_TOKENS, refuse_biases_without_place
from edgetune.weights.source import ModelSource
from edgetune.weights.stream import open_folded

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter

AdapterType = Literal["f32", "f16"]


@dataclass(frozen=True)
class AdapterResult(WrittenModel):
    """A written adapter file. `alpha` is that of the file; `tensors` counts A and B of each of the `modules`."""

    outtype: str
    modules: int
    tensors: int
    alpha: float
    seconds: float


def export_adapter(
    source: ModelSource, out: Path, *, outtype: AdapterType = "f32", force: bool = False
) -> AdapterResult:
    """Write only the LoRA of `source` to the GGUF file `out`, complete or not at all.

    Raises UsageError for a source without an adapter, AdapterError for one that the format cannot express, ModelError,
    OutputError, and NumericalError for a value that is not finite or beyond float16's range.
    """
    started = time.monotonic()
    if source.adapter is None:
        raise UsageError("is a whole model without an adapter", where=source.name)
    check_target(out, force=force)
    base = open_folded(replace(source, adapter=None))
    file = AdapterFile(source.adapter, base.tensors)
    refuse_biases_without_place(source.adapter, file, base.tensors)
    refuse_other_methods(source.adapter)
    alpha = float(source.adapter.settings.get("lora_alpha") or 1)
    pairs = gather_pairs(source.adapter, file, base, alpha)
    _compare_tokenizers(source)
    architecture = find_architecture(base.config, where=source.base.reference).gguf_name
    with staged_file(out, force=force) as staged:
        invocation = source.adapter.settings.get(INVOCATION_TOKENS) or ()
        _write(staged, architecture, trace_lineage(source), alpha, invocation, pairs, file, outtype)
        size = staged.stat().st_size
    return AdapterResult(
        path=out,
        bytes=size,
        outtype=outtype,
        modules=len(pairs),
        tensors=2 * len(pairs),
        alpha=alpha,
        seconds=round(time.monotonic() - started, 3),
    )


def _compare_tokenizers(source: ModelSource) -> None:
    """The base's file has the base's own tokenizer and chat template; the adapter may have been trained with others."""
    if source.tokenizer_folder is None:
        return
    assert source.adapter is not None
    trained, base = source.open_tokenizer(), open_tokenizer(source.base)
    added = [token for token in trained.vocabulary if token not in base.vocabulary]
    if added:
        raise inexpressible(
            source.adapter,
            f"was trained with {len(added)} added tokens ({added[0]!r}), which the base's tokenizer lacks",
        )
    if trained.chat_template != base.chat_template:
        events.warn(
            "this adapter was trained with another chat template than the base's; use the adapter's own in llama.cpp "
            "(--chat-template-file chat_template.jinja)"
        )


def _write(
    file: Path,
    architecture: str,
    lineage: Lineage,
    alpha: float,
    invocation: Sequence[int],
    pairs: Sequence[LoraPair],
    adapter: AdapterFile,
    outtype: AdapterType,
) -> None:
    import numpy as np
    from gguf import GGUFWriter

    dtype = np.dtype(np.float32 if outtype == "f32" else np.float16)
    writer = GGUFWriter(file, architecture)
    try:
        _describe(writer, lineage, alpha, invocation)
        names = [f"{pair.name}.{part}" for pair in pairs for part in ("lora_a", "lora_b")]
        reserve_checksums(writer, dict.fromkeys(names, outtype.upper()))
        for pair in pairs:
            for part, shape in zip(("lora_a", "lora_b"), pair.shapes, strict=True):
                writer.add_tensor_info(f"{pair.name}.{part}", shape, dtype, shape[0] * shape[1] * dtype.itemsize)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for pair in pairs:
            for array in _arrays(pair, adapter):
                writer.write_tensor_data(_stored(array, dtype, pair, adapter.path))
    finally:
        writer.close()
    store_checksums(file)


def _describe(writer: GGUFWriter, lineage: Lineage, alpha: float, invocation: Sequence[int]) -> None:
    """`invocation`: the tokens after which an activated LoRA applies, https://arxiv.org/abs/2504.12397."""
    from gguf import GGUFType, GGUFValueType, Keys

    lineage.describe(writer, GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    if invocation:
        tokens = Keys.Adapter.ALORA_INVOCATION_TOKENS
        writer.add_key_value(tokens, list(invocation), GGUFValueType.ARRAY, GGUFValueType.UINT32)


def _arrays(pair: LoraPair, adapter: AdapterFile) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    a, b = (to_float32(adapter.rows(key)) for key in pair.keys)
    if pair.order is not None:
        b = b[pair.order]
    return (np.ascontiguousarray(a.T) if pair.embedding else a), b * np.float32(pair.factor)


def _stored(values: np.ndarray, dtype: np.dtype, pair: LoraPair, where: Path) -> np.ndarray:
    import numpy as np

    if not np.isfinite(values).all():
        raise NumericalError(
            f"the adapter of {pair.name} contains NaN or infinity",
            where=where,
            remedy="the training diverged; train again with a lower learning rate",
        )
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        raise NumericalError(
            f"the adapter of {pair.name} has values beyond float16's range", where=where, remedy="use --outtype f32"
        )
    return stored
