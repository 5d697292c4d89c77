"""The safetensors reader gives what the package's own reader gives, as views of the file, and refuses damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from edgetune.errors import ModelError  # noqa: E402
from edgetune.models.safetensors_file import SafetensorsFile  # noqa: E402

TENSORS = {
    "matrix": torch.arange(12, dtype=torch.float32).reshape(4, 3),
    "half": torch.linspace(-2, 2, 10).to(torch.float16).reshape(5, 2),
    "brain": torch.linspace(-3, 3, 7).to(torch.bfloat16),
    "cube": torch.arange(24, dtype=torch.float64).reshape(2, 3, 4),
    "indices": torch.tensor([3, 1, 2]),
    "flags": torch.tensor([True, False]),
    "one": torch.tensor(2.5),
    "none": torch.empty(0, 4),
}


def as_numpy(tensor):
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_every_type_and_shape_is_read_as_it_was_written(file: Path) -> None:
    opened = SafetensorsFile(file)
    assert opened.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert opened.tensors[name].shape == tuple(tensor.shape)
        assert np.array_equal(opened.rows(name), as_numpy(tensor)), name
        opened.release(name)


def test_rows_are_those_of_the_tensor_and_not_copied(file: Path) -> None:
    opened = SafetensorsFile(file)
    for name in ("matrix", "half", "brain", "cube"):
        rows = opened.rows(name, 1, 2)
        assert np.array_equal(rows, as_numpy(TENSORS[name])[1:2])
        assert not rows.flags.writeable
        assert not rows.flags.owndata


def write_raw(file: Path, header: object, data: bytes, *, pad: int = 0) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode() + b" " * pad
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_tensor_that_does_not_lie_aligned_is_aligned_when_read(tmp_path: Path) -> None:
    data = np.arange(6, dtype="<f4")
    for pad in range(4):
        opened = SafetensorsFile(write_raw(tmp_path / "x", {"w": entry("F32", [2, 3], 0, 24)}, data.tobytes(), pad=pad))
        assert opened.rows("w", 1, 2).flags.aligned
        assert np.array_equal(opened.rows("w"), data.reshape(2, 3))


DAMAGED = {
    "shorter than a header": b"1234",
    "its header would take": (1000).to_bytes(8, "little") + b"{}",
    "its header cannot be read": (4).to_bytes(8, "little") + b"{{{{",
}


@pytest.mark.parametrize("says", DAMAGED)
def test_a_damaged_header_is_refused_naming_the_file(says: str, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(DAMAGED[says])
    with pytest.raises(ModelError, match=f"bad.safetensors: is truncated or not a safetensors file.*{says}"):
        SafetensorsFile(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"w": entry("F32", [2, 3], 0, 20)}, "w needs 24 bytes and has 20"),
        ({"w": entry("F32", [2], 0, 8)}, "end at byte"),
        ({"w": entry("F32", [-2, -3], 0, 24)}, "w is not made of whole numbers"),
        ({"w": {"dtype": "F32"}}, "cannot be read"),
        ({"w": entry("F3", [2, 3], 0, 24)}, "the tensor w has the type F3"),
        ([], "cannot be read"),
    ],
)
def test_a_header_that_contradicts_the_file_is_refused(header: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says):
        SafetensorsFile(write_raw(tmp_path / "x", header, bytes(24)))


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ModelError, match="empty"):
        SafetensorsFile(tmp_path / "empty")
    with pytest.raises(ModelError, match="No such file"):
        SafetensorsFile(tmp_path / "missing")


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_file_that_lost_its_end_is_refused(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(ModelError, match="truncated"):
        SafetensorsFile(file)


def test_memory_stays_bounded_while_a_file_is_read_and_let_go(tmp_path: Path, run_python) -> None:
    rows = 30_000
    header = {"w": entry("F32", [rows, 1024], 0, rows * 4096)}
    file = write_raw(tmp_path / "large", header, b"")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size + rows * 4096)
    program = f"""
from pathlib import Path
from edgetune.models.safetensors_file import SafetensorsFile
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
opened = SafetensorsFile(Path({str(file)!r}))
opened.rows("w", 0, 10).sum()
before = resident()
most = 0
for start in range(0, {rows}, 500):
    opened.rows("w", start, start + 500).sum()
    most = max(most, resident() - before)
    opened.release("w", start, start + 500)
print(most)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    assert int(run_python(program)) < 0.15 * rows * 4096
