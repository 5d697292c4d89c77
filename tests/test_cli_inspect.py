"""`edgetune inspect` on the command line: what it says is what the gguf package reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from support.quick_reader import QuickReader


def write(file: Path, writer: GGUFWriter) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_name("mood")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "tiny")
    writer.add_string("edgetune.adapter.sha256", "ab" * 32)
    writer.add_string("edgetune.recipe", "name: mood\ntask: chat\n")
    writer.add_array("edgetune.labels", ["good", "bad"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {number}" for number in range(20)])
    writer.add_token_scores([float(number) for number in range(20)])
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(99)
    writer.add_chat_template([{"name": "default", "template": "[bold]A"}, {"name": "tools", "template": "B"}])
    writer.add_tensor("a.weight", np.zeros((4, 64), np.float32))
    writer.add_tensor("b.weight", np.zeros((2, 64), np.float16))
    return write(file, writer)


def test_the_packaged_model_is_as_the_gguf_package_reads_it(smollm2_gguf: Path, edgetune_command) -> None:
    done = edgetune_command("inspect", smollm2_gguf, "--json")
    said, reader = json.loads(done.stdout), QuickReader(smollm2_gguf)
    assert done.exit_code == 0
    assert said["bytes"] == smollm2_gguf.stat().st_size
    assert said["weights"] == sum(int(tensor.n_elements) for tensor in reader.tensors)
    sizes = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert said["bits_per_weight"] == pytest.approx(8 * sizes / said["weights"])
    for name, share in said["types"].items():
        same = [tensor for tensor in reader.tensors if tensor.tensor_type.name == name]
        assert (share["tensors"], share["bytes"]) == (len(same), sum(int(tensor.n_bytes) for tensor in same))
    assert sum(share["tensors"] for share in said["types"].values()) == len(reader.tensors)
    keys = {f"{group}.{key}" for group, values in said["metadata"].items() for key in values}
    assert keys == {key for key in reader.fields if not key.startswith("GGUF.")} - {"tokenizer.chat_template"}
    assert said["chat_templates"] == {"default": reader.get_field("tokenizer.chat_template").contents()}
    assert said["special_tokens"]["eos"] == {"id": 2, "text": "<|im_end|>"}
    assert said["vocabulary"]["tokens"] == 49152


def test_everything_that_a_file_says_is_shown(model: Path, edgetune_command) -> None:
    shown = edgetune_command("inspect", model).stdout
    for piece in ("model llama", "F32", "F16", "base_model.0.name tiny", "ab" * 32, "[good, bad]", "name: mood"):
        assert piece in shown
    assert "bos 3 'token 3', eos 99 (no such token)" in shown
    assert "20 text values: token 0, token 1" in shown
    assert "chat template (default)\n[bold]A" in shown
    assert "chat template (tools)\nB" in shown


def test_long_arrays_are_given_by_their_beginning(model: Path, edgetune_command) -> None:
    said = json.loads(edgetune_command("inspect", model, "--json").stdout)
    scores = said["metadata"]["tokenizer"]["ggml.scores"]
    assert scores == {"count": 20, "kind": "float", "first": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]}
    assert said["metadata"]["edgetune"]["labels"] == ["good", "bad"]
    assert said["lineage"]["edgetune.adapter.sha256"] == "ab" * 32


def test_a_lora_adapter_says_its_rank_and_alpha(tmp_path: Path, edgetune_command) -> None:
    writer = GGUFWriter(tmp_path / "lora.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 32.0)
    for number in range(2):
        writer.add_tensor(f"blk.{number}.attn_q.weight.lora_a", np.zeros((8, 64), np.float16))
        writer.add_tensor(f"blk.{number}.attn_q.weight.lora_b", np.zeros((64, 8), np.float16))
    file = write(tmp_path / "lora.gguf", writer)
    said = json.loads(edgetune_command("inspect", file, "--json").stdout)
    assert said["kind"] == "adapter"
    assert said["lora"] == {"type": "lora", "alpha": 32.0, "ranks": [8], "modules": 2}
    assert "ranks [8]" in edgetune_command("inspect", file).stdout


def test_an_importance_matrix_says_what_it_was_measured_on(tmp_path: Path, edgetune_command) -> None:
    writer = GGUFWriter(tmp_path / "imatrix.gguf", "llama")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["calibration.txt"])
    writer.add_uint32("imatrix.chunk_count", 100)
    writer.add_uint32("imatrix.chunk_size", 512)
    writer.add_tensor("blk.0.attn_q.weight.in_sum2", np.zeros((1, 64), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.counts", np.zeros((1, 1), np.float32))
    file = write(tmp_path / "imatrix.gguf", writer)
    said = json.loads(edgetune_command("inspect", file, "--json").stdout)
    expected = {"datasets": ["calibration.txt"], "chunks": 100, "chunk_tokens": 512, "matrices": 1}
    assert said["imatrix"] == expected
    assert "datasets [calibration.txt]" in edgetune_command("inspect", file).stdout


def test_a_file_of_metadata_alone_is_shown(tmp_path: Path, edgetune_command) -> None:
    writer = GGUFWriter(tmp_path / "empty.gguf", "llama")
    done = edgetune_command("inspect", write(tmp_path / "empty.gguf", writer), "--json")
    assert json.loads(done.stdout)["bits_per_weight"] == 0


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"PK\3\4 and more", "is not a GGUF file"), (None, "truncated")]
)
def test_a_damaged_file_ends_with_one_line(content: bytes | None, says: str, model: Path, edgetune_command) -> None:
    model.write_bytes(model.read_bytes()[:200] if content is None else content)
    done = edgetune_command("inspect", model)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_needs_neither_llama_cpp_nor_torch(model: Path, run_python) -> None:
    seen = run_python(
        "import sys; from pathlib import Path\n"
        "from edgetune.cli.inspect import inspect\n"
        f"inspect(Path({str(model)!r}))\n"
        "print([name for name in ('torch', 'transformers', 'llama_cpp', 'tokenizers') if name in sys.modules])"
    )
    assert seen.endswith("[]")
