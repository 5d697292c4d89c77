"""The quantization kernels give ggml's bytes, for every block, in every grouping, from every thread."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.gguf import kernels
from edgetune.gguf.kernels import cache, machine, native, own

OWN = (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q8_0, Kind.Q5_0)
EVERY_KERNEL = pytest.mark.parametrize(("kind", "importance"), [(kind, use) for kind in OWN for use in (False, True)])
MAX = float(np.finfo(np.float32).max)
TINY = float(np.finfo(np.float32).smallest_subnormal)


@pytest.fixture(scope="module", autouse=True)
def _compiled_once() -> None:
    """Every kernel stands in for ggml's here; otherwise the tests would compare ggml with itself."""
    for use in (False, True):
        kernels.prepare(OWN, importance=use)
        assert all(own.find_kernel(kind, importance=use) is not None for kind in OWN)


def reference(kind: Kind, rows: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """ggml_quantize_chunk's bytes."""
    block_length, block_bytes = GGML_QUANT_SIZES[kind]
    out = np.empty((len(rows), rows.shape[1] // block_length * block_bytes), np.uint8)
    library = native.open_ggml()
    weights = None if importance is None else importance.ctypes.data_as(ctypes.c_void_p)
    library.ggml_quantize_chunk(kind, rows.ctypes.data, out.ctypes.data, 0, *rows.shape, weights)
    return out


def same(kind: Kind, rows: np.ndarray, importance: np.ndarray | None = None) -> bool:
    return np.array_equal(kernels.quantize_rows(kind, rows, importance), reference(kind, rows, importance))


def weights_like_a_model(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Normal weights that are bfloat16 numbers, as a checkpoint's are."""
    values = np.random.default_rng(seed).standard_normal((rows, length), np.float32) * np.float32(0.02)
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def importance_for(kind_of_weights: str, length: int) -> np.ndarray:
    random = np.random.default_rng(1)
    return {
        "even": np.ones(length),
        "random": random.random(length),
        "squares": random.standard_normal(length) ** 2,
        "some zero": np.where(random.random(length) < 0.8, 0.0, random.random(length)),
        "zero": np.zeros(length),
        "huge spread": 10.0 ** random.uniform(-38, 38, length),
    }[kind_of_weights].astype(np.float32)


IMPORTANCES = ("even", "random", "squares", "some zero", "zero", "huge spread")


def adversarial_blocks() -> dict[str, np.ndarray]:
    """Super-blocks on which a quantizer can go wrong, 256 weights each."""
    random = np.random.default_rng(2)
    normal = random.standard_normal(256)
    outlier = normal * 1e-3
    outlier[77] = 50.0
    nearly = 1 + random.integers(-3, 4, 256) * 2.0**-23
    blocks = {
        "zeros": np.zeros(256),
        "minus zeros": np.full(256, -0.0),
        "zeros of both signs": random.choice([0.0, -0.0], 256),
        "a constant": np.full(256, 0.37),
        "a negative constant": np.full(256, -0.37),
        "one outlier": outlier,
        "one weight": np.eye(1, 256, 200)[0],
        "denormals": random.integers(-50, 50, 256) * TINY,
        "smallest normal": normal * 1.2e-38,
        "around the smallest scale": normal * 1e-15,
        "float16's smallest numbers": normal * 3e-7,
        "float16's largest numbers": normal * 1e6,
        "huge": normal * 1e30,
        "largest": random.choice([MAX, -MAX], 256),
        "largest once": np.where(np.arange(256) == 3, -MAX, 1.0),
        "all positive": np.abs(normal),
        "all negative": -np.abs(normal),
        "positive, far from zero": 10 + normal * 1e-3,
        "negative, far from zero": -10 + normal * 1e-3,
        "last bits": nearly,
        "last bits, negative": -nearly,
        "equal and opposite": np.where(np.arange(256) % 2, 0.7, -0.7),
        "ties of 4 bits": random.integers(0, 31, 256) / 2 * 0.1,
        "ties of 5 bits": random.integers(-32, 32, 256) / 2 * 0.013,
        "ties of 8 bits": random.integers(-254, 255, 256) / 2,
        "a block of zeros beside others": np.where(np.arange(256) // 32 == 4, 0.0, normal),
        "sub-blocks of very different size": normal * 10.0 ** -(np.arange(256) // 16),
        "one huge sub-block": np.where(np.arange(256) // 16 == 5, 1e20, normal),
        "spread over all exponents": normal * 10.0 ** random.uniform(-44, 37, 256),
    }
    return {name: np.clip(block, -MAX, MAX).astype(np.float32) for name, block in blocks.items()}


@EVERY_KERNEL
def test_kernels_give_ggmls_bytes_for_weights_like_a_models(kind: Kind, importance: bool) -> None:
    rows = weights_like_a_model(64, 4096)
    assert same(kind, rows, importance_for("squares", 4096) if importance else None)


@EVERY_KERNEL
def test_kernels_give_ggmls_bytes_for_adversarial_blocks(kind: Kind, importance: bool) -> None:
    for name, block in adversarial_blocks().items():
        # Alone, where all lanes hold it, and among ordinary weights, which one lane must not disturb.
        among = weights_like_a_model(40, 256)
        among[::7] = block
        for rows in (block[None], among):
            for weights in IMPORTANCES if importance else ("",):
                assert same(kind, rows, importance_for(weights, 256) if importance else None), (name, weights)


BLOCKS = tuple(adversarial_blocks().values())
SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, TINY, -TINY, 1e-15, 1e30, MAX, -MAX])
VALUES = st.one_of(SPECIAL, st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-32, 31).map(float))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Super-blocks of arbitrary values, of few values, of adversarial halves, scaled by any power of two."""
    drawn = [
        np.resize(np.array(draw(st.lists(VALUES, min_size=1, max_size=64)), np.float64), 256)
        if draw(st.booleans())
        else np.concatenate([draw(st.sampled_from(BLOCKS))[:128], draw(st.sampled_from(BLOCKS))[128:]]).astype(float)
        for _ in range(draw(st.integers(1, 5)))
    ]
    scaled = np.stack(drawn) * 2.0 ** draw(st.integers(-60, 60))
    return np.clip(scaled, -MAX, MAX).astype(np.float32)


@EVERY_KERNEL
@settings(max_examples=60, deadline=None)
@given(rows=matrices(), spread=st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=40))
def test_kernels_give_ggmls_bytes_for_any_finite_weights(
    kind: Kind, importance: bool, rows: np.ndarray, spread: list[float]
) -> None:
    assert same(kind, rows, np.resize(np.array(spread, np.float32), 256) if importance else None)


@EVERY_KERNEL
def test_each_row_is_quantized_by_itself(kind: Kind, importance: bool) -> None:
    length = 3 * 256
    rows = weights_like_a_model(100, length)
    weights = importance_for("random", length) if importance else None
    whole = kernels.quantize_rows(kind, rows, weights)
    for step in (1, 3, 10, 11, 43, 99):
        parts = [kernels.quantize_rows(kind, rows[first : first + step], weights) for first in range(0, 100, step)]
        assert np.array_equal(np.concatenate(parts), whole), step


@pytest.mark.parametrize("importance", [False, True])
@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q5_0])
@pytest.mark.parametrize("blocks", [1, 2, 5, 31, 32, 33, 65])
def test_rows_may_have_any_number_of_blocks(kind: Kind, importance: bool, blocks: int) -> None:
    for count in (1, 2, 7, 33):
        rows = weights_like_a_model(count, 32 * blocks)
        assert same(kind, rows, importance_for("random", 32 * blocks) if importance else None)


@EVERY_KERNEL
def test_threads_do_not_disturb_each_other(kind: Kind, importance: bool) -> None:
    parts = [weights_like_a_model(33, 1024, seed) for seed in range(16)]
    weights = importance_for("random", 1024) if importance else None
    alone = [kernels.quantize_rows(kind, part, weights) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda part: kernels.quantize_rows(kind, part, weights), parts))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@EVERY_KERNEL
def test_what_is_not_finite_does_not_end_the_process(kind: Kind, importance: bool) -> None:
    rows = weights_like_a_model(33, 512)
    rows[0], rows[3, 5], rows[4, 300], rows[5] = np.nan, np.inf, -np.inf, -np.inf
    weights = importance_for("random", 512) if importance else None
    bytes_ = kernels.quantize_rows(kind, rows, weights)
    assert np.array_equal(bytes_[6:], reference(kind, rows, weights)[6:])


OTHERS = (Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_1, Kind.Q2_K, Kind.Q3_K, Kind.IQ4_NL, Kind.IQ4_XS)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.name)
def test_other_types_are_ggmls(kind: Kind) -> None:
    rows = weights_like_a_model(5, 512)
    assert same(kind, rows)
    assert same(kind, rows, importance_for("random", 512))


def test_halves_are_rounded_to_even() -> None:
    bits = np.arange(0x3F7F0000, 0x3F820000, 0x1000, dtype=np.uint32)
    rows = np.stack([bits.view(np.float32), -bits.view(np.float32)])
    assert np.array_equal(kernels.quantize_rows(Kind.F16, rows).view(np.float16), rows.astype(np.float16))
    upper = ((rows.view(np.uint32) + 0x7FFF + ((rows.view(np.uint32) >> 16) & 1)) >> 16).astype(np.uint16)
    assert np.array_equal(kernels.quantize_rows(Kind.BF16, rows).view(np.uint16), upper)


def test_f32_rows_are_their_own_bytes() -> None:
    rows = weights_like_a_model(3, 5)
    assert kernels.quantize_rows(Kind.F32, rows).tobytes() == rows.tobytes()


def test_no_rows_give_no_bytes() -> None:
    assert kernels.quantize_rows(Kind.Q4_K, np.empty((0, 256), np.float32)).shape == (0, 144)


@pytest.mark.parametrize(("kind", "length"), [(Kind.Q4_K, 128), (Kind.Q6_K, 300), (Kind.Q8_0, 33), (Kind.Q4_0, 16)])
def test_rows_that_are_no_whole_blocks_are_refused(kind: Kind, length: int) -> None:
    with pytest.raises(ValueError, match=f"rows of {length} cannot be {kind.name}"):
        kernels.quantize_rows(kind, np.zeros((2, length), np.float32))


def test_arrays_of_another_form_are_refused() -> None:
    rows = np.zeros((4, 256), np.float32)
    for wrong in (rows.astype(np.float64), rows[0], rows[::2], rows.T):
        with pytest.raises(ValueError, match="C-contiguous float32 matrix"):
            kernels.quantize_rows(Kind.Q8_0, wrong)
    with pytest.raises(ValueError, match="importance must have shape"):
        kernels.quantize_rows(Kind.Q4_K, rows, np.ones(255, np.float32))
    with pytest.raises(ValueError, match="IQ2_XXS cannot be quantized without importance"):
        kernels.quantize_rows(Kind.IQ2_XXS, rows)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(own, "_found", {})
    return tmp_path


def test_kernels_are_compiled_once(empty_cache: Path) -> None:
    assert kernels.needs_compiling({Kind.Q4_0, Kind.Q8_0}, importance=False)
    kernels.prepare([Kind.Q8_0], importance=False)
    program = """
import sys
from gguf import GGMLQuantizationType as Kind
from edgetune.gguf import kernels
assert not kernels.needs_compiling([Kind.Q8_0], importance=True)
kernels.prepare([Kind.Q8_0], importance=True)
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_types_without_a_kernel_need_no_compiling(empty_cache: Path) -> None:
    assert not kernels.needs_compiling([Kind.F16, Kind.Q4_0, Kind.F32], importance=True)


def test_a_damaged_file_in_the_cache_is_compiled_again(empty_cache: Path) -> None:
    kernels.prepare([Kind.Q8_0], importance=False)
    (file,) = (empty_cache / "kernels").iterdir()
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    own._found.clear()
    assert kernels.needs_compiling([Kind.Q8_0], importance=False)
    assert same(Kind.Q8_0, weights_like_a_model(4, 1024))
    assert cache.cached("q8_0.plain") is not None


def test_kernels_work_where_the_cache_cannot_be_written(empty_cache: Path) -> None:
    (empty_cache / "kernels").write_text("not a folder")
    assert same(Kind.Q8_0, weights_like_a_model(4, 1024))


def test_the_cache_is_not_another_processors(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.prepare([Kind.Q8_0], importance=False)
    monkeypatch.setattr(cache, "processor", lambda: "another")
    cache._identity.cache_clear()
    try:
        assert cache.cached("q8_0.plain") is None
    finally:
        cache._identity.cache_clear()


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q8_0], ids=lambda kind: kind.name)
def test_a_kernel_that_disagrees_with_ggml_is_not_used(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines where ggml's compiler fused multiplications and additions."""

    def other_rounding(kind: Kind, rows: np.ndarray, out: np.ndarray, importance: np.ndarray | None = None) -> None:
        native.ggml_quantize(kind, np.nextafter(rows, np.float32(np.inf)), out, importance)

    monkeypatch.setattr(own, "_found", {})
    monkeypatch.setattr(own, "ggml_quantize", other_rounding)
    assert own.find_kernel(kind, importance=False) is None
    assert same(kind, weights_like_a_model(4, 1024))


def test_a_kernel_runs_on_a_machine_without_wide_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = """
import sys
import llvmlite.binding as llvm
llvm.get_host_cpu_name = lambda: "x86-64"
llvm.get_host_cpu_features = lambda: llvm.FeatureMap()
from gguf import GGMLQuantizationType as Kind
from edgetune.gguf.kernels import machine, own
assert machine.processor() == "x86-64 "
assert own.find_kernel(Kind.Q6_K, importance=False) is not None
"""
    if "avx" not in machine.processor():
        pytest.skip("needs a processor that has more than x86-64")
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path))
    subprocess.run([sys.executable, "-c", program], check=True)
