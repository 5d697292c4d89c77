"""Whatever a training saves by any method is either folded into the base exactly or refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from support.folding import folded_tensors  # noqa: E402
from support.tiny_adapted import SECTIONS, build, logits_of, section, stir  # noqa: E402

from edgetune.errors import AdapterError  # noqa: E402
from edgetune.models.adapters import add_adapter, save_adapter  # noqa: E402
from edgetune.recipe.methods import PEFT_METHODS  # noqa: E402
from edgetune.weights.source import resolve_source  # noqa: E402

REFUSED = {
    "prefix": "PREFIX_TUNING adds to the input",
    "prompt": "PROMPT_TUNING adds to the input",
    "p-tuning": "P_TUNING adds to the input",
    "cartridge": "CARTRIDGE adds to the input",
    "adaption_prompt": "ADAPTION_PROMPT adds to the input or the computation",
    "lily": "LILY adds to the input or the computation",
    "beft": r"PEFT cannot fold this BEFT adapter .*no bias",
    "ln_tuning": "adapts model.layers.0.input_layernorm, which is neither a linear layer nor an embedding",
}

SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    **{method: (method, fields) for method, fields in SECTIONS.items()},
    **{method: (method, {}) for method in PEFT_METHODS},
    "adamss": ("adamss", {"r": 8}),
    "adaption_prompt": ("adaption_prompt", {"adapter_len": 4, "adapter_layers": 2}),
    "c3a": ("c3a", {"block_size": 16}),
    "cartridge": ("cartridge", {"num_virtual_tokens": 4}),
    "fourierft": ("fourierft", {"n_frequency": 50}),
    "frod": ("frod", {"progressbar": False}),
    "miss": ("miss", {"r": 8}),
    "psoft": ("psoft", {"r": 8}),
    "road": ("road", {"group_size": 16}),
    "trainable_tokens": ("trainable_tokens", {"token_indices": [5, 6, 7]}),
    "vblora": ("vblora", {"vector_length": 16, "num_vectors": 8}),
    "waveft": ("waveft", {"n_frequency": 50}),
    "lora that began as PiSSA": ("lora", {"rank": 4, "init": "pissa"}),
    "DoRA that began as OLoRA": ("lora", {"rank": 4, "init": "olora", "dora": True}),
    "rsLoRA with a rank of its own": ("lora", {"rank": 4, "rslora": True, "rank_pattern": {"q_proj": 2}}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    build("llama").save_pretrained(folder)
    return folder


def saved(name: str, base: Path, folder: Path) -> Any:
    method, fields = SAVED[name]
    if method == "adamss":
        pytest.importorskip("sklearn")
    adapted = add_adapter(build("llama"), section(method, **fields), base=str(base), total_steps=10, seed=1)
    stir(adapted)
    save_adapter(adapted, folder)
    return adapted


@pytest.mark.parametrize("name", [name for name in SAVED if name not in REFUSED])
def test_a_folded_model_has_the_logits_of_the_adapter_on_its_base(name: str, base: Path, tmp_path: Path) -> None:
    adapted = saved(name, base, tmp_path)
    merged = build("llama")
    assert not merged.load_state_dict(dict(folded_tensors(resolve_source(str(tmp_path))))).missing_keys
    expected = logits_of(adapted, "llama")
    assert torch.allclose(logits_of(merged, "llama"), expected, atol=1e-5)
    assert not torch.allclose(logits_of(build("llama"), "llama"), expected, atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_folded_is_refused_by_its_name(name: str, base: Path, tmp_path: Path) -> None:
    saved(name, base, tmp_path)
    with pytest.raises(AdapterError, match=REFUSED[name]):
        list(folded_tensors(resolve_source(str(tmp_path))))
