"""Whether native code survives, found out in a child process, so that a crash there is never the user's dead terminal.

Two questions, each asked once and the answer remembered in the cache folder:

1. Do llama.cpp's extra CPU kernels (AMX, repacked weights) run on this machine with this build of the library? On
   virtual machines that announce AMX without letting it run, they die of SIGSEGV or SIGILL. The child decodes a tiny
   random model in the types that these kernels take; if it dies, the kernels stay off here, with one note.
2. Does this file load and decode? A damaged GGUF can make llama.cpp abort the process. The head is read in Python
   first, which explains most faults; then a child loads the file and decodes two batches, and if it dies the user
   reads one line. A file is known by path, size and time of change, so that this costs one more load when a file is
   new or changed (its pages are then in memory for the real load), and nothing afterwards.

EDGETUNE_EXTRA_KERNELS=off answers the first question with no, without asking: for a machine whose kernels crash now and
then, and to see what they bring.

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
"""The environment variable that switches the extra kernels off, whatever the probe would find."""

_TINY_MODEL_TIMEOUT_SECONDS = 60.0
_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
_REFUSED = 3
"""The child's exit status when llama.cpp refused the file in an orderly way."""
_LOWEST_CRASH_STATUS = 128
"""A shell's way to say "signal", and Windows' exception codes, lie above; Python's own failures lie below."""


@dataclass(frozen=True)
class ProbeOutcome:
    """How a child ended that loaded and decoded a model."""

    survived: bool
    crashed: bool
    """Neither survived nor crashed: the file was refused, or the child could not do its work."""
    how: str
    output: str = ""
    """What it wrote to stdout."""
    refused: bool = False
    """True where llama.cpp refused the file in an orderly way."""


def extra_kernels_work() -> bool:
    """Whether llama.cpp's extra CPU kernels run here. A child finds out once per machine and library build.

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
                f"llama.cpp's extra CPU kernels do not run on this machine ({outcome.how}); they are off, which costs "
                "some speed"
            )
    return answer


def check_file(path: Path) -> RunnableFile:
    """Check that llama.cpp can load and decode `path`, with the extra kernels or without them.

    Raises ModelError when the file is missing or damaged, when llama.cpp refuses it, or when it crashes llama.cpp with
    and without these kernels.
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
    """Let a child load and decode the file. Returns whether it may do so with the extra kernels; see `check_file`."""
    extra_kernels = extra_kernels_work()
    outcome = try_in_child(path, extra_kernels=extra_kernels)
    if outcome.crashed and extra_kernels and try_in_child(path, extra_kernels=False).survived:
        events.note(f"{path}: llama.cpp's extra CPU kernels fail on this file ({outcome.how}); they are off for it")
        _remember_answer(record, False, outcome.how)
        return False
    if outcome.crashed:
        raise ModelError(
            f"llama.cpp crashes on this file ({outcome.how})",
            where=path,
            remedy="it may be damaged, so download or export it again; or it needs more memory than there is",
        )
    if outcome.survived:
        _remember_answer(record, extra_kernels, outcome.how)
    elif outcome.refused:  # loading it here gives llama.cpp's reason
        native.open_library().llama_model_free(native.load_model(path, extra_kernels=extra_kernels))
    return extra_kernels


def child_command(model: Path, *, extra_kernels: bool) -> list[str]:
    """The command line of the child that loads and decodes `model`. -P: nothing in the user's folder is imported."""
    return [sys.executable, "-P", "-m", "edgetune.runtime.probe", str(model), *["--extra-kernels"] * extra_kernels]


def try_in_child(model: Path, *, extra_kernels: bool, timeout_seconds: float | None = None) -> ProbeOutcome:
    """Load and decode `model` in a child process and tell how it ended."""
    return run_in_child(child_command(model, extra_kernels=extra_kernels), timeout_seconds=timeout_seconds)


def run_in_child(command: Sequence[str], *, timeout_seconds: float | None = None) -> ProbeOutcome:
    """Run a program that lets llama.cpp compute, and tell how it ended."""
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
    """What the child does: load the model, then decode a batch and a single token, which take different kernels.

    Raises ModelError when llama.cpp refuses the file.
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
    """What decides whether the kernels run: the processor, what it announces, and the library's build."""
    distribution = importlib.metadata.distribution("llama-cpp-python")
    folder = os.environ.get("LLAMA_CPP_LIB_PATH") or distribution.locate_file("llama_cpp/lib")
    libraries = sorted(Path(str(folder)).glob("*ggml-cpu*"))
    builds = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in libraries]
    return [_processor(), distribution.version, *builds]


def _processor() -> str:
    """The first processor's model and flags as Linux announces them; elsewhere what Python knows."""
    try:
        announced = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        announced = ""
    lines = re.findall(r"^(?:model name|CPU part|flags|Features)\s*:.*$", announced, re.MULTILINE)
    return "\n".join(lines) or f"{platform.machine()} {platform.processor()}"


def record_of(kind: str, identity: Sequence[str]) -> Path:
    """One small file per answer, so that processes that ask at the same time cannot spoil each other's."""
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "probe" / f"{kind}-{digest}.json"


def recall(record: Path) -> dict[str, Any] | None:
    """What is remembered there, or None when there is nothing that can be read."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def remember(record: Path, known: dict[str, Any]) -> None:
    """Write it down. Where the cache cannot be written, the question is asked again next time."""
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
