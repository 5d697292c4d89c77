"""llama-cpp-python's own doors, its `Llama` class and its server, opened so that the probe's answer holds for them too.

    python -m edgetune.runtime.guarded llama_cpp.server --model FILE --port 8000

Neither of them can switch llama.cpp's extra CPU kernels off, so on a machine where these crash (see `probe`), both end
without a message. Whoever opens llama.cpp by such a door calls `respect_probe` first, or starts it by this module.
"""

from __future__ import annotations

import runpy
import sys
from functools import lru_cache
from typing import Any

from edgetune import display
from edgetune.errors import EdgetuneError, UsageError
from edgetune.runtime import probe


@lru_cache(maxsize=1)
def respect_probe() -> None:
    """From now on, what llama_cpp loads in this process has the extra kernels only where they run.

    Raises UsageError for a value of EDGETUNE_EXTRA_KERNELS that is not known.
    """
    import llama_cpp.llama_cpp as bindings

    extra_kernels = probe.extra_kernels_work()
    defaults = bindings.llama_model_default_params

    def safe_defaults() -> Any:
        parameters = defaults()
        parameters.use_extra_bufts = extra_kernels
        return parameters

    bindings.llama_model_default_params = safe_defaults


def main(arguments: list[str]) -> None:
    """Run a module of llama-cpp-python, such as llama_cpp.server, with these arguments."""
    if not arguments:
        raise UsageError("there is no module to run", remedy="try: python -m edgetune.runtime.guarded llama_cpp.server")
    respect_probe()
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    display.show_progress()
    try:
        main(sys.argv[1:])
    except EdgetuneError as problem:
        display.stderr.print(f"error: {problem}")
        sys.exit(problem.exit_code)
