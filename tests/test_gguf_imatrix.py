"""Importance matrices: llama.cpp's files, read and written, and measuring one on a model."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from edgetune.errors import DataError, ModelError, NumericalError, OutputError
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.imatrix import Imatrix, Importance, read_imatrix, write_imatrix
from edgetune.weights.source import ModelSource, resolve_source

SUMS = np.array([3.0, 0.0, 1e-3, 7.5], np.float32)


def dense(sums: np.ndarray, tokens: int) -> Importance:
    return Importance(sums[None, :].astype(np.float32), np.array([tokens]))


def legacy_file(path: Path, *, entries=(("blk.0.attn_q.weight", 7, SUMS),), trailer: bytes = b"") -> Path:
    """The older format, as tools/imatrix writes it."""
    content = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        content += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values))
        content += values.astype("<f4").tobytes()
    path.write_bytes(content + trailer)
    return path


def gguf_file(path: Path, tensors: dict[str, np.ndarray], *, metadata: bool = True) -> Path:
    writer = GGUFWriter(path, "")
    writer.add_type("imatrix")
    if metadata:
        writer.add_array("imatrix.datasets", ["a.txt"])
        writer.add_uint32("imatrix.chunk_count", 2)
        writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_written_is_read_again_and_the_same_bytes_come_out(tmp_path) -> None:
    rng = np.random.default_rng(0)
    entries = {
        "blk.10.ffn_down.weight": dense(rng.random(96) * 1e4, 51200),
        "blk.0.ffn_up_exps.weight": Importance(rng.random((3, 5)).astype(np.float32), np.array([4, 0, 9])),
    }
    imatrix = Imatrix(entries, ("a.txt", "b.txt"), chunks=100, chunk_tokens=512)
    write_imatrix(imatrix, tmp_path / "one.gguf")
    found = read_imatrix(tmp_path / "one.gguf")
    assert (found.datasets, found.chunks, found.chunk_tokens) == (("a.txt", "b.txt"), 100, 512)
    assert found.entries.keys() == entries.keys()
    for name, entry in entries.items():
        assert np.array_equal(found.entries[name].sums, entry.sums)
        assert np.array_equal(found.entries[name].counts, entry.counts)
        assert np.array_equal(found.weights[name], imatrix.weights[name])
    write_imatrix(found, tmp_path / "two.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_imatrix(imatrix, tmp_path / "one.gguf")


def test_the_file_has_the_layout_of_llama_cpp(tmp_path) -> None:
    write_imatrix(Imatrix({"blk.0.attn_q.weight": dense(SUMS, 1024)}, ("a.txt",), 2, 512), tmp_path / "i.gguf")
    file = GGUFReader(tmp_path / "i.gguf")
    said = {key: field.contents() for key, field in file.fields.items() if not key.startswith("GGUF.")}
    assert said == {
        "general.type": "imatrix",
        "imatrix.datasets": ["a.txt"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": 512,
    }
    tensors = {tensor.name: tensor.data for tensor in file.tensors}
    assert list(tensors) == ["blk.0.attn_q.weight.in_sum2", "blk.0.attn_q.weight.counts"]
    assert np.array_equal(tensors["blk.0.attn_q.weight.in_sum2"], SUMS)
    assert np.array_equal(tensors["blk.0.attn_q.weight.counts"], [1024.0])


def test_the_quantizer_is_given_single_precision_quotients(tmp_path) -> None:
    sums = np.array([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]], np.float32)
    tensors = {"x.weight.in_sum2": sums, "x.weight.counts": np.array([[3.0], [0.0]], np.float32)}
    weights = read_imatrix(gguf_file(tmp_path / "i.gguf", tensors)).weights["x.weight"]
    third = np.float32(1) / np.float32(3)
    assert weights.dtype == np.float32
    assert weights.tolist() == [third, np.float32(2) / np.float32(3), 1.0, 1.0, 1.0, 1.0]


def test_the_older_format_is_read(tmp_path) -> None:
    trailer = struct.pack("<ii", 12, 5) + b"a.txt"
    entries = (("blk.0.attn_q.weight", 7, SUMS), ("blk.0.ffn_down.weight", 0, SUMS))
    found = read_imatrix(legacy_file(tmp_path / "i.dat", entries=entries, trailer=trailer))
    assert (found.chunks, found.datasets, found.file) == (12, ("a.txt",), tmp_path / "i.dat")
    assert np.array_equal(found.weights["blk.0.attn_q.weight"], SUMS / np.float32(7))
    assert np.array_equal(found.weights["blk.0.ffn_down.weight"], SUMS)


def test_the_older_format_needs_no_trailer_and_can_be_written_as_gguf(tmp_path) -> None:
    found = read_imatrix(legacy_file(tmp_path / "i.dat"))
    assert (found.chunks, found.datasets) == (0, ())
    write_imatrix(found, tmp_path / "i.gguf")
    again = read_imatrix(tmp_path / "i.gguf")
    assert np.array_equal(again.weights["blk.0.attn_q.weight"], found.weights["blk.0.attn_q.weight"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not an importance matrix"),
        (b"PK\x03\x04 something else entirely", "is not an importance matrix"),
        (struct.pack("<i", 0), "is not an importance matrix"),
        (struct.pack("<i", -5) + b"abcdefgh", "is not an importance matrix"),
        (b"GGUF\x03\x00", "is truncated"),
    ],
)
def test_what_is_no_importance_matrix_is_refused(content, reason, tmp_path) -> None:
    file = tmp_path / "i.dat"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        read_imatrix(file)


def test_every_cut_of_a_file_is_refused(tmp_path) -> None:
    entries = (("blk.0.attn_q.weight", 7, SUMS), ("blk.0.attn_k.weight", 7, SUMS))
    whole = legacy_file(tmp_path / "i.dat", entries=entries).read_bytes()
    cut = tmp_path / "cut.dat"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"is not an importance matrix|truncated or damaged after 1 of 2"):
            read_imatrix(cut)


def test_a_missing_file_and_a_model_are_told_apart(tmp_path) -> None:
    with pytest.raises(ModelError, match="there is no such importance matrix"):
        read_imatrix(tmp_path / "none.gguf")
    file = gguf_file(tmp_path / "m.gguf", {"x.in_sum2": SUMS, "x.counts": SUMS[:1]}, metadata=False)
    with pytest.raises(ModelError, match=r"is a GGUF, but not an importance matrix \(general.type is imatrix\)"):
        read_imatrix(file)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"x.in_sum2": SUMS}, "lacks x.counts"),
        ({"x.counts": SUMS[:1]}, "lacks x.in_sum2"),
        ({"x.in_sum2": SUMS, "x.counts": np.ones(3, np.float32)}, "4 sums and 3 counts"),
        ({"x.in_sum2": SUMS.astype(np.float16), "x.counts": SUMS[:1]}, "has no float32 tensor"),
        ({"x.in_sum2": -SUMS, "x.counts": SUMS[:1]}, "x contains a value that is negative or not finite"),
        ({"x.in_sum2": SUMS / np.float32("nan"), "x.counts": SUMS[:1]}, "x contains a value that is negative"),
        ({"x.in_sum2": SUMS, "x.counts": -SUMS[:1]}, "x contains a value that is negative"),
        ({"x.in_sum2": SUMS, "x.counts": np.array([np.inf], np.float32)}, "do not match"),
        ({"y": SUMS}, "contains no entries"),
    ],
)
def test_entries_that_cannot_be_are_refused_by_name(tensors, reason, tmp_path) -> None:
    with pytest.raises(ModelError, match=reason):
        read_imatrix(gguf_file(tmp_path / "i.gguf", tensors))


def test_a_matrix_of_another_model_is_refused_by_tensor(tmp_path) -> None:
    imatrix = Imatrix(
        {"blk.0.attn_q.weight": dense(SUMS, 2), "token_embd.weight": dense(SUMS, 2)}, (), 0, 512, tmp_path / "i.dat"
    )
    embedding, norm = OutputTensor("token_embd.weight", (9, 3)), OutputTensor("blk.0.attn_norm.weight", (4,))
    found = imatrix.weights_for([OutputTensor("blk.0.attn_q.weight", (8, 4)), embedding, norm])
    assert list(found) == ["blk.0.attn_q.weight"]
    with pytest.raises(
        ModelError, match=r"i\.dat: blk\.0\.attn_q\.weight has 4 columns in this file, but 6 in the model"
    ):
        imatrix.weights_for([OutputTensor("blk.0.attn_q.weight", (8, 6))])
    with pytest.raises(ModelError, match="has no entry for any tensor"):
        imatrix.weights_for([OutputTensor("blk.5.attn_q.weight", (8, 4))])


def test_a_file_made_with_a_matrix_says_so_as_llama_cpp_does(tmp_path) -> None:
    imatrix = Imatrix({"x": dense(SUMS, 2)}, ("/home/me/a.txt", "b"), 12, 512, Path("/home/me/i.gguf"))
    writer = GGUFWriter(None, "llama")
    imatrix.describe_use(writer)
    said = {key: value.value for key, value in writer.kv_data[0].items() if key.startswith("quantize")}
    assert said == {
        "quantize.imatrix.file": "i.gguf",
        "quantize.imatrix.dataset": "a.txt",
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 12,
    }


TEXT = "The quick brown fox jumps over the lazy dog. Tatsächlich! 12,345 times; however, nobody counted.\n\n" * 20


class _Measured:
    """A tiny Llama with an adapter, measured by edgetune, and by hand with Transformers and PEFT."""

    def __init__(self, base: Path, folder: Path) -> None:
        from peft import LoraConfig
        from support.folding import make_adapter

        config = LoraConfig(target_modules=["q_proj", "down_proj", "gate_proj"], r=4, lora_alpha=16)
        self.base = base
        self.adapter = make_adapter(base, folder / "adapter", config, scale=0.3)
        self.source = resolve_source(str(self.adapter), base=str(base))
        self.data = folder / "text.txt"
        self.data.write_text(TEXT, encoding="utf-8")

    def by_hand(self, windows: list[list[int]], *, folded: bool = True) -> dict[str, np.ndarray]:
        """Mean squares of what goes into every linear layer of the blocks, by Transformers' module path."""
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.base)
        if folded:
            model = PeftModel.from_pretrained(model, self.adapter).merge_and_unload()
        seen: dict[str, list[np.ndarray]] = {}
        for path, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and "layers" in path:
                keep = seen.setdefault(path, [])
                module.register_forward_hook(lambda _m, inputs, _o, keep=keep: keep.append(inputs[0][0].numpy()))
        with torch.no_grad():
            for window in windows:
                model(torch.tensor([window]))
        return {path: np.square(np.concatenate(rows), dtype=np.float64).mean(0) for path, rows in seen.items()}


@pytest.fixture(scope="module")
def measured(tiny_llama, tmp_path_factory) -> _Measured:
    pytest.importorskip("peft")
    return _Measured(tiny_llama, tmp_path_factory.mktemp("measured"))


def collect(source: ModelSource, data: Path, **options) -> Imatrix:
    from edgetune.gguf.calibrate import collect_imatrix

    return collect_imatrix(source, data, **options)


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down"}


def test_the_folded_model_is_measured_as_by_hand(measured, tiny_tokenizer) -> None:
    ids = tiny_tokenizer.encode(TEXT)
    windows = [ids[start : start + 64] for start in range(0, 192, 64)]
    found = collect(measured.source, measured.data, context_tokens=64, max_chunks=3)
    expected, unfolded = measured.by_hand(windows), measured.by_hand(windows, folded=False)
    assert (found.chunks, found.chunk_tokens, found.datasets) == (3, 64, ("text.txt",))
    assert len(found.entries) == 14
    for layer in (0, 1):
        for module, name in NAMES.items():
            path, weight = f"model.layers.{layer}.{module}", f"blk.{layer}.{name}.weight"
            assert found.entries[weight].counts.tolist() == [192]
            np.testing.assert_allclose(found.weights[weight], expected[path], rtol=1e-3)
    path, weight = "model.layers.1.mlp.down_proj", "blk.1.ffn_down.weight"
    assert np.abs(found.weights[weight] / unfolded[path] - 1).max() > 0.1


def test_conversations_are_read_through_the_chat_template(measured, tiny_tokenizer, tmp_path) -> None:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because it rains."}]
    rows = {
        "messages.jsonl": {"messages": messages},
        "pairs.jsonl": {"prompt": "Why?", "completion": "Because it rains."},
    }
    ids = tiny_tokenizer.encode(tiny_tokenizer.apply_chat_template(messages, tokenize=False))
    expected = measured.by_hand([(ids * 2)[:64]])["model.layers.1.self_attn.q_proj"]
    for name, row in rows.items():
        (tmp_path / name).write_text(f"{json.dumps(row)}\n" * 2)
        found = collect(measured.source, tmp_path / name, context_tokens=64, max_chunks=1)
        np.testing.assert_allclose(found.weights["blk.1.attn_q.weight"], expected, rtol=1e-3)


def test_rows_of_text_are_read_as_they_are(measured, tiny_tokenizer, tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nIt rains.,0\nIt snows.,1\n")
    ids = tiny_tokenizer.encode("It rains.\n\n") + tiny_tokenizer.encode("It snows.\n\n")
    found = collect(measured.source, tmp_path / "rows.csv")
    assert found.entries["blk.0.attn_q.weight"].counts.tolist() == [len(ids)]
    expected = measured.by_hand([ids])["model.layers.1.self_attn.q_proj"]
    np.testing.assert_allclose(found.weights["blk.1.attn_q.weight"], expected, rtol=1e-3)


def test_little_text_is_used_and_told(measured, tmp_path, capsys) -> None:
    (tmp_path / "short.txt").write_text("It rains.")
    assert collect(measured.source, tmp_path / "short.txt").chunks == 1
    assert "tokens are few for calibration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.txt", None, "there is no such text or data file"),
        ("empty.txt", "", "this file is empty"),
        ("rows.jsonl", '{"question": "Why?"}', "the columns question contain no text"),
        ("rows.jsonl", '{"messages": []}', "must hold a list of turns"),
    ],
)
def test_data_without_text_is_refused(measured, name, content, reason, tmp_path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        collect(measured.source, tmp_path / name)


def test_each_chunk_begins_with_bos_where_the_model_expects_it() -> None:
    from edgetune.gguf.calibrate import _cut

    ids = list(range(10, 20))
    assert list(_cut(ids, 4, None)) == [[10, 11, 12, 13], [14, 15, 16, 17]]
    assert list(_cut(ids, 4, 1)) == [[1, 11, 12, 13], [1, 15, 16, 17]]
    assert list(_cut(ids, 99, 1)) == [[1, *range(11, 20)]]


def test_activations_that_are_not_finite_are_refused_by_weight(measured, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "adapter"
    broken.mkdir()
    for file in measured.adapter.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(broken / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.mlp.gate_proj.lora_B.weight"
    tensors[key] *= 1e30
    save_file(tensors, broken / "adapter_model.safetensors")
    adapter = replace(measured.source.adapter, folder=broken)
    with pytest.raises(NumericalError, match=r"the input of blk\.0\.ffn_down\.weight is not finite"):
        collect(replace(measured.source, adapter=adapter), measured.data, context_tokens=64, max_chunks=1)
