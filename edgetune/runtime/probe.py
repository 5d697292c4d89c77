"""Tries native code in a child process first, so that a crash does not end the user's process.

It answers two questions once and stores the answers in the cache folder:

1. Do llama.cpp's extra CPU kernels (AMX, repacked weights) work on this machine with this build of the library? On
virtual machines that report AMX but do not allow it, they crash with SIGSEGV or SIGILL. The child decodes a tiny random
model in the types of these kernels; if it crashes, the kernels stay off, with one note. 2. Does this file load and
decode? A damaged GGUF can make llama.cpp abort the process. Python reads the header first, which explains most errors;
then a child loads the file and decodes two batches, and a crash becomes a one-line error. A file is identified by path,
size and time of change, so a new or changed file is loaded once more (and its pages are then in memory for the real
load).

EDGETUNE_EXTRA_KERNELS=off turns the kernels off without a test, for a machine on which they crash occasionally, or to
measure their effect.

Run as a module, this file is the child: `python -m edgetune.runtime.probe FILE [--extra-kernels]`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune import events
from edgetune.cache import cache_folder
from edgetune.errors import ModelError, UsageError
from edgetune.models.gguf_file import GgufFile
from edgetune.runtime import native
from edgetune.runtime.runnable import RunnableFile
from edgetune.runtime.tiny_model import write_tiny_model

SWITCH = "EDGETUNE_EXTRA_KERNELS"
"""The environment variable that turns the extra kernels off without a test."""

_TINY_MODEL_TIMEOUT_SECONDS = 60.0
_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
_REFUSED = 3
"""The child's exit status if llama.cpp refused the file without a crash."""
_LOWEST_CRASH_STATUS = 128
"""Exit statuses from here on are crashes: a shell's codes of signals and Windows' exception codes. Python's are
lower."""


@dataclass(frozen=True)
class ProbeOutcome:
    """The result of a child that loads and decodes a model."""

    survived: bool
    crashed: bool
    """If neither survived nor crashed, the file was refused or the child failed for another reason."""
    how: str
    output: str = ""
    """Its stdout."""
    refused: bool = False
    """True if llama.cpp refused the file without a crash."""


def extra_kernels_work() -> bool:
    """True if llama.cpp's extra CPU kernels work here. A child tests it once per machine and library build.

    Raises UsageError for a value of EDGETUNE_EXTRA_KERNELS that is neither auto nor off.
    """
    if _switched_off():
        return False
    record = record_of("machine", machine_identity())
    answer = _recall_answer(record)
    if answer is None:
        with tempfile.TemporaryDirectory(prefix="edgetune-probe-") as folder:
            model = Path(folder) / "tiny.gguf"
            write_tiny_model(model)
            outcome = try_in_child(model, extra_kernels=True, timeout_seconds=_TINY_MODEL_TIMEOUT_SECONDS)
        answer = outcome.survived
        if outcome.survived or outcome.crashed:
            _remember_answer(record, answer, outcome.how)
        if not answer:
            events.note(
                f"llama.cpp's extra CPU kernels do not run on this machine ({outcome.how}); edgetune turns them off, "
                "which is slower"
            )
    return answer


def check_file(path: Path) -> RunnableFile:
    """Check that llama.cpp can load and decode `path`, with the extra kernels or without them.

    Raises ModelError if the file is missing or damaged, or if llama.cpp refuses it or crashes on it with and without
    these kernels.
    """
    file = GgufFile(path)
    status = path.stat()
    identity = [str(path.resolve()), str(status.st_size), str(status.st_mtime_ns), *machine_identity()]
    if _switched_off():
        identity.append("without extra kernels")
    record = record_of("file", identity)
    extra_kernels = _recall_answer(record)
    if extra_kernels is None:
        extra_kernels = _decodes(path, record)
    return RunnableFile(path, file.metadata, extra_kernels)


def _decodes(path: Path, record: Path) -> bool:
    """Load and decode the file in a child. Returns True if the extra kernels work on it; see `check_file`."""
    extra_kernels = extra_kernels_work()
    outcome = try_in_child(path, extra_kernels=extra_kernels)
    if outcome.crashed and extra_kernels and try_in_child(path, extra_kernels=False).survived:
        events.note(
            f"{path}: llama.cpp's extra CPU kernels fail on this file ({outcome.how}); edgetune turns them off for it"
        )
        _remember_answer(record, False, outcome.how)
        return False
    if outcome.crashed:
        raise ModelError(
            f"llama.cpp crashes on this file ({outcome.how})",
            where=path,
            remedy="it may be damaged, so download or export it again; or there is not enough memory",
        )
    if outcome.survived:
        _remember_answer(record, extra_kernels, outcome.how)
    elif outcome.refused:  # loading it here gives llama.cpp's reason
        native.open_library().llama_model_free(native.load_model(path, extra_kernels=extra_kernels))
    return extra_kernels


def child_command(model: Path, *, extra_kernels: bool) -> list[str]:
    """The command line of the child that loads and decodes `model`. -P prevents imports from the user's folder."""
    return [sys.executable, "-P", "-m", "edgetune.runtime.probe", str(model), *["--extra-kernels"] * extra_kernels]


def try_in_child(model: Path, *, extra_kernels: bool, timeout_seconds: float | None = None) -> ProbeOutcome:
    """Load and decode `model` in a child process and return the result."""
    return run_in_child(child_command(model, extra_kernels=extra_kernels), timeout_seconds=timeout_seconds)


def run_in_child(command: Sequence[str], *, timeout_seconds: float | None = None) -> ProbeOutcome:
    """Run a program that uses llama.cpp, and return the result."""
    environment = os.environ | {
        "GGML_NO_BACKTRACE": "1",  # else llama.cpp starts a debugger when it aborts
        "PYTHONPATH": os.pathsep.join([str(_PACKAGE_FOLDER), *filter(None, sys.path)]),
    }
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ProbeOutcome(survived=False, crashed=True, how=f"no answer in {timeout_seconds:.0f} s")
    last_words = [
        re.sub(
            r"^.*/(?=[^/]+:\d+: )", "", line
        )  # llama.cpp names its source with the path of the machine that built it
        for line in child.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    ]
    if child.returncode < 0:
        last_words.insert(0, name_signal(-child.returncode))
    crashed = child.returncode < 0 or child.returncode >= _LOWEST_CRASH_STATUS
    return ProbeOutcome(
        survived=child.returncode == 0,
        crashed=crashed,
        how=": ".join(last_words) or "no message",
        output=child.stdout.decode("utf-8", "replace"),
        refused=child.returncode == _REFUSED,
    )


def load_and_decode(model: Path, *, extra_kernels: bool) -> None:
    """The child's work: load the model, then decode a batch and a single token, which use different kernels.

    Raises ModelError if llama.cpp refuses the file.
    """
    llama_cpp = native.open_library()
    loaded = native.load_model(model, extra_kernels=extra_kernels)
    if not llama_cpp.llama_model_has_decoder(loaded):
        return
    vocabulary_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(loaded))
    context = native.create_context(loaded, context_tokens=64, batch_tokens=48, outputs=1, threads=1)
    ids = [number % vocabulary_size for number in range(48)]
    for batch in (ids, ids[:1]):
        tokens = (llama_cpp.llama_token * len(batch))(*batch)
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(batch)))


def _switched_off() -> bool:
    value = os.environ.get(SWITCH) or "auto"
    if value not in ("auto", "off"):
        raise UsageError(f"the environment variable {SWITCH} is {value!r}", remedy="set it to auto or to off")
    return value == "off"


def name_signal(number: int) -> str:
    """SIGILL for 4, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def machine_identity() -> list[str]:
    """Everything that the kernels depend on: the processor, its features, and the library's build."""
    distribution = importlib.metadata.distribution("llama-cpp-python")
    folder = os.environ.get("LLAMA_CPP_LIB_PATH") or distribution.locate_file("llama_cpp/lib")
    libraries = sorted(Path(str(folder)).glob("*ggml-cpu*"))
    builds = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in libraries]
    return [_processor(), distribution.version, *builds]


def _processor() -> str:
    """The first processor's model and flags as Linux reports them; on other systems Python's description."""
    try:
        announced = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        announced = ""
    lines = re.findall(r"^(?:model name|CPU part|flags|Features)\s*:.*$", announced, re.MULTILINE)
    return "\n".join(lines) or f"{platform.machine()} {platform.processor()}"


def record_of(kind: str, identity: Sequence[str]) -> Path:
    """One small file per answer, so that parallel processes do not overwrite each other's answers."""
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "probe" / f"{kind}-{digest}.json"


def recall(record: Path) -> dict[str, Any] | None:
    """The stored answer, or None if there is none that can be read."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def remember(record: Path, known: dict[str, Any]) -> None:
    """Store the answer. If the cache cannot be written, the test is repeated next time."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        staged = record.with_suffix(f".{os.getpid()}")
        staged.write_text(json.dumps(known) + "\n", encoding="utf-8")
        staged.replace(record)
    except OSError:
        return


def _recall_answer(record: Path) -> bool | None:
    answer = (recall(record) or {}).get("extra_kernels")
    return answer if isinstance(answer, bool) else None


def _remember_answer(record: Path, extra_kernels: bool, how: str) -> None:
    remember(record, {"extra_kernels": extra_kernels, "how": how})


def _main(arguments: Sequence[str]) -> int:
    try:
        load_and_decode(Path(arguments[0]), extra_kernels="--extra-kernels" in arguments[1:])
    except ModelError as problem:
        sys.stderr.write(f"{problem}\n")
        return _REFUSED
    sys.stderr.write("runs\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
