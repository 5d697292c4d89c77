"""Tensors that can only be computed whole, kept from the first use of a row to the release of the last one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class WholeTensors:
    """Rows of what `make` computes.

    `make(name)` gives that tensor and others that are computed with it, by name. It runs in one thread at a time, which
    bounds the memory.
    """

    def __init__(self, make: Callable[[str], dict[str, np.ndarray]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: dict[str, np.ndarray] = {}
        self._released: dict[str, int] = {}

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the tensor."""
        with self._lock:
            if name not in self._kept:
                self._kept.update(self._make(name))
            return self._kept[name][start:stop]

    def release(self, name: str, start: int, stop: int) -> None:
        """Count these rows as done. After the last one, the tensor is deleted."""
        with self._lock:
            if name not in self._kept:
                return
            done = self._released.pop(name, 0) + stop - start
            if done < len(self._kept[name]):
                self._released[name] = done
            else:
                del self._kept[name]
