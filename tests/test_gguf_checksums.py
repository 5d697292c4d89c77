"""A file whose weights are not those that export wrote is found out, and one that another program made over is not."""

from __future__ import annotations

import binascii
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from support.folding import make_adapter  # noqa: E402

from edgetune.errors import VerificationFailed  # noqa: E402
from edgetune.gguf.checksums import KEY, compare_checksums  # noqa: E402
from edgetune.gguf.lora import export_adapter  # noqa: E402
from edgetune.gguf.presets import find_preset  # noqa: E402
from edgetune.gguf.quantize import quantize  # noqa: E402
from edgetune.gguf.verification.verify import verify_file  # noqa: E402
from edgetune.gguf.write import export  # noqa: E402
from edgetune.models.gguf_file import GgufFile  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402


@pytest.fixture(scope="module")
def good(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("good") / "model.gguf"
    export(resolve_source(str(tiny_llama)), file, preset="q4_k_m")
    return file


def damaged(good: Path, file: Path, at: int) -> Path:
    content = bytearray(good.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    return file


def test_every_tensor_has_the_checksum_of_its_bytes(good: Path) -> None:
    file = GgufFile(good)
    said = file.array(KEY)
    assert said is not None
    assert [entry.split(" ")[0] for entry in said] == list(file.tensors)
    for entry in said:
        name, _kind, value = entry.split(" ")
        assert int(value, 16) == binascii.crc32(file.data(name).tobytes())


@pytest.mark.parametrize("threads", [1, 3])
def test_they_do_not_depend_on_the_number_of_threads(
    threads: int, good: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetune.gguf.streaming.BLOCK_VALUES", 20_000)
    export(resolve_source(str(tiny_llama)), tmp_path / "model.gguf", preset="q4_k_m", threads=threads)
    assert GgufFile(tmp_path / "model.gguf").array(KEY) == GgufFile(good).array(KEY)


def test_tensors_that_are_copied_from_a_gguf_have_theirs(good: Path, tmp_path: Path) -> None:
    report = export(resolve_source(str(good)), tmp_path / "again.gguf", preset="q4_k_m")
    assert report.copied_tensors
    assert GgufFile(tmp_path / "again.gguf").array(KEY) == GgufFile(good).array(KEY)


def test_a_lora_file_has_them_too(tiny_llama: Path, tmp_path: Path, edgetune_command) -> None:
    adapter = make_adapter(tiny_llama, tmp_path / "adapter", peft.LoraConfig(r=4, target_modules=["q_proj"]))
    export_adapter(resolve_source(str(adapter)), tmp_path / "lora.gguf")
    seen = edgetune_command("inspect", tmp_path / "lora.gguf", "--check")
    assert seen.exit_code == 0
    assert "checksums: 4 tensors" in seen.stdout
    file = GgufFile(tmp_path / "lora.gguf")
    broken = damaged(tmp_path / "lora.gguf", tmp_path / "broken.gguf", file.tensors["blk.1.attn_q.weight.lora_b"].start)
    done = edgetune_command("inspect", broken, "--check")
    assert done.exit_code == 1
    assert "blk.1.attn_q.weight.lora_b" in done.stderr


def test_a_whole_file_passes(good: Path, edgetune_command) -> None:
    tensors = len(GgufFile(good).tensors)
    assert verify_file(good).checksums == tensors
    assert f"{tensors} tensors unchanged since export" in edgetune_command("verify", good).stdout
    shown = edgetune_command("inspect", good, "--check")
    assert shown.exit_code == 0
    assert f"checksums: {tensors} tensors" in shown.stdout
    said = json.loads(edgetune_command("inspect", good, "--check", "--json").stdout)
    assert said["checksums"] == {"same": tensors, "differing": [], "rewritten": 0}
    assert KEY not in said["lineage"]


@pytest.mark.parametrize("which", [0, 5, -1])
def test_one_bit_that_differs_is_found_and_its_tensor_named(
    which: int, good: Path, tmp_path: Path, edgetune_command
) -> None:
    tensor = list(GgufFile(good).tensors.values())[which]
    file = damaged(good, tmp_path / "damaged.gguf", tensor.start + tensor.nbytes // 2)
    with pytest.raises(VerificationFailed, match=rf"is damaged: the bytes of {tensor.name} have changed since export"):
        verify_file(file)
    for command in (["verify", file], ["inspect", file, "--check"]):
        done = edgetune_command(*command)
        assert done.exit_code == 1
        assert tensor.name in done.stderr
    assert edgetune_command("inspect", file).exit_code == 0


def test_a_last_megabyte_of_ones_is_found(good: Path, tmp_path: Path, edgetune_command) -> None:
    content = good.read_bytes()
    (tmp_path / "ones.gguf").write_bytes(content[: -(2**20)] + b"\xff" * 2**20)
    done = edgetune_command("inspect", tmp_path / "ones.gguf", "--check")
    assert done.exit_code == 1
    assert "is damaged" in done.stderr


def test_a_file_that_another_program_quantized_is_not_called_damaged(
    tiny_llama: Path, tmp_path: Path, edgetune_command
) -> None:
    export(resolve_source(str(tiny_llama)), tmp_path / "f16.gguf", preset="f16")
    preset = find_preset("q4_k_m")
    quantize(tmp_path / "f16.gguf", tmp_path / "q4.gguf", preset, tensors=len(GgufFile(tmp_path / "f16.gguf").tensors))
    found = compare_checksums(GgufFile(tmp_path / "q4.gguf"))
    assert found is not None
    assert found.rewritten
    assert not found.differing
    for command in ("verify", "inspect"):
        done = edgetune_command(command, tmp_path / "q4.gguf", *(["--check"] if command == "inspect" else []))
        assert done.exit_code == 0
        assert "the checksums do not apply" in " ".join(done.stderr.split())


def test_a_file_of_another_tool_has_nothing_to_compare(smollm2_gguf: Path, edgetune_command) -> None:
    done = edgetune_command("inspect", smollm2_gguf, "--check", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["checksums"] is None
    assert "contains no checksums" in " ".join(done.stderr.split())
