"""The library reports progress, notes and warnings as events; only a listener shows them."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgetune import display, events
from edgetune.errors import DataError
from edgetune.events import Event, Notice, Progress


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """All events of a test, in their order."""
    events_heard: list[Event] = []
    with events.listen(events_heard.append):
        yield events_heard


def test_a_listener_hears_notes_warnings_and_every_advance(heard: list[Event]) -> None:
    events.note("loading")
    events.warn("slow")
    with events.progress("reading", 3, "files") as work:
        work.advance(2, "a.json")
        work.advance()
    assert heard[:2] == [Notice("note", "loading"), Notice("warning", "slow")]
    steps = [(step.done, step.text, step.state) for step in heard[2:] if isinstance(step, Progress)]
    assert steps == [(0, "", "running"), (2, "a.json", "running"), (3, "", "running"), (3, "", "done")]
    assert {(step.description, step.total, step.unit) for step in heard[2:]} == {("reading", 3, "files")}
    assert len({step.id for step in heard[2:]}) == 1


def test_work_that_fails_ends_with_an_event_too(heard: list[Event]) -> None:
    def read() -> None:
        with events.progress("reading", 3, "files") as work:
            work.advance()
            raise DataError("broken")

    with pytest.raises(DataError):
        read()
    assert (heard[-1].done, heard[-1].state) == (1, "stopped")


def test_a_listener_hears_other_threads(heard: list[Event]) -> None:
    thread = threading.Thread(target=events.note, args=["from a thread"])
    thread.start()
    thread.join()
    assert heard == [Notice("note", "from a thread")]


def test_nothing_is_heard_after_the_block() -> None:
    heard: list[Event] = []
    with events.listen(heard.append):
        events.note("inside")
    events.note("outside")
    assert heard == [Notice("note", "inside")]


def test_notes_and_warnings_go_to_the_logger_of_the_package(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgetune"):
        events.note("100% loaded")
        events.warn("slow")
    expected = [("edgetune", logging.INFO, "100% loaded"), ("edgetune", logging.WARNING, "slow")]
    assert caplog.record_tuples == expected


def test_training_export_and_judging_print_nothing(
    tmp_path: Path, tiny_llama: Path, no_plots: None, capfd: pytest.CaptureFixture[str]
) -> None:
    from edgetune.gguf.write import export
    from edgetune.judging.run import judge_model
    from edgetune.judging.suites.suite import load_suite
    from edgetune.recipe.load import load_recipe
    from edgetune.training.run import train
    from edgetune.weights.source import resolve_source

    rows = [{"text": text, "label": label} for text, label in (("fine", "up"), ("grim", "down"), ("", "up"))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = [{"source": "rows.jsonl", "format": "text-label"}]
    task = {"name": "tiny", "task": "classify"}
    shared = {"labels": ["up", "down"], "prompt": "Up or down? {text}"}
    recipe = {
        **task,
        "base": {"model": str(tiny_llama), "dtype": "float32"},
        "data": {"train": data, "eval": data, **shared},
        "method": {"type": "lora", "rank": 2},
        "train": {"max_steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    (tmp_path / "suite.yaml").write_text(json.dumps({**task, "data": data, **shared}))

    heard: list[Event] = []
    display.show_progress(False)
    with events.listen(heard.append):
        train(load_recipe(str(tmp_path / "recipe.yaml")), tmp_path / "run")
        export(resolve_source(str(tmp_path / "run")), tmp_path / "tiny.gguf")
        judge_model(load_suite(str(tmp_path / "suite.yaml")), tmp_path / "tiny.gguf", out=tmp_path / "report")
    assert capfd.readouterr() == ("", "")
    works = {event.description.partition(" ")[0] for event in heard if isinstance(event, Progress)}
    assert {"training", "evaluating", "exporting", "asking"} <= works
    assert any(isinstance(event, Notice) and "empty text" in event.text for event in heard)


def test_a_command_shows_a_note_once_whatever_libraries_did_to_logging(edgetune_command, monkeypatch) -> None:
    monkeypatch.setattr("edgetune.cli.app.console.verbatim", events.warn)
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        seen = edgetune_command("--version")
    finally:
        logging.getLogger().removeHandler(handler)
    assert seen.stderr.startswith("warning: edgetune ")
    assert seen.stderr.count("warning") == 1


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch, capsys) -> None:
    clock = iter([0.0, 0.0, 4.0, 11.0, 12.0, 20.0])  # the start, and each event
    monkeypatch.setattr("edgetune.events.time.monotonic", lambda: next(clock))
    with events.progress("reading", 40, "files") as work:
        work.advance(10)
        work.advance(10, "a.json")
        work.advance(10)
    assert capsys.readouterr().err == (
        "reading: 20/40 files, 1.8 files/s, 11 s left, a.json\nreading: 30/40 files, 1.5 files/s, 7 s left\n"
    )


def test_a_notebook_draws_one_output_and_does_not_obey_what_is_in_it(monkeypatch) -> None:
    drawn: list[list[str]] = []

    class Handle:
        def update(self, table) -> None:
            drawn[-1].append(table._repr_mimebundle_([], [])["text/html"])

    def show(table, *, display_id: bool) -> Handle:
        drawn.append([])
        Handle().update(table)
        return Handle()

    ipython = ModuleType("IPython.display")
    ipython.display = show
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    notebook = display._Display(display.SafeConsole(stderr=True, force_jupyter=True))
    with events.listen(notebook):
        for name in ("<b>train\u202e", "evaluate"):
            with events.progress(name, 2, "steps") as work:
                work.advance(2, "<i>loss 1.5")
    first, second = (html[-1] for html in drawn)
    assert "&lt;b&gt;train⟨U+202E⟩" in first
    assert "&lt;i&gt;loss 1.5" in first
    assert "100%" in first
    assert "evaluate" in second
    assert "train" not in second


def test_in_ipython_importing_edgetune_shows_progress(run_python) -> None:
    program = "import builtins; builtins.get_ipython = object; import edgetune, edgetune.events as e; e.note('loading')"
    assert run_python(f"import sys; sys.stderr = sys.stdout; {program}") == "loading"


def test_show_progress_shows_and_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    for shown in (False, True, True, False):
        display.show_progress(shown)
        events.note(f"shown: {shown}")
    assert capfd.readouterr() == ("", "shown: True\n" * 2)
