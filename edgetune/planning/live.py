"""Counts the memory and the multiplications of a PyTorch computation without running it.

Tensors on the meta device have shapes, types and storages, but no memory. While `LiveBytes` is open, every new storage
counts until nothing refers to it any more, which is when real memory would be freed. Autograd's saved tensors,
gradients and temporary results all count; memory that a kernel allocates and frees before it returns does not.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

SCRATCH = "scratch"
"""The kind of the memory that a kernel uses while it runs."""

PartOf = Callable[[Tensor], str]
"""Which part of a plan a new tensor belongs to."""

_aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """While it is open, counts live and peak bytes by kind, and floating-point operations.

    Older tensors are not counted. Tensors on the CPU (indices, masks, lengths) are computed, and become meta tensors in
    operations with meta tensors. The value of a meta tensor is `answer`: Transformers asks whether masks are all true.
    With `onednn`, products are those of a CPU.
    """

    def __init__(self, kind: PartOf = lambda tensor: "", *, answer: bool = True, onednn: bool = False) -> None:
        super().__init__()
        self._kind, self._answer, self._onednn = kind, answer, onednn
        self._held: dict[int, tuple[int, str]] = {}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._now: Counter[str] = Counter()
        self.now_bytes = self.peak_bytes = 0
        self.at_peak: Mapping[str, int] = {}
        """Bytes by kind at the peak."""
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is _aten._local_scalar_dense.default and args[0].is_meta:
            return self._answer
        args, kwargs = _on_one_device(func, args, kwargs or {})
        result = func(*args, **kwargs)
        self.flops += _flops(func, args, kwargs, result)
        made = _tensors((result,))
        if made:
            given = {t.untyped_storage()._cdata for t in _tensors((*args, *kwargs.values()))}
            for tensor in made:
                if tensor.untyped_storage()._cdata not in given:
                    self._hold(tensor)
        self._note_peak(_scratch_bytes(func, args, onednn=self._onednn))
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._held or size == 0:
            return
        kind = self._kind(tensor)
        self._held[key] = (size, kind)
        self._watched[key] = weakref.ref(storage, lambda _, key=key: self._release(key))  # type: ignore[misc]
        self._now[kind] += size
        self.now_bytes += size

    def _note_peak(self, scratch: int) -> None:
        if self.now_bytes + scratch > self.peak_bytes:
            self.peak_bytes, self.at_peak = self.now_bytes + scratch, {**self._now, SCRATCH: scratch}

    def begin_phase(self) -> None:
        """Reset the peak to the bytes that are live now."""
        self.peak_bytes, self.at_peak = self.now_bytes, dict(self._now)

    def _release(self, key: int) -> None:
        size, kind = self._held.pop(key)
        del self._watched[key]
        self._now[kind] -= size
        self.now_bytes -= size


_PRODUCTS = frozenset({_aten.mm.default, _aten.addmm.default})

_VALUES_MATTER = frozenset(
    {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._to_copy.default, _aten.copy_.default}
)
"""A real index stays real, because the size of the result depends on its values."""


def _on_one_device(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments; if some are meta tensors, the real ones become meta tensors too."""
    if func in _VALUES_MATTER or len({tensor.is_meta for tensor in _tensors((*args, *kwargs.values()))}) < 2:
        return args, kwargs
    return tuple(map(_to_meta, args)), {name: _to_meta(value) for name, value in kwargs.items()}


def _to_meta(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_to_meta, value))
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) and not value.is_meta else value


def _tensors(values: tuple[Any, ...]) -> list[Tensor]:
    """The tensors in values, and in lists and tuples in them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(tuple(value))
    return found


def _scratch_bytes(func: Any, args: tuple[Any, ...], *, onednn: bool) -> int:
    """The memory that a kernel uses beside its result.

    bitsandbytes unpacks the whole weight for a product of many rows, and oneDNN copies it into its own layout.
    """
    if onednn and func in _PRODUCTS:
        return int(args[-1].untyped_storage().nbytes())
    if _name(func) == "bitsandbytes::gemm_4bit":
        return math.prod(args[2]) * int(args[0].element_size())
    return 0


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Floating-point operations of products; elementwise operations are ignored."""
    if func is _aten._scaled_dot_product_flash_attention_for_cpu.default:
        return sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape)
    if func is _aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
        return sdpa_backward_flop_count(args[0].shape, args[1].shape, args[2].shape, args[3].shape)
    if _name(func) == "bitsandbytes::gemm_4bit":
        return 2 * args[0].numel() * int(args[2][0])
    counted = flop_registry.get(func._overloadpacket)
    return 0 if counted is None else int(counted(*args, **kwargs, out_val=result))


def _name(func: Any) -> str:
    return str(func._schema.name)
