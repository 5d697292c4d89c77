"""A plan counts what PEFT counts, holds what a training step holds, and says what fits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import tiny_tasks

from edgetune.errors import RecipeError, UsageError
from edgetune.models.families import kind_of
from edgetune.models.load import load_model
from edgetune.models.locate import locate_model
from edgetune.planning import machine
from edgetune.planning.advice import suggest
from edgetune.planning.base import find_base
from edgetune.planning.duration import GPUS, parse_flops
from edgetune.planning.live import LiveBytes
from edgetune.planning.machine import parse_size
from edgetune.planning.memory import optimizer_bytes
from edgetune.planning.planning import plan_training
from edgetune.planning.shipped import shipped_configurations
from edgetune.planning.skeleton import build_skeleton
from edgetune.planning.step import simulate_step, step_of
from edgetune.planning.workload import find_workload
from edgetune.recipe.load import load_recipe
from edgetune.recipe.schema import Base, Recipe

LLAMA, T5 = "meta-llama/Llama-3.2-3B", "google/flan-t5-xl"


@pytest.fixture(autouse=True)
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty process and the speed of the machine are measured in one test each, not in all."""
    monkeypatch.setattr("edgetune.planning.planning.empty_process_bytes", lambda *, quantized: 600_000_000)
    monkeypatch.setattr(machine, "MATMUL_SECONDS", 0.01)


def recipe(base: str | Path, method: dict[str, Any], *, writes: bool = False) -> Recipe:
    """With data that is not here, for a plan of what the recipe allows at most; summaries where it `writes` them."""
    task: dict[str, Any] = {"task": "chat", "data": {"train": [{"source": "owner/set", "format": "messages"}]}}
    if writes or "t5" in str(base):
        source = {"source": "owner/set", "format": "text-summary"}
        task = {"task": "summarize", "data": {"train": [source], "prompt": "summarize: {text}"}}
    return Recipe.model_validate(
        {"name": "planned", "base": {"model": str(base), "dtype": "bfloat16"}, "method": method, **task}
    )


def counts(base: str | Path, method: dict[str, Any], *, writes: bool = False) -> tuple[int, int]:
    planned = recipe(base, method, writes=writes)
    skeleton = build_skeleton(planned, find_base(planned.base), dtype=torch.bfloat16, total_steps=1000)
    return skeleton.trainable_parameters, skeleton.total_parameters


LAYERS, WIDTH, KEYS, FEED = 28, 3072, 8 * 128, 8192
QKVO = [(WIDTH, WIDTH), (WIDTH, KEYS), (WIDTH, KEYS), (WIDTH, WIDTH)]
ALL_LINEAR = [*QKVO, (WIDTH, FEED), (WIDTH, FEED), (FEED, WIDTH)]

CLOSED_FORMS: list[tuple[str, dict[str, Any], int]] = [
    (LLAMA, {"type": "lora", "rank": 2, "targets": ["k_proj", "v_proj"]}, 458_752),
    (LLAMA, {"type": "prefix", "virtual_tokens": 200}, 11_468_800),
    (T5, {"type": "lora", "rank": 2, "targets": ["q", "v"]}, 1_179_648),
    (LLAMA, {"type": "lora", "rank": 16}, LAYERS * 16 * sum(map(sum, ALL_LINEAR))),
    (LLAMA, {"type": "lora", "rank": 2, "targets": ["k_proj"], "dora": True}, LAYERS * (2 * (WIDTH + KEYS) + KEYS)),
    (LLAMA, {"type": "adalora", "init_rank": 12, "targets": ["k_proj"]}, LAYERS * (12 * (WIDTH + KEYS) + 12)),
    (LLAMA, {"type": "ia3"}, LAYERS * (KEYS + KEYS + FEED)),
    (LLAMA, {"type": "loha", "rank": 8, "targets": ["k_proj"]}, LAYERS * 2 * 8 * (WIDTH + KEYS)),
    (LLAMA, {"type": "hira", "rank": 8, "targets": ["k_proj"]}, LAYERS * 8 * (WIDTH + KEYS)),
    (LLAMA, {"type": "vera", "rank": 256, "targets": ["k_proj"]}, LAYERS * (256 + KEYS)),
    (LLAMA, {"type": "oft", "block_size": 32, "targets": ["k_proj"]}, LAYERS * (WIDTH // 32) * (32 * 31 // 2)),
    (LLAMA, {"type": "shira", "rank": 8, "targets": ["k_proj"]}, LAYERS * 8 * (WIDTH + KEYS)),
    (LLAMA, {"type": "prompt", "virtual_tokens": 20}, 20 * WIDTH),
    (LLAMA, {"type": "full"}, 3_212_749_824),
]


@pytest.mark.parametrize(("base", "method", "expected"), CLOSED_FORMS)
def test_trainable_parameters_are_those_of_the_closed_form(base: str, method: dict[str, Any], expected: int):
    assert counts(base, method)[0] == expected


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tasks.save_tiny("LlamaForCausalLM", tmp_path_factory.mktemp("plan") / "llama")


REAL_METHODS: list[dict[str, Any]] = [
    {"type": "lora", "rank": 4, "targets": ["q_proj", "down_proj"]},
    {"type": "adalora"},
    {"type": "ia3"},
    {"type": "loha"},
    {"type": "lokr"},
    {"type": "hira", "rank": 4},
    {"type": "shira", "rank": 2},
    {"type": "oft", "block_size": 8},
    {"type": "vera", "rank": 8},
    {"type": "prefix", "virtual_tokens": 5},
    {"type": "prefix", "virtual_tokens": 5, "projection": True},
    {"type": "prompt", "virtual_tokens": 5},
    {"type": "p-tuning", "virtual_tokens": 5},
    {"type": "p-tuning", "virtual_tokens": 5, "network": "lstm"},
    {"type": "fourierft", "n_frequency": 10},
    {"type": "boft"},
    {"type": "ln_tuning"},
]


@pytest.mark.parametrize("method", REAL_METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_parameters_are_those_that_peft_counts_on_the_real_model(tiny: Path, method: dict[str, Any]):
    from edgetune.models.adapters import add_adapter

    planned = recipe(tiny, method)
    real = load_model(locate_model(str(tiny)), dtype=torch.float32)
    adapted = add_adapter(real, planned.method, base="tiny", total_steps=1000)
    assert counts(tiny, method) == adapted.get_nb_trainable_parameters()


@pytest.mark.parametrize("configuration", shipped_configurations(), ids=lambda shape: shape.name)
def test_a_shipped_configuration_has_the_parameters_that_its_page_states(configuration):
    from transformers import AutoModel

    base = find_base(Base(model=configuration.hub_ids[0]))
    if kind_of(base.config.model_type) == "encoder":
        with torch.device("meta"):
            made = AutoModel.from_config(base.config)
        counted = sum(parameter.numel() for parameter in made.parameters())
    else:
        counted = counts(configuration.hub_ids[0], {"type": "full"})[1]
    assert counted == configuration.parameters


def test_an_output_layer_that_a_checkpoint_holds_apart_counts(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = tiny_tasks.save_tiny("T5ForConditionalGeneration", tmp_path / "t5", tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.randn_like(weights["shared.weight"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    real = load_model(locate_model(str(folder)), dtype=torch.float32)
    assert counts(folder, {"type": "full"}, writes=True)[1] == sum(each.numel() for each in real.parameters())


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tasks.write_rows(tmp_path_factory.mktemp("plan-data") / "rows.jsonl")


def learning(base: Path, rows: Path, method: dict[str, Any], **train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "learning",
            "task": "classify",
            "base": {"model": str(base), "dtype": "float32"},
            "data": {
                "train": [{"source": str(rows), "format": "text-label"}],
                "labels": list(tiny_tasks.LABELS),
                "prompt": tiny_tasks.PROMPT,
                "max_length": 128,
            },
            "method": method,
            "train": {"batch_size": 4, **train},
        }
    )


STEPS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "lora", "rank": 4}, {}),
    ({"type": "lora", "rank": 4}, {"gradient_checkpointing": True}),
    ({"type": "lora", "rank": 4, "dropout": 0.1}, {}),
    ({"type": "ia3"}, {"accumulate": 2}),
    ({"type": "full"}, {}),
]


@pytest.mark.parametrize(("method", "train"), STEPS)
def test_a_step_on_meta_tensors_holds_what_the_same_step_holds_for_real(
    tiny: Path, rows: Path, method: dict[str, Any], train: dict[str, Any]
):
    planned = learning(tiny, rows, method, **train)
    base = find_base(planned.base)
    skeleton = build_skeleton(planned, base, dtype=torch.float32, total_steps=10)
    workload = find_workload(planned, base, skeleton.kind, processes=1)
    predicted = simulate_step(planned, skeleton, workload)

    from edgetune.training.backends.transformers import load_adapted_model
    from edgetune.training.prepare import prepare

    prepared = prepare(planned)
    model = load_adapted_model(planned, prepared, total_steps=10)
    model.train()
    prepared.objective.attach(model)
    if planned.train.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = prepared.objective.collate(workload.largest)
    with LiveBytes() as live:
        prepared.objective.loss(model, batch).backward()
    kept = skeleton.trained_bytes if planned.train.accumulate > 1 else 0
    assert predicted.largest.peak_bytes - kept == pytest.approx(live.peak_bytes, rel=0.05)
    assert predicted.flops == pytest.approx(live.flops, rel=0.02)


@pytest.mark.parametrize("name", ["demo", "llama-3.2-3b-qlora-billsum"])
def test_a_deep_model_is_a_straight_line_through_two_shallow_ones(name: str):
    planned = load_recipe(name)
    base = find_base(planned.base)
    skeleton = build_skeleton(planned, base, dtype=torch.float32, total_steps=10_000)
    workload = find_workload(planned, base, skeleton.kind, processes=1)
    quick, whole = step_of(planned, base, skeleton, workload), simulate_step(planned, skeleton, workload)
    assert quick.largest.peak_bytes == pytest.approx(whole.largest.peak_bytes, rel=0.01)
    assert quick.flops == pytest.approx(whole.flops, rel=0.01)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_optimizer_state_is_that_of_the_real_optimizer(optimizer: str):
    from transformers.optimization import Adafactor

    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((40, 30), (50,))]
    made: Any = {
        "adamw": lambda: torch.optim.AdamW(parameters),
        "adafactor": lambda: Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False),
        "sgd": lambda: torch.optim.SGD(parameters, lr=1e-3),
    }[optimizer]()
    sum((parameter**2).sum() for parameter in parameters).backward()
    made.step()
    tensors = [value for state in made.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    kept = sum(value.numel() * value.element_size() for value in tensors if value.numel() > 1)
    planned = SimpleNamespace(train=SimpleNamespace(optimizer=optimizer))
    assert optimizer_bytes(planned, parameters) == kept  # type: ignore[arg-type]


def test_optimizer_state_of_16_bit_weights_is_kept_in_32():
    from edgetune.training.precise_adamw import PreciseAdamW

    parameter = torch.nn.Parameter(torch.randn(8, 8).bfloat16())
    made = PreciseAdamW([parameter], lr=1e-3)
    (parameter**2).sum().backward()
    made.step()
    kept = sum(value.numel() * 4 for value in made.state[parameter].values() if value.numel() > 1)
    planned = SimpleNamespace(train=SimpleNamespace(optimizer="adamw"))
    assert optimizer_bytes(planned, [parameter]) == kept  # type: ignore[arg-type]


def test_optimizer_state_in_8_bits_takes_a_quarter():
    parameters = [torch.nn.Parameter(torch.zeros(512, 512))]
    eight, plain = (
        optimizer_bytes(SimpleNamespace(train=SimpleNamespace(optimizer=name)), parameters)  # type: ignore[arg-type]
        for name in ("adamw_8bit", "adamw")
    )
    assert plain / eight == pytest.approx(4, rel=0.02)


def test_qlora_of_a_large_model_fits_where_lora_does_not():
    lora, qlora = (
        plan_training(load_recipe(f"llama-3-8b-{kind}-pubmedqa"), device_memory="12GB", flops="t4")
        for kind in ("lora", "qlora")
    )
    assert (lora.fits, qlora.fits) == (False, True)
    assert lora.memory.weights == pytest.approx(16.06e9, rel=0.01)  # 8.03 billion weights in 16 bits
    assert qlora.memory.quantization_constants > 0


def test_what_to_change_is_planned_anew_and_says_its_own_total():
    planned = load_recipe("llama-3-8b-lora-pubmedqa", ["train.gradient_checkpointing=false", "train.batch_size=8"])
    plan = plan_training(planned, device_memory="20GB", flops="t4")
    assert plan.fits is False
    suggestions = suggest(plan)
    assert {name for each in suggestions for name in each.changes} >= {
        "train.batch_size",
        "train.accumulate",
        "train.gradient_checkpointing",
    }
    assert all(each.needed_bytes < plan.needed_bytes for each in suggestions)
    assert any(each.fits for each in suggestions)
    checkpointing = next(each for each in suggestions if [*each.changes] == ["train.gradient_checkpointing"])
    again = plan_training(
        load_recipe("llama-3-8b-lora-pubmedqa", ["train.gradient_checkpointing=true", "train.batch_size=8"]),
        device_memory="20GB",
        flops="t4",
    )
    assert checkpointing.needed_bytes == again.needed_bytes


def test_fsdp_divides_the_weights_over_the_devices_and_ddp_does_not():
    alone, ddp, fsdp = (
        plan_training(
            load_recipe("llama-3-8b-lora-pubmedqa", [f"train.parallel={parallel}"]),
            device_memory="24GB",
            processes=processes,
            flops="a100",
        ).memory.weights
        for parallel, processes in (("ddp", 1), ("ddp", 4), ("fsdp", 4))
    )
    assert ddp == alone
    assert fsdp < alone / 3


def test_the_command_prints_a_table_for_people(edgetune_command):
    done = edgetune_command("plan", "llama-3.2-3b-lora-billsum", "--device-memory", "6GB")
    assert done.exit_code == 0
    assert "458,752 of 3,213,208,576 parameters" in done.stdout
    assert "does not fit" in done.stdout
    assert "base.quantize=nf4" in done.stdout
    assert "give --flops" in done.stdout


def test_the_command_prints_one_document_with_json(edgetune_command):
    done = edgetune_command("plan", "demo", "-s", "train.max_steps=5", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert document["updates"] == 5
    assert document["trainable_parameters"] == 4_884_480
    assert document["fits"] is True
    memory = document["memory_bytes"]
    assert memory["total"] == sum(size for part, size in memory.items() if part != "total")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--device-memory", "much"], "16GB"),
        (["demo", "--processes", "0"], "1 or more"),
        (["demo", "--device-memory", "8GB", "--flops", "quick"], "312T"),
        (["dema"], "demo"),
        (["demo", "-s", "data.train.0.source=nowhere.jsonl"], "nowhere.jsonl"),
        (["demo", "-s", "base.model=owner/unknown"], "owner/unknown"),
    ],
)
def test_bad_input_ends_with_2_and_names_the_way_out(
    edgetune_command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = edgetune_command("plan", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_sizes_and_rates_are_read_as_people_write_them():
    assert [parse_size(text) for text in ("16GB", "24GiB", "1.5g", "8000")] == [16 * 10**9, 24 * 2**30, 1.5e9, 8000]
    assert [parse_flops(text) for text in ("312T", "NVIDIA A100", "2.5e13")] == [312e12, GPUS["a100"], 2.5e13]
    for bad in ("", "0GB", "-3GB", "GB"):
        with pytest.raises(UsageError):
            parse_size(bad)


def test_an_encoder_that_shall_write_is_refused():
    planned = recipe("distilbert/distilbert-base-uncased", {"type": "lora"})
    with pytest.raises(RecipeError, match="encoder"):
        plan_training(planned, device_memory="8GB", flops="t4")


def test_an_empty_process_is_measured_once_and_remembered(monkeypatch: pytest.MonkeyPatch):
    measured_process = machine.empty_process_bytes(quantized=False)
    assert 200e6 < measured_process < 3e9
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("measured again"))
    assert machine.empty_process_bytes(quantized=False) == measured_process
