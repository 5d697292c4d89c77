"""The public API: what `import edgetune` gives, what its functions accept, and that the commands call them."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.logged import log_steps, logged_run, make_recipe
from support.sample_judgement import classified, hostile
from test_cli_app import HEAVY
from test_plot_and_card import SUMMARY

import edgetune
from edgetune.api.judge import reference_of
from edgetune.api.public import public
from edgetune.errors import AdapterError, DataError, EdgetuneError, MissingComponent, RecipeError, UsageError
from edgetune.judging.report.notebook import judgement_html
from edgetune.outputs import WrittenModel
from edgetune.recipe.load import dump_recipe


def test_importing_the_package_loads_no_library(run_python) -> None:
    libraries = (*HEAVY, "numpy", "pydantic", "rich", "typer")
    program = f"import sys, edgetune; dir(edgetune); print([name for name in {libraries} if name in sys.modules])"
    assert run_python(program) == "[]"


def test_every_public_name_is_there_and_type_checkers_know_it() -> None:
    tree = ast.parse(Path(edgetune.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {(node.module, name.asname) for node in block.body for name in node.names}
    assert {name for _, name in imported} == set(edgetune.__all__)
    for module, name in imported:
        if module != "edgetune":
            assert getattr(edgetune, name) is getattr(importlib.import_module(module), name)
    assert set(edgetune.__all__) <= set(dir(edgetune))
    assert (Path(edgetune.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="trian"):
        _ = edgetune.trian  # type: ignore[attr-defined]


def test_no_module_takes_the_place_of_a_public_name_when_it_is_imported() -> None:
    modules = {name for name in edgetune.__all__ if importlib.util.find_spec(f"edgetune.{name}") is not None}
    assert modules == {"errors", "events"}


def test_every_public_function_is_in_the_documentation() -> None:
    page = (Path(edgetune.__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in edgetune.__all__ if not re.search(rf"\b{name}\b", page)] == []


class Called(Exception):
    """A command has called the public function."""


@pytest.mark.parametrize(
    ("command", "function", "given"),
    [
        ("train demo -s train.seed=7 --out run --force", "train", {"out": Path("run"), "force": True}),
        ("merge SOURCE --base b --out merged", "merge", {"out": Path("merged"), "base": "b"}),
        ("export SOURCE --quant q8_0 --threads 3", "export", {"quant": "q8_0", "threads": 3}),
        ("export SOURCE --adapter-only --outtype f16", "export_adapter", {"outtype": "f16"}),
        (
            "judge S --model m --judge a --judge b --no-cache",
            "judge",
            {"model": "m", "judge": ["a", "b"], "cache": False},
        ),
        ("judge S --model m --baseline b --dry-run", "estimate_judging", {"model": "m", "baseline": "b"}),
        ("judge calibrate J --on votes --min-kappa 0.5", "calibrate", {"on": Path("votes"), "min_kappa": 0.5}),
        ("judge calibrate J --on votes --dry-run", "estimate_calibration", {"on": Path("votes")}),
        ("judge show A B --prompt hello", "side_by_side", {"prompt": ["hello"]}),
        ("plan demo --device-memory 8GB --processes 2", "plan", {"device_memory": "8GB", "processes": 2}),
        ("data check demo", "check_data", {}),
        ("verify FILE --against run --min-top1 0.9", "verify", {"against": "run", "min_top1": 0.9}),
        ("inspect FILE --check", "inspect", {"check": True}),
        ("chat FILE --prompt hello --threads 2", "load", {"threads": 2}),
        ("demo --out folder", "demo", {"out": Path("folder")}),
    ],
)
def test_a_command_is_a_call_of_its_function(
    command: str, function: str, given: dict[str, Any], edgetune_command, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def record(*arguments: Any, **options: Any) -> None:
        seen.update(dict(enumerate(arguments)) | options)
        raise Called

    monkeypatch.setattr(edgetune, function, record)
    with pytest.raises(Called):
        edgetune_command(*command.split())
    assert given.items() <= {name: value for name, value in seen.items() if name in given}.items()


def test_a_recipe_is_a_name_a_path_a_dict_or_an_object(tmp_path: Path) -> None:
    expected = edgetune.load_recipe("demo", ["train.seed=7", "method.rank=4"])
    overrides = {"train.seed": 7, "method.rank": 4}
    values = {"extends": "demo", "train": {"seed": 7}, "method": {"rank": 4}}
    unchanged = json.dumps(values)
    (tmp_path / "own.yaml").write_text(unchanged, encoding="utf-8")
    for recipe in (
        edgetune.load_recipe("demo", overrides),
        edgetune.load_recipe(values),
        edgetune.load_recipe(tmp_path / "own.yaml"),
        edgetune.load_recipe(edgetune.load_recipe("demo"), overrides),
        edgetune.load_recipe(expected),
    ):
        assert recipe == expected
    assert json.dumps(values) == unchanged


def test_paths_in_a_dict_are_relative_to_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {"source": Path("rows.csv"), "format": "text-label"}
    recipe = edgetune.load_recipe({"extends": "demo", "data": {"train": [rows]}}, {"data.eval": [rows]})
    assert {recipe.data.train[0].source, recipe.data.eval[0].source} == {str(tmp_path / "rows.csv")}
    values = {"name": "own", "task": "classify", "data": [rows], "labels": ["a", "b"], "prompt": "{text}"}
    suite = edgetune.load_suite(values)
    assert suite.data[0].source == str(tmp_path / "rows.csv")
    assert edgetune.load_suite(suite) is suite


@pytest.mark.parametrize(
    ("recipe", "overrides", "says"),
    [
        ({"extends": "demo", "trian": {}}, {}, "recipe: unknown key trian (did you mean train?)"),
        ({"extends": "dmo"}, {}, "recipe: extends names dmo"),
        ({"extends": "demo", "train": {"epochs": 0}}, {}, "recipe: train.epochs is 0; it must be"),
        ("demo", {"train.sed": 1}, "demo.yaml with overrides['train.sed']: unknown key train.sed (did you mean seed?)"),
        ("demo", {"data.train.3.split": "x"}, "overrides['data.train.3.split']: there is no 3 to set here"),
    ],
)
def test_a_wrong_dict_is_one_clear_error(recipe: Any, overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(says)):
        edgetune.load_recipe(recipe, overrides)


def test_no_two_public_classes_share_a_name() -> None:
    found: dict[str, list[str]] = {}
    for file in Path(edgetune.__file__).parent.rglob("*.py"):
        for name in re.findall(r"^class ([A-Z]\w*)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            found.setdefault(name, []).append(file.name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_an_error_names_the_parameters_of_the_function(edgetune_command, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as problem:
        edgetune.export(tmp_path, imatrix="i.gguf", converter="convert.py")
    assert str(problem.value) == "imatrix cannot be combined with converter; leave imatrix out"
    with pytest.raises(UsageError, match=r"^quant=q4: .*did you mean q4_1"):
        edgetune.export(tmp_path, quant="q4")
    (tmp_path / "there.gguf").touch()
    with pytest.raises(EdgetuneError, match=r"exists already; choose another out, or pass force=True to replace it$"):
        edgetune.merge(tmp_path, out=tmp_path / "there.gguf")
    seen = edgetune_command("export", tmp_path, "--imatrix", "i.gguf", "--converter", "convert.py")
    assert "error: --imatrix cannot be combined with --converter; leave --imatrix out\n" in seen.stderr


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: edgetune.export("x", outtype="f61"),
            r"^outtype=f61: invalid value \(did you mean f16\?\); use one of auto, ",
        ),
        (lambda: edgetune.export("x", base_as="8bit"), "^base_as=8bit: invalid value .*use one of 16bit, trained$"),
        (lambda: edgetune.calibrate("j", on="x", grading="pairs"), "^grading=pairs: invalid value"),
        (lambda: edgetune.plan("demo", device="tpu"), "^device=tpu: invalid value"),
        (lambda: edgetune.judge("s", model="m", inconclusive="maybe"), "^inconclusive=maybe: invalid value"),
        (lambda: edgetune.side_by_side("a", "b", limit=0), "^limit is 0; it must be at least 1$"),
        (lambda: edgetune.judge("sentiment-demo", model=None), "^None is no model; give a path, a hub id"),  # type: ignore[arg-type]
        (lambda: edgetune.calibrate("j", on="x", min_kappa=2), "^min_kappa is 2; it must be between 0 and 1$"),
    ],
)
def test_what_options_refuse_is_refused_in_python_too(call: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()


def test_commands_in_an_error_stay_as_they_are_typed() -> None:
    @public
    def resume(*, out: str = "", resume: bool = False, cache: bool = True) -> None:
        raise UsageError("needs --resume and --no-cache, not --force", remedy="go on with: edgetune train a --resume")

    with pytest.raises(UsageError) as problem:
        resume()
    assert str(problem.value) == (
        "needs resume=True and cache=False, not --force; go on with: edgetune train a --resume"
    )


def test_a_missing_extra_names_the_install_command() -> None:
    @public
    def needs(package: str) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.inside")

    with pytest.raises(MissingComponent, match=r'peft is not installed; run: pip install "edgetune\[train\]"$'):
        needs("peft")
    with pytest.raises(ModuleNotFoundError):
        needs("elsewhere")


def test_several_processes_train_by_the_whole_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def launch(count: int, arguments: list[str]) -> None:
        started.extend(arguments)
        run = Path(arguments[arguments.index("--out") + 1])
        run.mkdir()
        (run / "recipe.yaml").write_text(Path(arguments[1]).read_text())

    monkeypatch.setattr("edgetune.training.processes.launch", launch)
    overrides = {"train.seed": 7, "data.eval": []}
    run = edgetune.train({"extends": "demo"}, overrides=overrides, out=tmp_path / "run", processes=2)
    assert (started[0], started[2:]) == ("train", ["--out", str(tmp_path / "run"), "--processes", "2"])
    assert run.recipe == edgetune.load_recipe("demo", overrides)


def test_a_model_under_test_is_named_by_its_path_or_its_file(finished: Path) -> None:
    loaded = SimpleNamespace(path=Path("tuned.gguf"))
    models = ("http://localhost/v1#small", finished, edgetune.Run(finished), WrittenModel(Path("a.gguf"), 1), loaded)
    names = ["http://localhost/v1#small", str(finished), str(finished), "a.gguf", "tuned.gguf"]
    assert [reference_of(model) for model in models] == names


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run that has logged three steps and is finished."""
    run, recipe = logged_run(tmp_path / "run"), make_recipe()
    run.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
    log_steps(run, recipe, [3.0, 2.0, 1.0])
    run.summary.write_text(SUMMARY.model_copy(update={"name": "<b>logged</b>"}).model_dump_json(), encoding="utf-8")
    run.adapter.mkdir()
    return run.path


def test_a_run_is_opened_again(finished: Path) -> None:
    run = edgetune.Run(str(finished))
    assert (run.path, run.adapter) == (finished, finished / "adapter")
    assert (run.recipe.name, run.recipe.method) == ("logged", make_recipe().method)
    assert run.summary.final_train_loss == SUMMARY.final_train_loss
    assert [row["loss"] for row in run.metrics() if "loss" in row] == [3.0, 2.0, 1.0]
    assert Path(run) == finished
    assert repr(run) == f"Run({str(finished)!r})"


def test_a_run_that_is_not_whole_says_what_is_missing(finished: Path) -> None:
    (finished / "adapter").rmdir()
    run = edgetune.Run(finished)
    with pytest.raises(AdapterError, match="no finished adapter"):
        _ = run.adapter
    (finished / "summary.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"summary\.json: cannot be read as a summary \(at task\)"):
        _ = run.summary
    (finished / "summary.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        _ = run.summary
    assert "<td" in run._repr_html_()
    (finished / "metrics.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be read"):
        run.metrics()
    with pytest.raises(AdapterError, match=r"nowhere: is not a run directory"):
        edgetune.Run("nowhere")


def test_a_run_shows_its_loss_curve_and_escapes_its_text(finished: Path) -> None:
    run = edgetune.Run(finished)
    assert "<img" not in run._repr_html_()
    (finished / "plots").mkdir()
    (finished / "plots" / "loss.png").write_bytes(b"\x89PNG")
    page = run._repr_html_()
    assert 'src="data:image/png;base64,iVBORw=="' in page
    assert "&lt;b&gt;logged" in page
    assert "<b>logged" not in page


def test_a_judgement_shows_verdict_and_matrices() -> None:
    judgement = classified()
    page = judgement_html(judgement)
    assert " REGRESSION " in page
    assert "data:image/png;base64,iVBORw0KGgo" in page
    assert len(repr(judgement)) < 200
    assert judgement.outcome == "REGRESSION"
    assert judgement.verdict is not None
    assert judgement.comparisons == judgement.verdict.comparisons


def test_what_models_and_files_are_called_cannot_act_in_a_notebook() -> None:
    page = judgement_html(hostile()) + WrittenModel(Path("<script>\u202e"), 1)._repr_html_()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "&lt;img" in page
