"""Every method on every kind of model: what is trained, how much of it, that it learns, and that it can be kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from support.tiny_adapted import (  # noqa: E402
    INNER,
    KINDS,
    LAYERS,
    SECTIONS,
    WIDTH,
    build,
    classifies,
    inputs,
    logits_of,
    loss_of,
    section,
    train_some,
)

from edgetune.errors import RecipeError  # noqa: E402
from edgetune.models.adapters import add_adapter, save_adapter  # noqa: E402
from edgetune.models.families import auto_class  # noqa: E402
from edgetune.models.load import head_modules  # noqa: E402
from edgetune.planning.shipped import shipped_configurations  # noqa: E402
from edgetune.recipe.methods import OWN_METHODS, PEFT_METHODS, Full  # noqa: E402

REFUSED = {
    ("prefix", "t5 with head"): "only reads token ids",
    ("prompt", "t5 with head"): "only reads token ids",
    ("p-tuning", "t5 with head"): "only reads token ids",
    ("prefix", "distilbert with head"): r"distilbert has none; use prompt or p-tuning",
}
UPDATES = ("loha", "lokr", "hira", "shira", "oft", "vera")
"""Methods that find a model's modules and its head as LoRA does, which is tried on every kind."""

ON_KINDS = {
    **dict.fromkeys(SECTIONS, tuple(kind for kind in KINDS if kind != "roberta with head")),
    **dict.fromkeys(("ia3", "prefix", "prompt"), KINDS),
    **dict.fromkeys(UPDATES, ("llama", "t5 with head", "bert with head")),
}
"""RoBERTa is BERT but for the shape of its head and the way it counts positions."""

PAIRS = [(method, kind) for method in SECTIONS for kind in ON_KINDS[method] if (method, kind) not in REFUSED]

OTHERS: dict[str, dict[str, Any]] = {
    "adamss": {"r": 8},
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 2},
    "c3a": {"block_size": 16},
    "cartridge": {"num_virtual_tokens": 4},
    "fourierft": {"n_frequency": 50},
    "frod": {"progressbar": False},
    "miss": {"r": 8},
    "psoft": {"r": 8},
    "road": {"group_size": 16},
    "trainable_tokens": {"token_indices": [5, 6, 7]},
    "vblora": {"vector_length": 16, "num_vectors": 8},
    "waveft": {"n_frequency": 50},
}


def adapt(kind: str, method: str, *, model: Any = None, **fields: Any) -> Any:
    return add_adapter(
        build(kind) if model is None else model,
        section(method, **{**SECTIONS.get(method, OTHERS.get(method, {})), **fields}),
        base="owner/name",
        classifies=classifies(kind),
        total_steps=100,
        seed=1,
    )


@dataclass(frozen=True)
class Trained:
    """An adapted model after some steps; what it was before them."""

    model: Any
    base_weights: frozenset[int]
    before: dict[str, Any]
    loss_before: float


@cache
def trained(kind: str, method: str) -> Trained:
    base = build(kind)
    base_weights = frozenset(map(id, base.parameters()))
    adapted = adapt(kind, method, model=base)
    before = {name: weight.detach().clone() for name, weight in adapted.named_parameters()}
    with torch.no_grad():
        loss = float(loss_of(adapted.eval(), kind))
    train_some(adapted, kind)
    return Trained(adapted, base_weights, before, loss)


def reloaded(kind: str, folder: Path) -> Any:
    return peft.PeftModel.from_pretrained(build(kind), folder)


def trainable(model: Any) -> dict[str, int]:
    return {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}


def test_every_section_of_the_schema_is_tried_here() -> None:
    types = {kind.model_fields["type"].annotation.__args__[0] for kind in OWN_METHODS if kind is not Full}
    assert types == set(SECTIONS)


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_only_the_adapter_and_a_new_head_are_trained(method: str, kind: str) -> None:
    done, model = trained(kind, method), build(kind, meta=True)
    heads = head_modules(model) if classifies(kind) else []
    head_size = sum(weight.numel() for name in heads for weight in model.get_submodule(name).parameters())
    weights = {name: weight for name, weight in done.model.named_parameters() if weight.requires_grad}
    assert not [name for name, weight in weights.items() if id(weight) in done.base_weights]
    of_heads = {name for name in weights if any(f".{head}." in name for head in heads)}
    assert all(".modules_to_save." in name for name in of_heads)
    assert sum(weights[name].numel() for name in of_heads) == head_size
    assert done.model.get_nb_trainable_parameters()[0] == sum(trainable(done.model).values()) > head_size
    assert done.model.active_peft_config.base_model_name_or_path == "owner/name"


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_some_steps_move_all_that_is_trained_and_nothing_else_and_lower_the_loss(method: str, kind: str) -> None:
    done = trained(kind, method)
    moved = {name for name, weight in done.model.named_parameters() if not torch.equal(weight, done.before[name])}
    assert moved == set(trainable(done.model))
    with torch.no_grad():
        assert float(loss_of(done.model.eval(), kind)) < done.loss_before


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_a_saved_adapter_gives_peft_the_same_logits_again(method: str, kind: str, tmp_path: Path) -> None:
    adapted = trained(kind, method).model
    save_adapter(adapted, tmp_path)
    assert torch.equal(logits_of(reloaded(kind, tmp_path), kind), logits_of(adapted, kind))


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_on_the_meta_device_as_many_parameters_are_counted(method: str, kind: str) -> None:
    counted = adapt(kind, method, model=build(kind, meta=True)).get_nb_trainable_parameters()
    assert counted == trained(kind, method).model.get_nb_trainable_parameters()


@pytest.mark.parametrize(("method", "kind"), REFUSED)
def test_a_model_that_cannot_take_virtual_tokens_is_refused(method: str, kind: str) -> None:
    with pytest.raises(RecipeError, match=REFUSED[method, kind]):
        adapt(kind, method)


LORA_TARGETS = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "t5": {"q", "v"},
    "bert with head": {"query", "value"},
    "roberta with head": {"query", "value"},
    "distilbert with head": {"q_lin", "v_lin"},
}
IA3_TARGETS = {
    "llama": {"k_proj", "v_proj", "down_proj"},
    "t5": {"k", "v", "wo"},
    "bert with head": {"key", "value", "dense"},
    "roberta with head": {"key", "value", "dense"},
    "distilbert with head": {"k_lin", "v_lin", "lin2"},
}


def adapted_modules(model: Any) -> dict[str, Any]:
    """By path in the base: the linear layers that carry an adapter."""
    layers = model.get_base_model().named_modules()
    return {path: layer.get_base_layer() for path, layer in layers if hasattr(layer, "get_base_layer")}


@pytest.mark.parametrize("kind", LORA_TARGETS)
def test_targets_that_the_recipe_leaves_out_are_those_of_the_family(kind: str) -> None:
    for method, expected in (("lora", LORA_TARGETS[kind]), ("ia3", IA3_TARGETS[kind])):
        assert {path.rsplit(".", 1)[-1] for path in adapted_modules(adapt(kind, method))} == expected


def test_ia3_scales_the_input_of_feed_forward_layers_and_the_output_of_the_others() -> None:
    shapes = {
        name.split(".")[-3]: tuple(weight.shape)
        for name, weight in adapt("llama", "ia3").named_parameters()
        if weight.requires_grad
    }
    assert shapes == {"k_proj": (16, 1), "v_proj": (16, 1), "down_proj": (1, INNER)}


def test_ia3_knows_the_feed_forward_layers_among_the_recipes_own_targets() -> None:
    config = adapt("llama", "ia3", targets=["q_proj", "down_proj"]).active_peft_config
    assert (config.target_modules, config.feedforward_modules) == ({"q_proj", "down_proj"}, {"down_proj"})
    assert not adapt("llama", "ia3", targets=["q_proj", "k_proj"]).active_peft_config.feedforward_modules


@pytest.mark.parametrize("method", ["lora", "oft", "loha", "vera", "hra"])
def test_all_linear_leaves_a_classification_head_alone(method: str) -> None:
    for kind in ("distilbert with head", "t5 with head", "roberta with head"):
        paths = adapted_modules(adapt(kind, method, targets="all-linear"))
        heads = head_modules(build(kind))
        assert len(paths) >= 6 * LAYERS
        assert not [path for path in paths if path.split(".")[0] in heads]


def low_rank(model: Any, rank: int) -> int:
    return sum(rank * (layer.in_features + layer.out_features) for layer in adapted_modules(model).values())


def lokr_size(layer: Any, rank: int) -> int:
    """PEFT's own factorization: as square as possible, the smaller factor first; the second is low in rank."""

    def factors(size: int) -> tuple[int, int]:
        small = max(n for n in range(1, int(size**0.5) + 1) if size % n == 0)
        return small, size // small

    (out_small, out_large), (in_small, in_large) = factors(layer.out_features), factors(layer.in_features)
    right = rank * (out_large + in_large) if rank < max(out_large, in_large) / 2 else out_large * in_large
    return out_small * in_small + right


def oft_size(layer: Any, block: int) -> int:
    return layer.in_features // block * block * (block - 1) // 2


def kv_width(kind: str) -> int:
    return 16 if kind.startswith("llama") else WIDTH


def virtual_texts(kind: str) -> int:
    """PEFT gives an encoder-decoder virtual tokens for both its halves."""
    return 2 if kind == "t5" else 1


CLOSED_FORMS: dict[str, Callable[[Any, str], int]] = {
    "lora": lambda model, kind: low_rank(model, 4),
    "adalora": lambda model, kind: low_rank(model, 6) + 6 * len(adapted_modules(model)),
    "loha": lambda model, kind: 2 * low_rank(model, 4),
    "lokr": lambda model, kind: sum(lokr_size(layer, 2) for layer in adapted_modules(model).values()),
    "hira": lambda model, kind: low_rank(model, 4),
    "shira": lambda model, kind: low_rank(model, 2),
    "oft": lambda model, kind: sum(oft_size(layer, 8) for layer in adapted_modules(model).values()),
    "vera": lambda model, kind: sum(4 + layer.out_features for layer in adapted_modules(model).values()),
    "prefix": lambda model, kind: 4 * LAYERS * 2 * kv_width(kind),
    "prompt": lambda model, kind: 4 * virtual_texts(kind) * WIDTH,
    "p-tuning": lambda model, kind: (
        4 * virtual_texts(kind) * WIDTH + (WIDTH * 16 + 16) + (16 * 16 + 16) + (16 * WIDTH + WIDTH)
    ),
    "ia3": lambda model, kind: sum(
        layer.in_features if path.endswith(("down_proj", "wo", "dense", "lin2")) else layer.out_features
        for path, layer in adapted_modules(model).items()
    ),
}


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_as_much_is_trained_as_the_methods_paper_says(method: str, kind: str) -> None:
    adapted = trained(kind, method).model
    of_adapter = sum(size for name, size in trainable(adapted).items() if ".modules_to_save." not in name)
    assert of_adapter == CLOSED_FORMS[method](adapted, kind)


@pytest.mark.parametrize(
    ("base", "method", "fields", "expected"),
    [
        ("llama-3.2-3b", "lora", {"rank": 2, "targets": ["k_proj", "v_proj"]}, 458_752),
        ("llama-3.2-3b", "prefix", {"virtual_tokens": 200}, 11_468_800),
        ("flan-t5-xl", "lora", {"rank": 2, "targets": ["q", "v"]}, 1_179_648),
        ("flan-t5-xl", "lora", {"rank": 2, "alpha": 4}, 1_179_648),
    ],
)
def test_known_numbers_of_real_models(base: str, method: str, fields: dict[str, Any], expected: int) -> None:
    from transformers import CONFIG_MAPPING

    settings = dict(next(shape.settings for shape in shipped_configurations() if shape.name == base))
    config = CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
    with torch.device("meta"):
        model = auto_class(config.model_type, classifies=False).from_config(config)
    assert add_adapter(model, section(method, **fields), base=base).get_nb_trainable_parameters()[0] == expected


@pytest.mark.parametrize("method", PEFT_METHODS)
def test_any_other_method_of_peft_trains_a_llama_and_comes_back(method: str, tmp_path: Path) -> None:
    if method == "adamss":
        pytest.importorskip("sklearn")
    adapted = adapt("llama", method)
    base = {name: weight.detach().clone() for name, weight in adapted.named_parameters() if not weight.requires_grad}
    with torch.no_grad():
        loss = float(loss_of(adapted.eval(), "llama"))
    # PVeRA adds noise while it trains, and the bounds of Uni-LoRA and TinyLoRA are narrow: some more, larger steps.
    train_some(adapted, "llama", steps=10, learning_rate=1e-2)
    with torch.no_grad():
        assert float(loss_of(adapted.eval(), "llama")) < loss
    assert all(torch.equal(weight, base[name]) for name, weight in adapted.named_parameters() if name in base)
    save_adapter(adapted, tmp_path)
    assert torch.equal(logits_of(reloaded("llama", tmp_path), "llama"), logits_of(adapted, "llama"))


def test_the_other_methods_are_all_that_peft_has_but_for_those_that_cannot_train_so() -> None:
    left_out = {"poly", "multitask_prompt_tuning", "cpt", "shadow", "xlora"}
    own = {"lora", "adalora", "ia3", "loha", "lokr", "hira", "shira", "oft", "vera"}
    own |= {"prefix_tuning", "prompt_tuning", "p_tuning"}
    known = {kind.value.lower() for kind in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING}
    assert known == {*PEFT_METHODS} | left_out | own


@pytest.mark.parametrize("kind", ["t5", "bert with head", "distilbert with head"])
@pytest.mark.parametrize("method", ["boft", "fourierft", "ln_tuning", "beft", "osf", "randlora"])
def test_other_methods_find_their_targets_in_every_family(method: str, kind: str) -> None:
    adapted = adapt(kind, method)
    train_some(adapted, kind, steps=1)
    assert adapted.get_nb_trainable_parameters()[0] > 0


@pytest.mark.parametrize(
    ("method", "fields", "says"),
    [
        (
            "boft",
            {"boft_blok_size": 4},
            r"method\.boft_blok_size is no field of boft \(did you mean boft_block_size\?\)",
        ),
        ("boft", {"target_modules": ["q_proj"]}, r"target_modules is no field of boft \(write it as targets\)"),
        ("fourierft", {"inference_mode": True}, r"inference_mode is no field of fourierft"),
        ("fourierft", {"task_type": "SEQ_CLS"}, r"task_type is no field"),
        ("fourierft", {"base_model_name_or_path": "x"}, r"base_model_name_or_path is no field"),
        ("c3a", {"block_size": 7}, r"method cannot adapt this model \(.*7"),
        ("fourierft", {"n_frequency": -1}, r"method cannot adapt this model \("),
        ("cartridge", {"num_virtual_tokens": 64}, r"virtual_tokens is 64, and the model reads at most 64 tokens"),
        ("boft", {"targets": ["q_prj"]}, r"names q_prj, .*its linear modules are .*q_proj"),
        ("cartridge", {"targets": ["q_proj"]}, r"method cartridge has no targets"),
    ],
)
def test_fields_of_other_methods_are_checked_in_one_line(method: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        adapt("llama", method, **fields)
    assert "\n" not in str(caught.value)


def test_a_method_that_cannot_keep_the_head_is_refused_with_one() -> None:
    with pytest.raises(RecipeError, match="adaption_prompt cannot train a classification head"):
        adapt("llama with head", "adaption_prompt")


@pytest.mark.parametrize("method", ["lora", "adalora", "ia3", "loha", "lokr", "hira", "shira", "oft", "vera", "hra"])
def test_a_target_that_is_not_there_is_refused_naming_those_that_are(method: str) -> None:
    with pytest.raises(RecipeError, match=r"names q_prj, which this model does not have; .*down_proj.*q_proj"):
        adapt("llama", method, targets=["q_proj", "q_prj"])


def test_a_head_is_never_a_target() -> None:
    with pytest.raises(RecipeError, match="names classifier, which belongs to the new classification head"):
        adapt("bert with head", "lora", targets=["query", "classifier"])


def test_oft_refuses_a_block_that_does_not_divide_instead_of_changing_it() -> None:
    with pytest.raises(RecipeError, match=r"block_size 12 does not divide the 32 inputs of .*q_proj; take 8"):
        adapt("llama", "oft", block_size=12)


def test_shira_of_too_high_a_rank_is_one_line() -> None:
    with pytest.raises(RecipeError, match="more shira params than the total") as caught:
        adapt("llama", "shira", rank=30)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["prefix", "prompt", "p-tuning"])
def test_more_virtual_tokens_than_the_model_reads_are_refused(method: str) -> None:
    with pytest.raises(RecipeError, match="virtual_tokens is 64, and the model reads at most 64 tokens"):
        adapt("llama", method, virtual_tokens=64)


def test_prompt_tuning_begins_as_a_text_as_peft_begins_it(tmp_path: Path) -> None:
    from support.tiny_tasks import tiny_tokenizer

    tokenizer = tiny_tokenizer("decoder")
    tokenizer.save_pretrained(tmp_path)
    text = "Is this good or bad?"
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=9,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=str(tmp_path),
    )
    expected = peft.get_peft_model(build("llama", vocab_size=len(tokenizer)), config)
    ours = add_adapter(
        build("llama", vocab_size=len(tokenizer)),
        section("prompt", virtual_tokens=9, init_text=text),
        base="x",
        text_ids=lambda text: tokenizer.encode(text, add_special_tokens=False),
    )
    assert torch.equal(logits_of(ours, "llama"), logits_of(expected, "llama"))


def test_a_text_without_tokens_cannot_begin_a_prompt() -> None:
    with pytest.raises(RecipeError, match="init_text has no tokens"):
        add_adapter(build("llama"), section("prompt", init_text=" "), base="x", text_ids=lambda text: [])


def test_a_prefix_fits_heads_of_another_width_than_the_models() -> None:
    adapted = adapt("llama", "prefix", model=build("llama", head_dim=16))
    assert adapted.get_nb_trainable_parameters()[0] == 4 * LAYERS * 2 * 2 * 16
    assert logits_of(adapted, "llama").shape == (*inputs("llama")["input_ids"].shape, 96)


def test_a_saved_head_stands_beside_the_adapter(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_adapter(adapt("t5 with head", "lora"), tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        heads = {key for key in file.keys() if "lora_" not in key}  # noqa: SIM118
    assert heads == {
        f"base_model.model.classification_head.{layer}.{part}"
        for layer in ("dense", "out_proj")
        for part in ("weight", "bias")
    }
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"


def test_the_same_seed_draws_the_same_adapter() -> None:
    one, other, third = (adapt("llama", "lora").state_dict() for _ in range(3))
    assert all(torch.equal(one[name], other[name]) for name in one)
    drawn = add_adapter(build("llama"), section("lora", **SECTIONS["lora"]), base="x", seed=2).state_dict()
    assert any(not torch.equal(third[name], drawn[name]) for name in third)
