"""The `method` section of a recipe: one class per method, selected by `type`. Fields have PEFT's meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from edgetune.recipe.section import Section

Targets = list[str] | Literal["all-linear"] | None

_TARGETS = "Module names, or all-linear. Default: the usual modules of the base's family."


class Lora(Section):
    """Low-rank adaptation, https://arxiv.org/abs/2106.09685. On an nf4 base: QLoRA, https://arxiv.org/abs/2305.14314."""

    type: Literal["lora"]
    rank: int = Field(16, ge=1, description="Rank r of the update B·A.")
    alpha: float = Field(32, gt=0, description="The update is scaled by alpha / rank (alpha / √rank with rslora).")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Targets = Field(None, description=_TARGETS)
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Biases that are also trained.")
    rslora: bool = Field(False, description="Scale by alpha / √rank, https://arxiv.org/abs/2312.03732.")
    dora: bool = Field(False, description="Weight-decomposed LoRA, https://arxiv.org/abs/2402.09353.")
    init: Literal["default", "gaussian", "pissa", "loftq", "eva", "olora"] = Field(
        "default", description="Initialization of A and B: PiSSA, LoftQ (nf4 bases), EVA (reads training data), OLoRA."
    )
    rank_pattern: dict[str, int] = Field({}, description="Module name or regular expression -> rank.")
    alpha_pattern: dict[str, float] = Field({}, description="Module name or regular expression -> alpha.")


class AdaLora(Section):
    """LoRA that reduces the ranks of the least important updates, https://arxiv.org/abs/2303.10512."""

    type: Literal["adalora"]
    init_rank: int = Field(12, ge=1, description="Rank of every update at the beginning.")
    target_rank: int = Field(8, ge=1, description="Mean rank at the end.")
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Targets = Field(None, description=_TARGETS)
    tinit: int | None = Field(None, ge=0, description="Updates before the first cut. Default: a tenth of all.")
    tfinal: int | None = Field(None, ge=0, description="Updates after the last cut. Default: three tenths of all.")
    delta_t: int = Field(1, ge=1, description="Updates between two cuts (ΔT).")
    orth_reg_weight: float = Field(0.5, gt=0, description="Weight of the orthogonality term in the loss.")

    @model_validator(mode="after")
    def _ranks_are_cut(self) -> AdaLora:
        if self.target_rank >= self.init_rank:
            raise ValueError(f"target_rank must be below init_rank, which is {self.init_rank}")
        return self


class Ia3(Section):
    """Learned rescaling of activations, https://arxiv.org/abs/2205.05638."""

    type: Literal["ia3"]
    targets: list[str] | None = Field(
        None, min_length=1, description="Modules that get a scaling vector. Default: the usual ones of the family."
    )
    feedforward: list[str] | None = Field(None, description="Targets whose input is scaled instead of their output.")

    @model_validator(mode="after")
    def _feedforward_is_targeted(self) -> Ia3:
        strangers = sorted(set(self.feedforward or ()) - set(self.targets or self.feedforward or ()))
        if strangers:
            raise ValueError(f"feedforward names {', '.join(strangers)}, but targets does not")
        return self


class LoHa(Section):
    """Low-rank Hadamard product, https://arxiv.org/abs/2108.06098."""

    type: Literal["loha"]
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, gt=0)
    rank_dropout: float = Field(0.0, ge=0, lt=1)
    module_dropout: float = Field(0.0, ge=0, lt=1)
    targets: Targets = Field(None, description=_TARGETS)


class LoKr(Section):
    """Low-rank Kronecker product, https://arxiv.org/abs/2309.14859."""

    type: Literal["lokr"]
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, gt=0)
    rank_dropout: float = Field(0.0, ge=0, lt=1)
    module_dropout: float = Field(0.0, ge=0, lt=1)
    decompose_both: bool = Field(False, description="Factorize the left matrix of the product too.")
    decompose_factor: int = Field(-1, description="Size of the left matrix; -1 is as square as possible.")
    targets: Targets = Field(None, description=_TARGETS)


class HiRA(Section):
    """High-rank update: the weight times a low-rank matrix, element by element, https://openreview.net/forum?id=TwJrTz9cRS."""

    type: Literal["hira"]
    rank: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Targets = Field(None, description=_TARGETS)


class SHiRA(Section):
    """Sparse adaptation: as many single weights as a LoRA of that rank has, https://arxiv.org/abs/2406.13175."""

    type: Literal["shira"]
    rank: int = Field(32, ge=1, description="r·(in + out) weights of each module are trained.")
    mask_seed: int = Field(0, ge=0, description="Seed that draws the weights.")
    targets: Targets = Field(None, description=_TARGETS)


class Oft(Section):
    """Orthogonal finetuning, https://arxiv.org/abs/2306.07280, with the Cayley-Neumann form of its second version."""

    type: Literal["oft"]
    block_size: int = Field(32, ge=2, description="Size of the orthogonal blocks.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the modules that are skipped in a step.")
    coft: bool = Field(False, description="Constrained OFT: stay near the identity.")
    block_share: bool = Field(False, description="One block for the whole module.")
    targets: Targets = Field(None, description=_TARGETS)


class Vera(Section):
    """Shared random matrices and two trained vectors per module, https://arxiv.org/abs/2310.11454."""

    type: Literal["vera"]
    rank: int = Field(256, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    d_initial: float = Field(0.1, description="Initial value of the vector d.")
    projection_seed: int = Field(0, ge=0, description="Seed that draws the shared matrices.")
    targets: Targets = Field(None, description=_TARGETS)


class PrefixTuning(Section):
    """Trained keys and values before every layer's own, https://arxiv.org/abs/2101.00190."""

    type: Literal["prefix"]
    virtual_tokens: int = Field(20, ge=1)
    projection: bool = Field(False, description="Compute them with a small network in training.")
    hidden_size: int | None = Field(
        None, ge=1, description="Width of that network. Default: the width of the model's keys."
    )

    @model_validator(mode="after")
    def _width_of_a_network(self) -> PrefixTuning:
        if self.hidden_size is not None and not self.projection:
            raise ValueError("hidden_size is the width of the projection network; set projection to true")
        return self


class PromptTuning(Section):
    """Trained embeddings before the text's own, https://arxiv.org/abs/2104.08691."""

    type: Literal["prompt"]
    virtual_tokens: int = Field(20, ge=1)
    init_text: str | None = Field(None, description="Initialize with the embeddings of this text.")


class PTuning(Section):
    """Trained embeddings made by a small network, https://arxiv.org/abs/2103.10385."""

    type: Literal["p-tuning"]
    virtual_tokens: int = Field(20, ge=1)
    hidden_size: int = Field(128, ge=1, description="Width of the network.")
    layers: int = Field(2, ge=1, description="Layers of an LSTM; an mlp has 2 and an output layer.")
    network: Literal["mlp", "lstm"] = "mlp"
    dropout: float = Field(0.0, ge=0, lt=1, description="Between the layers of an LSTM.")

    @model_validator(mode="after")
    def _for_an_lstm(self) -> PTuning:
        if self.network == "mlp" and (self.layers != 2 or self.dropout):
            raise ValueError("layers and dropout belong to network lstm")
        return self


class Full(Section):
    """Every weight is trained; the run directory then holds a whole model instead of an adapter."""

    type: Literal["full"]


PEFT_METHODS = (
    "adamss", "adaption_prompt", "beft", "boft", "c3a", "cartridge", "deft", "delora", "fourierft", "frod", "glora",
    "gralora", "hra", "lily", "ln_tuning", "miss", "osf", "peanut", "psoft", "pvera", "randlora", "road",
    "supertuning", "tinylora", "trainable_tokens", "unilora", "vblora", "waveft",
)  # fmt: skip
"""PEFT's names of the methods without a section of their own here; their fields are PEFT's.

Left out: poly and multitask_prompt_tuning need each example's task, cpt the type of each token and its own loss, shadow
a loss that exists only inside PEFT, and xlora adapters that are already trained.
"""


class OtherPeft(Section):
    """Any other method of PEFT by its PEFT name; the other keys are the fields of its PEFT configuration."""

    model_config = ConfigDict(extra="allow")

    type: Literal[PEFT_METHODS]  # type: ignore[valid-type]
    targets: Targets = Field(None, description=_TARGETS)

    @property
    def fields(self) -> dict[str, Any]:
        """The recipe's other keys, by PEFT's names."""
        return dict(self.model_extra or {})


OWN_METHODS: tuple[type[Section], ...] = (
    Lora, AdaLora, Ia3, LoHa, LoKr, HiRA, SHiRA, Oft, Vera, PrefixTuning, PromptTuning, PTuning, Full,
)  # fmt: skip


_NO_QUANTIZED_BASE = frozenset(
    {"adamss", "deft", "delora", "frod", "glora", "hra", "osf", "peanut", "psoft", "supertuning", "tinylora", "unilora"}
)

ADDS_TO_THE_INPUT = ("prefix", "prompt", "p-tuning", "adaption_prompt", "cartridge", "lily")
"""Methods that change no weights, so they cannot be merged into the base. Only PEFT runs them."""

WHOLE_WEIGHTS_ONLY: dict[str, frozenset[str]] = {
    "int8": _NO_QUANTIZED_BASE,
    "nf4": _NO_QUANTIZED_BASE | {"loha", "lokr"},
}
"""base.quantize -> methods that PEFT computes wrongly or not at all on such weights; tests compare with dense ones."""

LEAVES_WEIGHTS_ALONE = frozenset({"lora", "adalora", "ia3", "loha", "lokr", "vera", "prefix", "prompt", "p-tuning"})
"""Methods that add to a frozen layer's output and never read its weight in training (LoRA without DoRA)."""


Method = Annotated[
    Lora
    | AdaLora
    | Ia3
    | LoHa
    | LoKr
    | HiRA
    | SHiRA
    | Oft
    | Vera
    | PrefixTuning
    | PromptTuning
    | PTuning
    | Full
    | OtherPeft,
    Field(discriminator="type"),
]
