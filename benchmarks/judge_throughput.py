"""How fast verdicts come from an endpoint, and whether a killed judging repeats any when it goes on.

    python benchmarks/judge_throughput.py [--verdicts 2000] [--connections 32] [--latency 0.1]

A stub of an OpenAI-compatible endpoint answers every question after the latency, from a process of its own. The limit
is verdicts x latency / connections: no client can be faster. Then the same is done again with an empty cache, killed
(SIGKILL) halfway and started anew; the stub's log tells which questions it answered twice. Those can only be the ones
that were under way when the process died.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetune.data.example import Message
from edgetune.judging.asking.cache import AnswerCache
from edgetune.judging.asking.request import JudgeRequest, Reply, VerdictForm
from edgetune.judging.asking.schedule import ask_all
from edgetune.judging.suites.judge_file import EndpointJudge

STUB = Path(__file__).resolve().parents[1] / "tests" / "support" / "stub_endpoint.py"
VERDICT = '{"reason": "It is right, but for one detail.", "correctness": 4, "completeness": 5, "faithfulness": 4}'
FORM = VerdictForm(dict.fromkeys(("correctness", "completeness", "faithfulness"), (1, 2, 3, 4, 5)))
RUBRIC = "Grade the answer by every criterion from 1 to 5. " * 60


def main() -> None:
    options = read_options()
    if options.ask is not None:
        print(f"{ask(options):.2f} {time.process_time():.2f}")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with stub(options, folder / "log") as url:
            seconds, processor_seconds = finish(start(options, url, folder / "first.sqlite"))
        limit = options.verdicts * options.latency / options.connections
        print(
            f"{options.verdicts} verdicts in {seconds:.2f} s; the limit is {limit:.2f} s: {seconds / limit:.2f} times"
        )
        print(f"({processor_seconds:.2f} s of processor time in the client, imports included)")
        measure_resume(options, folder)


def measure_resume(options: argparse.Namespace, folder: Path) -> None:
    """Kill a judging halfway, let it go on, and count what the stub answered twice."""
    log, cache = folder / "resumed-log", folder / "resumed.sqlite"
    with stub(options, log) as url:
        killed = start(options, url, cache)
        while len(answered(log)) < options.verdicts // 2:
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        before = len(answered(log))
        seconds, _ = finish(start(options, url, cache))
        counts = Counter(answered(log))
    repeated = sum(count - 1 for count in counts.values())
    print(f"killed after {before} answers, and resumed in {seconds:.2f} s: {len(counts)} different questions answered,")
    print(f"{repeated} of them twice; {options.connections} at most were under way when the process died")


def ask(options: argparse.Namespace) -> float:
    """Ask everything, in the process that is measured or killed; the seconds without imports."""
    judge = EndpointJudge(name="stub", model="stub", url=options.ask, key=None, connections=options.connections)
    requests = [question(number) for number in range(options.verdicts)]
    with AnswerCache(options.cache) as cache:
        started = time.perf_counter()
        replies = ask_all(requests, judge, cache=cache)
        seconds = time.perf_counter() - started
    assert all(isinstance(reply, Reply) and reply.text == VERDICT for reply in replies)
    return seconds


def question(number: int) -> JudgeRequest:
    """A pointwise question with a rubric of 3,000 characters."""
    messages = (Message("system", RUBRIC), Message("user", f"The answer to be graded has the number {number}."))
    return JudgeRequest({"number": number}, lambda: messages, FORM)


def start(options: argparse.Namespace, url: str, cache: Path) -> subprocess.Popen[str]:
    """This program again, as the one that asks."""
    command = [sys.executable, __file__, "--ask", url, "--cache", str(cache), "--verdicts", str(options.verdicts)]
    command += ["--connections", str(options.connections)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[float, float]:
    """The seconds and processor seconds that it reports at its end."""
    seconds, processor_seconds = process.communicate()[0].split()
    return float(seconds), float(processor_seconds)


@contextmanager
def stub(options: argparse.Namespace, log: Path) -> Iterator[str]:
    """The stub in its own process; yields its URL."""
    command = [sys.executable, str(STUB), "--text", VERDICT, "--latency", str(options.latency), "--log", str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def answered(log: Path) -> list[str]:
    """The questions that the stub has answered, by hash."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
