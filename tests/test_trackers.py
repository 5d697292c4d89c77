"""Trackers show what metrics.jsonl holds, call nobody without an account, and never stop a training."""

from __future__ import annotations

import json
import socket
import sqlite3
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.logged import log_steps, logged_run, make_recipe

from edgetune.errors import MissingComponent
from edgetune.training import trackers
from edgetune.training.run_directory import RunDirectory
from edgetune.training.trackers import check_trackers

Points = dict[str, list[tuple[int, float]]]
"""Name of a value -> steps and values."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Every attempt to reach the network through a proxy, which is the only way that libraries find here."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(100))

        threading.Thread(target=listen, daemon=True).start()
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelled in (name, name.lower()):
                monkeypatch.setenv(spelled, f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield heard
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def expected_points(run: RunDirectory) -> Points:
    """The rows under the names that they have in trackers; of a value that a step has twice, the later one."""
    found: dict[str, dict[int, float]] = {}
    for row in run.read_metrics():
        for key, value in row.items():
            if key != "step":
                name = f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
                found.setdefault(name, {})[row["step"]] = value
    return {name: [*points.items()] for name, points in found.items()}


def assert_same_points(points: Points, expected: Points) -> None:
    assert points.keys() == expected.keys()
    for name, series in expected.items():
        assert [step for step, _ in points[name]] == [step for step, _ in series], name
        assert [value for _, value in points[name]] == pytest.approx([value for _, value in series]), name


def log_in_two_parts(run: RunDirectory, tracker: str) -> None:
    recipe = make_recipe(trackers=[tracker])
    log_steps(run, recipe, [3.0, 2.5, 2.0])
    log_steps(run, recipe, [1.5, 1.0], first=4)


def test_tensorboard_reads_back_the_whole_curve_of_a_resumed_run(tmp_path: Path, calls: list[bytes], capsys):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = logged_run(tmp_path / "run")
    log_in_two_parts(run, "tensorboard")
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    points = {
        name: [*{scalar.step: scalar.value for scalar in events.Scalars(name)}.items()]
        for name in events.Tags()["scalars"]
    }
    assert_same_points(points, expected_points(run))
    (text,) = events.Tensors("recipe/text_summary")
    assert b"someone/base" in text.tensor_proto.string_val[0]
    assert not calls
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("no_account")
def test_wandb_without_an_account_keeps_the_run_for_later(tmp_path: Path, calls: list[bytes], capsys):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    run = logged_run(tmp_path / "run")
    log_in_two_parts(run, "wandb")
    wandb.teardown()
    _, last = sorted((run.path / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime_ns)
    (file,) = last.glob("run-*.wandb")
    assert_same_points(read_wandb(file), expected_points(run))
    assert not calls
    seen = capsys.readouterr()
    assert seen.out == ""
    assert f"wandb sync {last}" in seen.err


def read_wandb(file: Path) -> Points:
    """The history in a run's file: a LevelDB log (blocks of 32 KiB, https://github.com/google/leveldb) of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = file.read_bytes(), 7, b""
    points: Points = {}
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            history = Record.FromString(record).history
            record = b""
            values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}
            step = values.pop("_step", history.step.num)
            for name, value in values.items():
                if not name.startswith("_"):
                    points.setdefault(name, []).append((step, value))
    return points


def test_wandb_with_an_account_is_asked_to_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_account):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    asked: list[object] = []

    def init(*, mode: str | None, **_: object) -> object:
        asked.append(mode)
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb, "init", init)
    recipe = make_recipe(trackers=["wandb"])
    log_steps(logged_run(tmp_path / "none"), recipe, [1.0])
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    log_steps(logged_run(tmp_path / "netrc-run"), recipe, [1.0])
    monkeypatch.setenv("NETRC", str(tmp_path / "nowhere"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    log_steps(logged_run(tmp_path / "key-run"), recipe, [1.0])
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_steps(logged_run(tmp_path / "mode-run"), recipe, [1.0])
    assert asked == ["offline", None, None, None]


def test_trackio_holds_the_whole_curve_of_a_resumed_run(tmp_path: Path, calls: list[bytes], capsys, monkeypatch):
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio import sqlite_storage

    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = logged_run(tmp_path / "run")
    log_in_two_parts(run, "trackio")
    with sqlite3.connect(tmp_path / "trackio" / "edgetune.db") as database:
        records = database.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    last = records[-1][0]
    points: dict[str, dict[int, float]] = {}
    for number, name, step, metrics in records:
        assert name == "logged"
        for key, value in json.loads(metrics).items() if number == last else ():
            points.setdefault(key, {})[step] = value
    assert_same_points({key: [*series.items()] for key, series in points.items()}, expected_points(run))
    assert not calls
    assert capsys.readouterr().out == ""
    assert trackio.context_vars.current_run.get() is None, "it would print at exit"


def test_a_tracker_that_fails_is_told_once_and_stops_nothing(tmp_path: Path, monkeypatch, capsys):
    class Broken:
        def log(self, values: dict[str, float], step: int) -> None:
            raise ConnectionError("the server went away\nwith details")

        def finish(self) -> None:
            raise AssertionError("closed after it failed")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda recipe, run: Broken())
    run = logged_run(tmp_path / "run")
    log_steps(run, make_recipe(trackers=["wandb"]), [3.0, 2.0, 1.0])
    assert len(run.read_metrics()) == 4
    warning = (
        "warning: wandb failed and gets no more rows (the server went away); training continues, and metrics.jsonl has "
        "every row"
    )
    assert capsys.readouterr().err.splitlines() == [warning]


def test_a_tracker_that_is_not_installed_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingComponent, match=r"trackers needs trackio.*pip install trackio .*edgetune\[track\]"):
        check_trackers(make_recipe(trackers=["trackio"]))
    check_trackers(make_recipe())
