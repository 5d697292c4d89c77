"""Whatever words an allocation fails with, the user learns what to change and what is kept."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from support.logged import make_recipe

from edgetune.errors import DataError, OutOfMemory
from edgetune.recipe.schema import Recipe
from edgetune.training.out_of_memory import explain_out_of_memory, is_out_of_memory
from edgetune.training.run_directory import COMPLETE, RunDirectory


def failure(recipe: Recipe, run: Path, *, loading: bool = False) -> str:
    with (
        pytest.raises(OutOfMemory) as caught,
        explain_out_of_memory(recipe, RunDirectory(run), loading=loading),
    ):
        torch.empty(2**60)
    assert isinstance(caught.value.__cause__, RuntimeError)
    return str(caught.value)


def test_torch_and_numpy_say_it_in_words_that_are_known():
    for allocate in (lambda: torch.empty(2**60), lambda: np.ones(2**58)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
    ],
)
def test_every_library_has_its_own_words(problem: Exception):
    assert is_out_of_memory(problem)


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("memory"),
    ],
)
def test_other_failures_keep_their_own_words(tmp_path: Path, problem: Exception):
    assert not is_out_of_memory(problem)
    with (
        pytest.raises(type(problem)) as caught,
        explain_out_of_memory(make_recipe(), RunDirectory(tmp_path), loading=False),
    ):
        raise problem
    assert caught.value is problem


def test_what_is_explained_already_stays(tmp_path: Path):
    with (
        pytest.raises(DataError, match="rows"),
        explain_out_of_memory(make_recipe(), RunDirectory(tmp_path), loading=True),
    ):
        raise DataError("rows that are out of memory")


def test_the_most_harmless_change_comes_first(tmp_path: Path):
    said = failure(make_recipe(batch_size=4, accumulate=2, base={"dtype": "float32"}), tmp_path)
    assert said == (
        "logged: memory ran out while training someone/base, before the first checkpoint; "
        "set train.batch_size to 1 and train.accumulate to 8 (the same updates); "
        "set train.gradient_checkpointing to true; "
        "lower data.max_length (now 1024); "
        "set base.quantize to nf4; set base.dtype to bfloat16; use a smaller base.model; "
        "edgetune plan shows the memory of each part"
    )


def test_nothing_is_advised_that_is_done_already_or_cannot_be(tmp_path: Path):
    frugal = failure(make_recipe(base={"quantize": "nf4"}, gradient_checkpointing=True), tmp_path)
    for done in ("batch_size", "gradient_checkpointing", "base.quantize"):
        assert done not in frugal
    assert "gradient_checkpointing" not in failure(make_recipe(method={"type": "prefix"}), tmp_path)
    full = failure(make_recipe(method={"type": "full"}), tmp_path)
    assert "set train.optimizer to paged_adamw_8bit or adafactor" in full
    assert "train an adapter (method lora)" in full
    assert "base.quantize" not in full


def test_loading_is_helped_by_less_of_the_base_alone(tmp_path: Path):
    said = failure(make_recipe(batch_size=8), tmp_path, loading=True)
    assert "memory ran out while loading someone/base; set base.quantize to nf4" in said
    assert "batch_size" not in said


def test_the_last_checkpoint_is_kept_and_named(tmp_path: Path):
    checkpoint = tmp_path / "checkpoints" / "checkpoint-40"
    checkpoint.mkdir(parents=True)
    (checkpoint / COMPLETE).write_text("0", encoding="utf-8")
    said = failure(make_recipe(), tmp_path)
    assert f"{checkpoint} is saved, and --resume continues after step 40 on a machine with more memory" in said
