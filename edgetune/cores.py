"""How many cores there are to work with: physical ones, within what the process and its container may use.

llama.cpp's threads wait for each other by spinning, so a second thread on a core, or one more than a container's quota
of processor time, makes decoding slower and not faster; and vector arithmetic gains nothing by it.
"""

from __future__ import annotations

import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")

OPENMP_SPINS = "1000"
"""How long GNU OpenMP's threads spin for the next piece of work before they sleep. By default they spin on, and another
busy program on the same cores then slows training down tenfold. With this limit it costs about half the speed. Without
another program the limit makes no difference."""


def limit_spinning() -> None:
    """Let GNU OpenMP's threads spin no longer than that, unless the environment says otherwise; before torch is
    imported, and llama.cpp."""
    os.environ.setdefault("GOMP_SPINCOUNT", OPENMP_SPINS)


def physical_cores() -> int:
    """Physical cores available to this process, at least 1."""
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(processor) for processor in logical}
    return max(1, min(len(cores), _quota_in_cores()))


def _siblings(processor: int) -> str:
    """The logical processors that share a core with this one, as the kernel writes them ("0,4"); itself if unknown."""
    try:
        return (_TOPOLOGY / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(processor)


def _quota_in_cores() -> int:
    """The container's processor time in whole cores (cgroup v2: "quota period", or "max"); unlimited if unknown."""
    unlimited = os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return unlimited if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return unlimited
