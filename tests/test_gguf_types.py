"""Every tensor gets the type that llama.cpp itself would give it, asked of llama.cpp without any weights."""

from __future__ import annotations

from collections import defaultdict

import pytest
from gguf import GGMLQuantizationType

from edgetune.errors import ModelError, UsageError
from edgetune.gguf.architectures.plan import OutputTensor
from edgetune.gguf.presets import find_preset
from edgetune.gguf.tensor_types import parse_override, plain_types, quantized_types


class Shape:
    """A published model: what decides about types."""

    def __init__(self, family: str, layers: int, width: int, inner: int, heads: int, kv_heads: int, head: int) -> None:
        self.family, self.layers = family, layers
        self.settings = (width, inner, heads, kv_heads, head)
        self.plan = [OutputTensor("token_embd.weight", (32000, width)), OutputTensor("output.weight", (32000, width))]
        self.plan.append(OutputTensor("output_norm.weight", (width,)))
        matrices = {
            "attn_q": (heads * head, width),
            "attn_k": (kv_heads * head, width),
            "attn_v": (kv_heads * head, width),
            "attn_output": (width, heads * head),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }
        for layer in range(layers):
            self.plan += [OutputTensor(f"blk.{layer}.{name}.weight", shape) for name, shape in matrices.items()]

    def describe(self, writer) -> None:
        width, inner, heads, kv_heads, head = self.settings
        writer.add_vocab_size(32000)
        writer.add_context_length(4096)
        writer.add_embedding_length(width)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(inner)
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1e6)

    def types(self, preset: str, **options) -> dict[str, GGMLQuantizationType]:
        before = plain_types(self.plan, GGMLQuantizationType.BF16)
        return quantized_types(self.plan, self.describe, self.family, find_preset(preset), before, **options)


QWEN3_600M = Shape("qwen3", 28, 1024, 3072, 16, 8, 128)
QWEN3_14B = Shape("qwen3", 40, 5120, 17408, 40, 8, 128)
LLAMA_70B = Shape("llama", 80, 8192, 28672, 64, 8, 128)
ALL = "all layers"

# From llama.cpp's own tests/snapshots/*.schema: what differs from the preset's default type, by tensor and layer.
PUBLISHED = [
    (
        QWEN3_600M,
        "q4_k_m",
        {
            ("attn_v", "Q6_K"): [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27],
            ("ffn_down", "Q6_K"): [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27],
        },
    ),
    (QWEN3_600M, "q4_k_s", {("attn_v", "Q5_K"): [0, 1, 2, 3], ("ffn_down", "Q5_K"): [0, 1, 2]}),
    (
        QWEN3_600M,
        "q3_k_m",
        {
            ("attn_v", "Q5_K"): [0, 1],
            ("attn_v", "Q4_K"): list(range(2, 28)),
            ("ffn_down", "Q5_K"): [0],
            ("ffn_down", "Q4_K"): list(range(1, 28)),
            ("attn_output", "Q4_K"): ALL,
        },
    ),
    (QWEN3_600M, "q2_k", {("attn_v", "Q3_K"): ALL, ("ffn_down", "Q3_K"): ALL, ("attn_output", "Q3_K"): ALL}),
    (QWEN3_14B, "q2_k", {("attn_v", "Q4_K"): ALL, ("ffn_down", "Q3_K"): ALL, ("attn_output", "Q3_K"): ALL}),
    (
        QWEN3_14B,
        "q5_k_m",
        {
            ("attn_v", "Q6_K"): [0, 1, 2, 3, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 35, 36, 37, 38, 39],
            ("ffn_down", "Q6_K"): [0, 1, 2, 3, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 35, 36, 37, 38, 39],
        },
    ),
    (LLAMA_70B, "q4_k_s", {("attn_v", "Q5_K"): ALL, ("ffn_down", "Q5_K"): list(range(10))}),
]


@pytest.mark.parametrize(
    ("shape", "preset", "published"), PUBLISHED, ids=[f"{s.family}-{s.layers}-{p}" for s, p, _ in PUBLISHED]
)
def test_types_are_those_that_llama_cpp_publishes_for_real_models(shape: Shape, preset: str, published: dict) -> None:
    types = shape.types(preset)
    default = GGMLQuantizationType[preset.upper().removesuffix("_M").removesuffix("_S")]
    found = defaultdict(list)
    for name, kind in types.items():
        if name.startswith("blk.") and kind is not default:
            _, layer, tensor, _ = name.split(".")
            found[tensor, kind.name].append(int(layer))
    expected = {key: list(range(shape.layers)) if layers == ALL else layers for key, layers in published.items()}
    assert {key: sorted(layers) for key, layers in found.items()} == expected
    assert types["output.weight"] is GGMLQuantizationType.Q6_K
    assert types["output_norm.weight"] is GGMLQuantizationType.F32


def test_tied_embeddings_take_the_type_of_the_output_layer() -> None:
    untied = QWEN3_600M.types("q4_k_m")["token_embd.weight"]
    shape = Shape("qwen3", 28, 1024, 3072, 16, 8, 128)
    shape.plan = [tensor for tensor in shape.plan if tensor.name != "output.weight"]
    assert untied is GGMLQuantizationType.Q4_K
    assert shape.types("q4_k_m")["token_embd.weight"] is GGMLQuantizationType.Q6_K


@pytest.mark.parametrize(
    ("preset", "fallback"), [("q4_k_s", "Q5_0"), ("q5_k_s", "Q5_1"), ("q6_k", "Q8_0"), ("q3_k_s", "Q4_0")]
)
def test_rows_that_no_superblock_fits_fall_back_to_small_blocks(preset: str, fallback: str) -> None:
    shape = Shape("llama", 2, 576, 1536, 9, 3, 64)
    assert shape.types(preset)["blk.1.attn_q.weight"].name == fallback


def test_an_importance_matrix_changes_what_llama_cpp_decides() -> None:
    assert QWEN3_600M.types("q4_0")["blk.0.ffn_down.weight"].name == "Q4_0"
    assert QWEN3_600M.types("q4_0", importance=True)["blk.0.ffn_down.weight"].name == "Q4_1"


def test_the_first_override_that_matches_a_name_decides() -> None:
    overrides = [parse_override(r"blk\.0\.attn=q8_0"), parse_override("attn_v=Q5_K")]
    types = QWEN3_600M.types("q4_k_m", overrides=overrides)
    assert types["blk.0.attn_v.weight"].name == "Q8_0"
    assert types["blk.1.attn_v.weight"].name == "Q5_K"
    assert types["blk.1.attn_q.weight"].name == "Q4_K"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("attn_v", "PATTERN=TYPE"),
        ("=q8_0", "PATTERN=TYPE"),
        ("attn_v=q9_k", "did you mean q"),
        ("attn_(=q8_0", "not a regular expression"),
    ],
)
def test_an_override_that_cannot_be_meant_is_explained(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_override(text)


def test_hyperparameters_that_llama_cpp_misses_are_named_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape("llama", 2, 256, 512, 4, 2, 64)
    monkeypatch.setattr(shape, "describe", lambda writer: writer.add_vocab_size(1))
    with pytest.raises(ModelError, match=r"llama\.context_length"):
        shape.types("q4_k_m")
