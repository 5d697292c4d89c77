"""What other distributions add by entry points: a metric, a data format, a judge dialect and a GGUF architecture."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.asked import VERDICT, ask
from support.judged import write_rows
from support.stub_endpoint import StubEndpoint, chat_reply

from edgetune.data.load import load_data
from edgetune.errors import DataError, EdgetuneError, MissingComponent, RecipeError
from edgetune.judging.asking.request import Reply
from edgetune.judging.gate.comparison import Outcome
from edgetune.judging.run import judge_model
from edgetune.judging.suites.judge_file import load_judge
from edgetune.judging.suites.suite import Suite, load_suite
from edgetune.metrics.registry import METRICS
from edgetune.metrics.samples import Sample, Samples
from edgetune.recipe.load import load_recipe

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Install:
    """Installs a distribution of one module: its code, and an entry point's group and name for each of its values."""

    def add(code: str, *points: tuple[str, str, str], distribution: str = "tiny-plugin") -> None:
        site = tmp_path / f"site-{distribution}"
        module = f"{distribution.replace('-', '_')}_{abs(hash(request.node.name))}"
        site.mkdir()
        (site / f"{module}.py").write_text(code)
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"[edgetune.{group}]\n{name} = {module}:{value}" for group, name, value in points]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(site)

    return add


QUIET = """
from edgetune.metrics.metric import Metric, by_item

def quietness(sample):
    letters = [letter for letter in sample.text if letter.isalpha()]
    return sum(map(str.islower, letters)) / len(letters) if letters else None

def loud(sample):
    return 7

def lost(sample):
    return {}["nothing"]

RIGHT_LENGTH = Metric(
    "right_length", "Right length", by_item(lambda sample: len(sample.text) < 9), kind="accuracy", default_margin=0.05
)
"""


def suite_of(folder: Path, **settings: Any) -> Suite:
    write_rows(folder / "items.jsonl", [{"id": place, "prompt": f"question {place}"} for place in range(60)])
    values = {"name": "own", "task": "generate", "data": [{"source": "items.jsonl", "format": "prompt"}], **settings}
    (folder / "suite.yaml").write_text(yaml.safe_dump(values))
    return load_suite(str(folder / "suite.yaml"))


def outputs(file: Path, text: str, *, other: str = "Ab") -> Path:
    return write_rows(file, [{"id": place, "output": other if place % 10 == 0 else text} for place in range(60)])


def test_judge_gates_on_a_metric_that_is_one_function_of_a_plugin(tmp_path: Path, install: Install) -> None:
    install(QUIET, ("metrics", "quietness", "quietness"))
    suite = suite_of(tmp_path, metrics=["quietness"], gate={"metric": "quietness"})
    old, new = outputs(tmp_path / "old.jsonl", "all in small letters"), outputs(tmp_path / "new.jsonl", "ALL LARGE")
    judgement = judge_model(suite, new, old, tmp_path / "report")
    assert judgement.verdict is not None
    assert judgement.verdict.outcome is Outcome.REGRESSION
    (comparison,) = judgement.verdict.comparisons
    assert (comparison.title, comparison.unit, comparison.margin) == ("Quietness", "share", 0.02)
    assert (comparison.baseline, comparison.candidate) == pytest.approx((0.9 + 0.1 / 2, 0.1 / 2))
    assert "Quietness" in (tmp_path / "report" / "report.md").read_text()
    assert judgement.details == {"quietness": {"plugin": "tiny-plugin 1.0"}}
    # Every value is one of two, and the report of a plugin's metric serves as a baseline as any other does.
    again = judge_model(suite, new, tmp_path / "report" / "report.json")
    assert again.verdict is not None
    assert again.verdict.comparisons[0].difference == 0


def test_a_plugins_metric_has_the_kind_and_the_margin_that_it_says(tmp_path: Path, install: Install) -> None:
    install(QUIET, ("metrics", "right_length", "RIGHT_LENGTH"))
    suite = suite_of(tmp_path, gate={"metric": "right_length"})
    old, new = outputs(tmp_path / "old.jsonl", "short"), outputs(tmp_path / "new.jsonl", "much too long")
    verdict = judge_model(suite, new, old).verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.comparisons[0].margin, verdict.comparisons[0].lost) == (
        Outcome.REGRESSION,
        0.05,
        54,
    )


def test_the_names_of_plugins_are_among_those_that_a_suite_may_mean(tmp_path: Path, install: Install) -> None:
    install(QUIET, ("metrics", "quietness", "quietness"))
    suite = suite_of(tmp_path, metrics=["quietnes"])
    with pytest.raises(RecipeError, match=r"there is no metric quietnes \(did you mean quietness\?\)"):
        judge_model(suite, outputs(tmp_path / "new.jsonl", "x"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loud", "metric loud is 7 for item a; it must be from 0 to 1"),
        ("lost", "metric lost failed (KeyError: 'nothing')"),
    ],
)
def test_what_a_plugins_metric_does_wrong_is_said_in_one_line(name: str, words: str, install: Install) -> None:
    install(QUIET, ("metrics", name, name))
    with pytest.raises(DataError) as caught:
        METRICS[name].compute(Samples((Sample("a", "text"),)))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("code", "value", "words"),
    [
        ("import no_such_module", "x", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "y", "has no attribute 'y'"),
        ("x = 1", "x", "TypeError: 1 is neither a Metric nor a function of a Sample"),
        (QUIET, "RIGHT_LENGTH", "its entry point calls it mine, and the Metric is named right_length"),
    ],
)
def test_a_broken_plugin_is_named_with_its_distribution(code: str, value: str, words: str, install: Install) -> None:
    install(code, ("metrics", "mine", value))
    assert METRICS["accuracy"].name == "accuracy"  # a name of edgetune's own needs no plugin
    with pytest.raises(MissingComponent) as caught:
        METRICS["mine"].compute(Samples((Sample("a", "text"),)))
    assert str(caught.value).startswith("edgetune.metrics: the plugin mine of tiny-plugin cannot be used (")
    assert words in str(caught.value)
    assert str(caught.value).endswith("update tiny-plugin, or uninstall it")


def test_a_name_that_is_taken_is_refused(install: Install) -> None:
    install(QUIET, ("metrics", "accuracy", "quietness"))
    with pytest.raises(MissingComponent, match="tiny-plugin adds accuracy, which edgetune has already"):
        list(METRICS)


def test_two_plugins_of_one_name_are_refused(install: Install) -> None:
    install(QUIET, ("metrics", "quietness", "quietness"))
    install(QUIET, ("metrics", "quietness", "loud"), distribution="another-plugin")
    with pytest.raises(MissingComponent, match="tiny-plugin adds quietness, which another-plugin has already"):
        METRICS.get("quietness")


QUESTIONS = """
def quiz(question, answer, hint=""):
    asked = f"{question} ({hint})" if hint else question
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
"""


def recipe_of(folder: Path, rows: list[dict[str, str]], **source: Any) -> Any:
    write_rows(folder / "quiz.jsonl", rows)
    values = {
        "name": "own",
        "task": "chat",
        "base": {"model": "x"},
        "data": {"train": [{"source": "quiz.jsonl", "format": "quiz", **source}]},
        "method": {"type": "lora"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(str(folder / "recipe.yaml"))


def test_a_recipe_reads_a_format_that_is_one_function_of_a_plugin(tmp_path: Path, install: Install) -> None:
    install(QUESTIONS, ("data_formats", "quiz", "quiz"))
    rows = [{"q": "Who?", "answer": "Ada", "system": "Be short."}, {"q": "Where?", "answer": "Here", "hint": "near"}]
    recipe = recipe_of(tmp_path, rows, columns={"question": "q"})
    first, second = load_data(recipe.data, recipe.task).train
    assert [(turn.role, turn.content) for turn in first.messages] == [
        ("system", "Be short."),
        ("user", "Who?"),
        ("assistant", "Ada"),
    ]
    assert second.messages[0].content == "Where? (near)"
    assert json.loads(recipe.model_dump_json())["data"]["train"][0]["format"] == "quiz"


def test_a_suite_asks_what_a_plugins_format_reads(tmp_path: Path, install: Install) -> None:
    install(QUESTIONS, ("data_formats", "quiz", "quiz"))
    write_rows(tmp_path / "quiz.jsonl", [{"question": f"Who {n}?", "answer": "Ada"} for n in range(4)])
    suite = suite_of(tmp_path, data=[{"source": "quiz.jsonl", "format": "quiz"}], metrics=["exact_match"])
    answers = write_rows(tmp_path / "out.jsonl", [{"id": n, "output": "Ada" if n % 2 else "Eve"} for n in range(1, 5)])
    judgement = judge_model(suite, answers)
    assert [item.text for item in judgement.items] == ["Who 0?", "Who 1?", "Who 2?", "Who 3?"]
    assert judgement.candidate.metrics["exact_match"].values == (1, 0, 1, 0)


def test_a_row_that_a_plugins_format_cannot_read_is_named(tmp_path: Path, install: Install) -> None:
    install("def quiz(question, answer):\n    return question.no_such", ("data_formats", "quiz", "quiz"))
    recipe = recipe_of(tmp_path, [{"question": "Who?", "answer": "Ada"}])
    with pytest.raises(DataError, match=r"quiz.jsonl:1: format quiz failed on this row \(AttributeError: "):
        load_data(recipe.data, recipe.task)
    recipe = recipe_of(tmp_path, [{"question": "Who?"}])
    with pytest.raises(DataError, match="there is no column answer"):
        load_data(recipe.data, recipe.task)


def test_a_plugins_format_is_refused_for_a_task_that_it_does_not_make_examples_of(
    tmp_path: Path, install: Install
) -> None:
    install(QUESTIONS, ("data_formats", "quiz", "quiz"))
    suite = suite_of(
        tmp_path,
        task="classify",
        labels=["a", "b"],
        prompt="{text}",
        data=[{"source": "items.jsonl", "format": "quiz"}],
    )
    with pytest.raises(RecipeError, match="format quiz holds no items of task classify"):
        judge_model(suite, outputs(tmp_path / "new.jsonl", "x"))


def test_a_format_that_nobody_has_is_refused_as_before(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.train.0.format is 'quiz'; it must be one of messages"):
        recipe_of(tmp_path, [])


def test_a_judge_is_asked_in_a_plugins_dialect(tmp_path: Path, install: Install) -> None:
    install("def guided(schema):\n    return {'guided_json': schema}", ("judge_dialects", "guided", "guided"))

    def answer(body: dict[str, Any]) -> Any:
        assert "response_format" not in body
        assert body["guided_json"]["type"] == "object"
        return chat_reply(VERDICT)

    with StubEndpoint(answer) as stub:
        replies, _ = ask(stub, 3, structured="guided")
    assert len(stub.requests) == 3
    assert all(isinstance(reply, Reply) for reply in replies)
    (tmp_path / "judge.yaml").write_text("name: j\nmodel: m\nstructured: nobodys\n")
    with pytest.raises(RecipeError, match="structured: 'nobodys' is unknown; it must be one of auto"):
        load_judge(str(tmp_path / "judge.yaml"))


LLAMA = """
from edgetune.gguf.architectures.llama import Llama

class Cousin(Llama):
    '''Llama's layers under another name.'''
"""


def test_a_model_of_a_plugins_architecture_is_written_as_gguf(
    tmp_path: Path, tiny_llama: Path, install: Install
) -> None:
    from edgetune.gguf.write import export
    from edgetune.weights.source import resolve_source

    folder = tmp_path / "cousin"
    shutil.copytree(tiny_llama, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "architectures": ["CousinForCausalLM"]}))
    with pytest.raises(EdgetuneError, match="is a CousinForCausalLM, which edgetune cannot write"):
        export(resolve_source(str(folder)), tmp_path / "cousin.gguf", preset="f16")
    install(LLAMA, ("gguf_architectures", "CousinForCausalLM", "Cousin"))
    export(resolve_source(str(folder)), tmp_path / "cousin.gguf", preset="f16")
    export(resolve_source(str(tiny_llama)), tmp_path / "llama.gguf", preset="f16")
    sizes = [(tmp_path / name).stat().st_size for name in ("cousin.gguf", "llama.gguf")]
    assert abs(sizes[0] - sizes[1]) < 200  # but for the names


def test_what_is_no_architecture_is_refused(install: Install) -> None:
    from edgetune.gguf.architectures import ARCHITECTURES

    install("x = {}", ("gguf_architectures", "OtherForCausalLM", "x"))
    with pytest.raises(MissingComponent, match="has no gguf_name and no describe and no plan"):
        _ = ARCHITECTURES["OtherForCausalLM"]


ROOT = Path(__file__).resolve().parents[1]


def code_of(page: str) -> list[str]:
    """The Python blocks of a page, without the indentation of a list's items."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]


def test_the_plugins_of_the_documentation_work(tmp_path: Path, install: Install) -> None:
    from edgetune.data.formats import FORMATS
    from edgetune.gguf.architectures import ARCHITECTURES
    from edgetune.judging.suites.forms import FORM_DIALECTS

    (written,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/plugins.md").read_text(encoding="utf-8"), re.DOTALL)
    groups = tomllib.loads(written)["project"]["entry-points"]
    points = [
        (group.removeprefix("edgetune."), name, place.partition(":")[2])
        for group, found in groups.items()
        for name, place in found.items()
    ]
    install("\n".join(code_of("docs/plugins.md")), *points)
    samples = Samples((Sample("a", "Thank you!"), Sample("b", "No.")))
    assert METRICS["politeness"].compute(samples).values == (1, 0)
    assert (METRICS["brevity"].compute(samples).value, METRICS["brevity"].higher_is_better) == (6.5, False)
    assert (FORMATS["quiz"].columns, FORMATS["quiz"].optional[0]) == (("question", "answer"), "hint")
    assert FORM_DIALECTS["guided_json"].ask({"type": "object"}) == {"guided_json": {"type": "object"}}
    assert ARCHITECTURES["MyLlamaForCausalLM"].gguf_name == "llama"


def test_the_metric_of_contributing_works_and_passes_its_test(tmp_path: Path, install: Install) -> None:
    metric, test = code_of("CONTRIBUTING.md")
    install(metric, ("metrics", "last_number", "LAST_NUMBER"))
    named: dict[str, Any] = {}
    exec(metric + test, named)
    named["test_the_last_number_of_an_answer_counts"]()
    suite = suite_of(tmp_path, metrics=["last_number"])
    write_rows(tmp_path / "items.jsonl", [{"id": n, "prompt": "?", "reference": str(n)} for n in range(60)])
    judgement = judge_model(suite, write_rows(tmp_path / "new.jsonl", [{"id": n, "output": "7"} for n in range(60)]))
    assert judgement.candidate.metrics["last_number"].value == 1 / 60
