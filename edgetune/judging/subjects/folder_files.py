"""Which files of a model's or adapter's folder shape its answers: all except those that are known not to.

Weights, configurations, tokenizers, chat templates, code: what is read depends on the family, on the versions of the
libraries and on the configuration. So the lists name files that are never read. A file on no list counts: at worst
answers are requested again without need, and no answer of another model is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from edgetune.errors import ModelError
from edgetune.judging.suites.identity import hash_file, hash_value
from edgetune.models.checkpoint import find_checkpoint
from edgetune.weights.source import ADAPTER_CONFIG

_FOR_PEOPLE = (
    *("*.md", "*.rst", "*.pdf", "readme*", "license*", "licence*", "notice*", "use_policy*", "changelog*"),
    *("*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp"),
)
_OF_A_TRAINING = (
    *("training_args.bin", "trainer_state.json", "optimizer.*", "scheduler.*", "scaler.pt", "rng_state*"),
    *("all_results.json", "train_results.json", "eval_results.json", "metrics.jsonl", "*.log", "events.out.tfevents.*"),
    *("zero_to_fp32.py", "latest"),  # DeepSpeed's
)
_UNREAD_FILES = (".*", *_FOR_PEOPLE, *_OF_A_TRAINING)
_UNREAD_FOLDERS = (
    *(".*", "__pycache__", "checkpoint-*", "checkpoints", "global_step*", "runs", "logs", "wandb", "plots"),
    *("report", "reports"),  # of an earlier judgement
    *("original", "onnx", "openvino", "coreml", "metal"),  # the weights once more, for other programs
)
_MARKS = ("report.json", "recipe.yaml", "trainer_state.json", "pyvenv.cfg")
"""Files of folders that are something else: a report, a run, a checkpoint, an environment of Python."""
_OTHER_WEIGHTS = (
    *("consolidated*", "pytorch_model*", "tf_model*", "flax_model*", "rust_model*"),
    *("*.gguf", "*.onnx", "*.ckpt", "*.pth", "*.msgpack", "*.h5", "*.ot"),
)
"""Weights for other programs, which are not read where there is a checkpoint in safetensors."""


def hash_model_folder(folder: Path) -> str:
    """SHA-256 over the files that shape a model's answers: their names inside the folder, and their bytes.

    A copy of the folder, or one under another name, has the same hash. Raises ModelError when a file cannot be read.
    """
    try:
        checkpoint: tuple[Path, ...] = find_checkpoint(folder).files
    except ModelError:
        checkpoint = ()
    other = _OTHER_WEIGHTS if checkpoint else ()
    files = [file for file in _files(folder) if file in checkpoint or not _fits(file.name, other)]
    return hash_value({_name(file, folder): hash_file(file) for file in files})


def hash_adapter_folder(folder: Path) -> str:
    """The same for an adapter: its configuration, its weights, and its own tokenizer and chat template.

    Where its base lay when it was trained is left out: the base that is used counts by itself.
    """
    hashes = {_name(file, folder): hash_file(file) for file in _files(folder)}
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    settings.pop("base_model_name_or_path", None)
    return hash_value({**hashes, ADAPTER_CONFIG: settings})


def _files(folder: Path) -> Iterator[Path]:
    """All files that may be read, those in folders inside it too, each folder once whatever links lead to it."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(Path(place).resolve())
        folders[:] = [name for name in folders if not _is_unread(Path(place) / name, seen)]
        files = (Path(place) / name for name in names if not _fits(name, _UNREAD_FILES))
        yield from (file for file in files if file.is_file())


def _is_unread(folder: Path, seen: set[Path]) -> bool:
    named = _fits(folder.name, _UNREAD_FOLDERS) or any((folder / mark).is_file() for mark in _MARKS)
    return named or folder.resolve() in seen


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
