"""The cache of answers: what was paid for is never asked again, whatever happens to the process or the file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.stub_endpoint import StubEndpoint, error_reply, question_hash

from edgetune.data.example import Message
from edgetune.errors import DataError
from edgetune.judging.asking.cache import AnswerCache, request_keys
from edgetune.judging.asking.cost import estimate
from edgetune.judging.asking.request import Failed, JudgeRequest, Reply, VerdictForm
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.suites.judge_file import EndpointJudge, LocalJudge, Price

FORM = VerdictForm({"correctness": (1, 2, 3, 4, 5)})
VERDICT = '{"reason": "fine", "correctness": 4}'


def question(number: int) -> JudgeRequest:
    return JudgeRequest({"number": number}, lambda: (Message("user", f"grade {number}"),), FORM)


def judge_at(url: str, **settings: Any) -> EndpointJudge:
    return EndpointJudge(**{"name": "stub", "model": "stub", "url": url, "key": None, "connections": 4, **settings})


def test_what_is_put_in_is_found_by_the_next_process(tmp_path: Path) -> None:
    value = {"text": "naïve ☃ \ud800", "numbers": [1, 2.5, None]}
    with AnswerCache(tmp_path / "deep" / "cache.sqlite") as cache:
        assert cache.get("a") is None
        cache.put("a", value)
        cache.put("a", value)
    with AnswerCache(tmp_path / "deep" / "cache.sqlite") as cache:
        assert cache.get("a") == value
        assert cache.get("b") is None


def test_by_default_it_lies_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path / "here"))
    with AnswerCache() as cache:
        cache.put("a", 1)
    assert (tmp_path / "here" / "judge.sqlite").is_file()


def test_judging_the_same_thing_twice_costs_nothing(tmp_path: Path) -> None:
    with StubEndpoint(lambda body: VERDICT) as stub:
        judge = judge_at(stub.url, price=Price(input=1, output=1))
        with AnswerCache(tmp_path / "cache") as cache:
            first = ask_all([question(number) for number in (1, 2, 1, 3)], judge, cache=cache)
        assert len(stub.requests) == 3, "equal questions are asked once"
        with AnswerCache(tmp_path / "cache") as cache:
            again = ask_all([question(number) for number in (3, 2, 1, 1)], judge, cache=cache)
            found = estimate([question(number) for number in range(5)], judge, cache)
        assert len(stub.requests) == 3
    assert [reply.cached for reply in first if isinstance(reply, Reply)] == [False, False, True, False]
    assert all(isinstance(reply, Reply) and reply.cached and reply.cost_usd == 0 for reply in again)
    assert [reply.text for reply in again if isinstance(reply, Reply)] == [VERDICT] * 4
    assert (found.calls, found.cached) == (2, 3)


def test_no_key_is_needed_for_what_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADER_KEY", "hk-123456789")
    with StubEndpoint(lambda body: VERDICT) as stub, AnswerCache(tmp_path / "cache") as cache:
        ask_all([question(1)], judge_at(stub.url, key="GRADER_KEY"), cache=cache)
        monkeypatch.delenv("GRADER_KEY")
        (reply,) = ask_all([question(1)], judge_at(stub.url, key="GRADER_KEY"), cache=cache)
        assert isinstance(reply, Reply)
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"correctness" in files
    for secret in (b"hk-123456789", b"127.0.0.1", b"grade 1"):
        assert secret not in files


def test_failed_questions_are_asked_again_next_time(tmp_path: Path) -> None:
    answers = iter([error_reply(500, "oops"), VERDICT])
    with StubEndpoint(lambda body: next(answers)) as stub, AnswerCache(tmp_path / "cache") as cache:
        judge = judge_at(stub.url, attempts=1)
        assert isinstance(ask_all([question(1)], judge, cache=cache)[0], Failed)
        assert isinstance(ask_all([question(1)], judge, cache=cache)[0], Reply)


GARBLED = ["<html>502 Bad Gateway</html>", "", '{"reason": "fi', "I grade it", '{"correctness": 9}', VERDICT[:-3]]


@pytest.mark.parametrize("garbled", GARBLED)
def test_a_verdict_that_cannot_be_read_is_asked_for_again_next_time(garbled: str, tmp_path: Path) -> None:
    answers = iter([garbled, VERDICT])
    with StubEndpoint(lambda body: next(answers)) as stub, AnswerCache(tmp_path / "cache") as cache:
        judge = judge_at(stub.url, attempts=1)
        ask_all([question(1)], judge, cache=cache)
        assert cache.get(request_keys(judge, [question(1)])[0]) is None
        assert estimate([question(1)], judge, cache).calls == 1
        (reply,) = ask_all([question(1)], judge, cache=cache)
        (again,) = ask_all([question(1)], judge, cache=cache)
    assert isinstance(reply, Reply)
    assert isinstance(again, Reply)
    assert (reply.text, reply.cached) == (VERDICT, False)
    assert (again.text, again.cached) == (VERDICT, True)


@pytest.mark.parametrize(
    "row",
    [
        json.dumps({"text": "<html>502 Bad Gateway</html>", "probabilities": {}}),
        json.dumps({"text": VERDICT}),
        json.dumps({"text": VERDICT, "probabilities": [1]}),
        json.dumps({"text": None, "probabilities": {}}),
        json.dumps(VERDICT),
        "null",
        "{broken",
        b"\xff\xfe\xff",
        "[" * 100_000,
    ],
)
def test_a_row_that_is_no_verdict_is_asked_for_again_and_written_over(row: str | bytes, tmp_path: Path) -> None:
    """What an earlier version kept, what another program wrote, what half a disk left."""
    file = tmp_path / "cache"
    with StubEndpoint(lambda body: VERDICT) as stub:
        judge = judge_at(stub.url)
        with AnswerCache(file) as cache:
            cache.put(request_keys(judge, [question(1)])[0], "")
        with sqlite3.connect(file) as writer:
            writer.execute("UPDATE answers SET value = CAST(? AS TEXT)", (row,))
        writer.close()
        with AnswerCache(file) as cache:
            assert estimate([question(1)], judge, cache).calls == 1
            ask_all([question(1)], judge, cache=cache)
            (reply,) = ask_all([question(1)], judge, cache=cache)
            assert cache.keeps
        assert len(stub.requests) == 1
    assert isinstance(reply, Reply)
    assert reply.cached


def test_a_judge_on_this_machine_is_its_bytes_and_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "judge.gguf"
    file.write_bytes(b"one")
    key = request_keys(LocalJudge(name="here", model=str(file)), [question(1)])[0]
    moved = file.rename(tmp_path / "moved.gguf")
    assert request_keys(LocalJudge(name="here", model=str(moved)), [question(1)])[0] == key
    monkeypatch.setattr("edgetune.judging.asking.cache.versions_of", lambda *names: dict.fromkeys(names, "0"))
    assert request_keys(LocalJudge(name="here", model=str(moved)), [question(1)])[0] != key


def test_the_answers_of_the_last_run_end_where_nothing_was_kept_for_long(tmp_path: Path) -> None:
    minutes_ago = {"a": 10, "b": 50, "c": 100, "d": 170, "e": 10_000}
    with AnswerCache(tmp_path / "cache") as cache:
        for key in minutes_ago:
            cache.put(key, key)
        assert cache.of_last_run(minutes_ago, 3600) == set(), "they are of this run"
        assert cache._connection is not None
        for key, minutes in minutes_ago.items():
            cache._connection.execute("UPDATE answers SET stored = stored - 60 * ? WHERE key = ?", (minutes, key))
    with AnswerCache(tmp_path / "cache") as cache:
        assert cache.of_last_run([*minutes_ago, "f"], 3600) == {"a", "b", "c"}
        assert cache.of_last_run("bcd", 3600) == {"b", "c"}
        assert cache.of_last_run("cd", 3600) == set()


def test_the_key_knows_everything_that_shapes_an_answer_and_nothing_else(tmp_path: Path) -> None:
    judge = judge_at("http://a/v1")
    key = request_keys(judge, [question(1)])[0]
    other_form = JudgeRequest({"number": 1}, question(1).messages, VerdictForm({"correctness": (1, 2, 3)}))
    assert request_keys(judge, [other_form])[0] != key
    assert request_keys(judge, [question(2)])[0] != key
    for change in ({"model": "b"}, {"url": "http://b/v1"}, {"temperature": 0.5}, {"max_tokens": 99}):
        assert request_keys(judge.model_copy(update=change), [question(1)])[0] != key
    for change in ({"connections": 1}, {"timeout_seconds": 1}, {"repeats": 3}, {"name": "b"}, {"key": "X"}):
        assert request_keys(judge.model_copy(update=change), [question(1)])[0] == key


def test_another_file_under_the_same_name_is_another_judge(tmp_path: Path) -> None:
    file = tmp_path / "judge.gguf"
    keys = set()
    for content in (b"one", b"other weights"):
        file.write_bytes(content)
        keys.add(request_keys(LocalJudge(name="here", model=str(file)), [question(1)])[0])
    assert len(keys) == 2


@pytest.mark.parametrize("kind", ["text", "another program's", "damaged inside", "a later layout"])
def test_a_file_that_is_no_cache_is_told_with_the_way_out_and_left_alone(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "cache.sqlite"
    if kind == "text":
        file.write_text("to do: buy milk\n" * 100)
    elif kind == "another program's":
        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE answers (key, value)")
        other.close()
    else:
        with AnswerCache(file) as cache:
            for number in range(500):
                cache.put(f"key {number}", "x" * 100)
        if kind == "damaged inside":
            content = bytearray(file.read_bytes())
            content[4096:] = b"\xff" * (len(content) - 4096)
            file.write_bytes(content)
        else:
            with sqlite3.connect(file) as later:
                later.execute("PRAGMA user_version = 9")
            later.close()
    before = file.read_bytes()
    with pytest.raises(DataError, match=r"cache\.sqlite: .*move the file away"), AnswerCache(file) as cache:
        cache.get("key 7")
    assert file.read_bytes() == before


def test_where_nothing_can_be_written_one_warning_says_so_and_the_work_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with StubEndpoint(lambda body: VERDICT) as stub, AnswerCache(tmp_path / "file" / "cache") as cache:
        replies = ask_all([question(number) for number in range(5)], judge_at(stub.url), cache=cache)
        assert not cache.keeps
    assert all(isinstance(reply, Reply) for reply in replies)
    assert capsys.readouterr().err.count("warning:") == 1


def test_a_full_disk_ends_the_keeping_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AnswerCache(tmp_path / "cache") as cache:
        cache.put("before", "kept")
        assert cache._connection is not None
        cache._connection.execute("PRAGMA max_page_count = 4")  # SQLite then answers as on a full disk
        for number in range(50):
            cache.put(f"key {number}", "x" * 3000)
        assert cache.get("before") == "kept"
        assert not cache.keeps
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert "full" in said


def test_several_processes_may_use_it_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    file = tmp_path / "cache.sqlite"
    writers = [context.Process(target=_write, args=(file, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    with AnswerCache(file) as cache:
        assert all(cache.get(f"{writer} {number}") == number for writer in range(4) for number in range(50))


def _write(file: Path, writer: int) -> None:
    with AnswerCache(file) as cache:
        for number in range(50):
            cache.put(f"{writer} {number}", number)
        if not cache.keeps:
            os._exit(3)


PROGRAM = """
import sys
from pathlib import Path
from edgetune.data.example import Message
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.request import JudgeRequest, Reply, VerdictForm
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.suites.judge_file import EndpointJudge

form = VerdictForm({"grade": (1, 2)})

def question(number):
    return JudgeRequest({"number": number}, lambda: (Message("user", f"grade {number}"),), form)

judge = EndpointJudge(name="stub", model="stub", url=sys.argv[1], key=None, connections=8)
with AnswerCache(Path(sys.argv[2])) as cache:
    replies = ask_all([question(number) for number in range(200)], judge, cache=cache)
print(sum(isinstance(reply, Reply) for reply in replies))
"""


@pytest.mark.parametrize("kill_after", [1, 90])
def test_a_killed_judging_goes_on_without_asking_anything_again(kill_after: int, tmp_path: Path) -> None:
    """What was under way when the process died may be asked twice: nobody has seen its answer."""
    answered: list[str] = []
    cache = tmp_path / "cache.sqlite"
    with StubEndpoint(lambda body: '{"reason": "", "grade": 2}', latency=0.02) as stub:
        stub.on_answered = lambda request: answered.append(question_hash(request.body))
        command = [sys.executable, "-c", PROGRAM, stub.url, str(cache)]
        killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while len(answered) < kill_after:
            assert killed.poll() is None
            time.sleep(0.001)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        with sqlite3.connect(cache) as kept:
            (number_kept,) = kept.execute("SELECT count(*) FROM answers").fetchone()
        kept.close()
        asked_before = len(stub.requests)
        assert asked_before < 200
        assert number_kept >= asked_before - 8, "all but those under way were kept"
        resumed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert resumed.stdout.strip() == "200"
    assert len(stub.requests) - asked_before == 200 - number_kept
    assert len(Counter(answered)) == 200
    assert len(answered) - 200 <= 8


def test_the_cache_can_be_read_with_sqlites_own_tools(tmp_path: Path) -> None:
    with StubEndpoint(lambda body: VERDICT) as stub, AnswerCache(tmp_path / "cache") as cache:
        ask_all([question(1)], judge_at(stub.url), cache=cache)
        key = request_keys(judge_at(stub.url), [question(1)])[0]
    with sqlite3.connect(tmp_path / "cache") as reader:
        ((found, value),) = reader.execute("SELECT key, value FROM answers").fetchall()
    reader.close()
    assert found == key
    assert json.loads(value) == {"text": VERDICT, "probabilities": {}}
