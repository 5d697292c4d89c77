"""edgetune: from a training recipe to a chat on a laptop without a GPU, and a check that nothing got worse.

    run = edgetune.train("demo")
    file = edgetune.export(run, quant="q4_k_m", out="demo.gguf")
    with edgetune.load(file) as model:
        print(model.chat([{"role": "user", "content": "Hello"}]).text)
    print(edgetune.judge("sentiment-demo", model=file, baseline="base.gguf").outcome)

docs/python.md shows all of it. What is not in `__all__` may change with every version. Each name is imported when it is
first used, so that `import edgetune` takes no time.
"""

from __future__ import annotations

import builtins
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetune import errors as errors
    from edgetune import events as events
    from edgetune.api.calibrate import calibrate as calibrate
    from edgetune.api.calibrate import estimate_calibration as estimate_calibration
    from edgetune.api.check_data import check_data as check_data
    from edgetune.api.demo import DemoReport as DemoReport
    from edgetune.api.demo import demo as demo
    from edgetune.api.export import export as export
    from edgetune.api.export import export_adapter as export_adapter
    from edgetune.api.inspect import inspect as inspect
    from edgetune.api.judge import estimate_judging as estimate_judging
    from edgetune.api.judge import judge as judge
    from edgetune.api.judge import side_by_side as side_by_side
    from edgetune.api.merge import merge as merge
    from edgetune.api.plan import plan as plan
    from edgetune.api.run import Run as Run
    from edgetune.api.train import train as train
    from edgetune.api.verify import VerifyResult as VerifyResult
    from edgetune.api.verify import verify as verify
    from edgetune.data.check import DataReport as DataReport
    from edgetune.display import show_progress as show_progress
    from edgetune.gguf.export_report import ExportResult as ExportResult
    from edgetune.gguf.lora import AdapterResult as AdapterResult
    from edgetune.gguf.verification.inspection import Inspection as Inspection
    from edgetune.judging.calibration.calibrate import Calibration as Calibration
    from edgetune.judging.results.judgement import Judgement as Judgement
    from edgetune.judging.suites.suite import Suite as Suite
    from edgetune.judging.suites.suite import load_suite as load_suite
    from edgetune.judging.suites.suite import shipped_suites as shipped_suites
    from edgetune.planning.plan import Plan as Plan
    from edgetune.recipe.load import dump_recipe as dump_recipe
    from edgetune.recipe.load import load_recipe as load_recipe
    from edgetune.recipe.load import shipped_recipes as shipped_recipes
    from edgetune.recipe.schema import Recipe as Recipe
    from edgetune.runtime.generation import Generation as Generation
    from edgetune.runtime.model import ChatAnswer as ChatAnswer
    from edgetune.runtime.model import Model as Model
    from edgetune.runtime.model import load as load
    from edgetune.weights.merge import MergeResult as MergeResult

__version__ = "0.1.0"

_HOMES = {
    "api.calibrate": ("calibrate", "estimate_calibration"),
    "api.check_data": ("check_data",),
    "api.demo": ("DemoReport", "demo"),
    "api.export": ("export", "export_adapter"),
    "api.inspect": ("inspect",),
    "api.judge": ("estimate_judging", "judge", "side_by_side"),
    "api.merge": ("merge",),
    "api.plan": ("plan",),
    "api.run": ("Run",),
    "api.train": ("train",),
    "api.verify": ("VerifyResult", "verify"),
    "data.check": ("DataReport",),
    "display": ("show_progress",),
    "errors": ("errors",),
    "events": ("events",),
    "gguf.export_report": ("ExportResult",),
    "gguf.lora": ("AdapterResult",),
    "gguf.verification.inspection": ("Inspection",),
    "judging.calibration.calibrate": ("Calibration",),
    "judging.results.judgement": ("Judgement",),
    "judging.suites.suite": ("Suite", "load_suite", "shipped_suites"),
    "planning.plan": ("Plan",),
    "recipe.load": ("dump_recipe", "load_recipe", "shipped_recipes"),
    "recipe.schema": ("Recipe",),
    "runtime.generation": ("Generation",),
    "runtime.model": ("ChatAnswer", "Model", "load"),
    "weights.merge": ("MergeResult",),
}
"""Module -> the public names that it holds, as in the imports above, which are for type checkers."""
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = list(_MODULE_OF)

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'edgetune' has no attribute {name!r}")
        module = import_module(f"edgetune.{_MODULE_OF[name]}")
        value = globals()[name] = module if name == _MODULE_OF[name] else getattr(module, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if hasattr(builtins, "get_ipython"):  # a notebook, or IPython on a terminal
    from edgetune.display import show_progress

    show_progress()
