"""What a piece of work took, seconds by phase and memory, and what memory there is."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stopwatch:
    """Seconds by phase, in the order in which the phases ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)


def peak_resident_bytes() -> int:
    """The most memory that this process has had resident so far, mapped file pages included; 0 where no system tells
    (Windows)."""
    try:
        # getrusage goes on from the program that started this one: the child of a large program looks large.
        (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
        return int(kilobytes) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_resident() -> bool:
    """Let `peak_resident_bytes` begin anew at what is resident now; False where the system cannot (outside Linux)."""
    try:
        # proc(5): 5 sets the peak back to the present size.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def available_memory_bytes() -> int | None:
    """Memory that is available without swapping; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
