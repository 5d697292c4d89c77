"""What it takes to judge large sets of labels from files of outputs, report included.

    python benchmarks/large_suite.py [--items 50000] [--labels 20] [--clusters 0]

Writes a data file and the outputs of two made-up models, judges one against the other in a process of its own, and
prints its processor time, its peak memory and the size of the report.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

WORDS = ("battery", "screen", "price", "delivery", "returned", "never", "always", "slow", "bright", "cheap", "again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--clusters", type=int, default=0, help="how many; 0: every item by itself")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        command = write_suite(Path(folder), options.items, options.labels, options.clusters)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in (0, 1, 3):
            raise SystemExit(done.stderr)
        sizes = {file.name: file.stat().st_size / 1e6 for file in sorted(Path(folder, "report").iterdir())}
    seconds, megabytes = used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3
    print(f"{options.items:,} items, {options.labels} labels: {seconds:.0f} s of processor time, {megabytes:.0f} MB")
    print(", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))


def write_suite(folder: Path, items: int, labels: int, clusters: int) -> list[str]:
    """The command that judges what this writes."""
    chance = random.Random(0)
    names = [f"label {number}" for number in range(labels)]
    data, outputs = [], {"candidate": [], "baseline": []}
    for number in range(items):
        gold = chance.choice(names)
        text = " ".join(chance.choices(WORDS, k=20))
        group = {"group": chance.randrange(clusters)} if clusters else {}
        data.append({"id": number, "text": text, "label": gold, **group})
        for model, right in (("candidate", 0.80), ("baseline", 0.81)):
            label = gold if chance.random() < right else chance.choice(names)
            outputs[model].append({"id": number, "output": label})
    suite = {
        "name": "large",
        "task": "classify",
        "labels": names,
        "prompt": "{text}",
        "data": [{"source": "data.jsonl", "format": "text-label"}],
        **({"cluster": "group"} if clusters else {}),
    }
    (folder / "suite.yaml").write_text(json.dumps(suite))
    for name, rows in (("data", data), *outputs.items()):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    suite_file, candidate, baseline = (
        str(folder / name) for name in ("suite.yaml", "candidate.jsonl", "baseline.jsonl")
    )
    judge = [sys.executable, "-m", "edgetune", "judge", suite_file, "--model", candidate, "--baseline", baseline]
    return [*judge, "--out", str(folder / "report")]


if __name__ == "__main__":
    main()
