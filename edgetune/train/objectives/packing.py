"""Tokenized examples -> one batch, laid out so that no work is spent on padding or on a prompt that all examples share.

In training by prompt and completion every example repeats the same instruction, and padding fills the rest up. Under
causal attention the hidden states of a shared beginning are the same in every example, so it is computed once, and the
examples' own tokens stand behind it in one row:

    shared prompt | rest of example 1 | rest of example 2 | …

Each token keeps its position in its own example and attends to the shared prompt and to its own example only. Loss and
gradients are those of the padded batch; what is saved is time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgetune.data.collate import collate
from edgetune.data.tokenize import UNSUPERVISED, TokenizedExample
from edgetune.train.objectives.objective import Batch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

PACKABLE_FAMILIES = frozenset({"granite", "llama", "mistral", "qwen2", "qwen3"})
"""Model types whose attention is proven here to be plain causal attention behind Transformers' attention interface."""

ATTENTION = "edgetune_packed"


@dataclass(frozen=True)
class Layout:
    """Where the examples stand in a packed row: `shared` tokens first, then `own[i]` tokens of each example i."""

    shared: int
    own: tuple[int, ...]


class LanguageBatch(Batch):
    """What the loss of a language model reads. b is 1 in a packed batch, and t the tokens of a row.

    `labels` (b, t) holds the id that each position must predict, -100 where unsupervised.
    """

    input_ids: Tensor  # (b, t)
    position_ids: Tensor  # (b, t), of each token in its own example
    layout: Layout | None  # None where rows are padded instead


def pad_batch(examples: Sequence[TokenizedExample], pad_token_id: int) -> LanguageBatch:
    """One example a row, padded on the right. No mask is needed: causal attention sees nothing of what is behind it."""
    padded = collate(examples, pad_token_id)
    input_ids = padded["input_ids"]
    labels = pad(padded["labels"][:, 1:], (0, 1), value=UNSUPERVISED)
    positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    return LanguageBatch(
        input_ids=input_ids,
        position_ids=positions,
        labels=labels,
        layout=None,
        tokens=_tokens(examples),
        supervised=_supervised(labels),
        weight=float(_supervised(labels)),
    )


def pack_batch(examples: Sequence[TokenizedExample], *, share_prompt: bool) -> LanguageBatch:
    """All examples in one row, what they share at the beginning only once (with `share_prompt`)."""
    shared = _shared_prompt_length(examples) if share_prompt else 0
    first = examples[0].input_ids[:shared]
    input_ids, positions, labels = [*first], [*range(shared)], [UNSUPERVISED] * shared
    for example in examples:
        length = len(example.input_ids)
        input_ids += example.input_ids[shared:]
        positions += range(shared, length)
        labels += [*example.labels[shared + 1 :], UNSUPERVISED]
    targets = torch.tensor([labels])
    return LanguageBatch(
        input_ids=torch.tensor([input_ids]),
        position_ids=torch.tensor([positions]),
        labels=targets,
        layout=Layout(shared, tuple(len(example.input_ids) - shared for example in examples)),
        tokens=_tokens(examples),
        supervised=_supervised(targets),
        weight=float(_supervised(targets)),
    )


def _tokens(examples: Sequence[TokenizedExample]) -> int:
    return sum(len(example.input_ids) for example in examples)


def _supervised(labels: Tensor) -> int:
    return int((labels != UNSUPERVISED).sum())


def can_pack(config: PretrainedConfig) -> bool:
    """True when every layer of the model attends to all earlier tokens and to nothing else."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    return config.model_type in PACKABLE_FAMILIES and set(layers) == {"full_attention"} and _no_window(config)


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let `model` compute attention by the layout that comes with each batch."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    model.set_attn_implementation(ATTENTION)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each example of a packed row, by Transformers' scaled dot-product attention.

    query (1, heads, t, d), key and value (1, key-value heads, t, d); returns (1, t, heads, d). The examples' own tokens
    are attended to as a padded batch behind the shared keys, because one call is quicker than one per example.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": True})[0]
        return attended

    if layout is None or len(layout.own) == 1:
        return attend(query, key, value, None), None
    shared, gather, scatter, mask = _indices(layout, query.device)
    own = attend(
        query[0][:, gather].transpose(0, 1),
        _behind_shared(key[0], shared, gather),
        _behind_shared(value[0], shared, gather),
        mask,
    )
    own = own.flatten(0, 1)[scatter].unsqueeze(0)
    if shared == 0:
        return own, None
    front = attend(query[:, :, :shared], key[:, :, :shared], value[:, :, :shared], None)
    return torch.cat([front, own], dim=1), None


def _behind_shared(states: Tensor, shared: int, gather: Tensor) -> Tensor:
    """States (h, t, d) as (examples, h, shared + longest, d): the shared ones, then each example's own."""
    own = states[:, gather].transpose(0, 1)
    front = states[:, :shared].unsqueeze(0).expand(len(own), -1, -1, -1)
    return torch.cat([front, own], dim=2)


def _indices(layout: Layout, device: torch.device) -> tuple[int, Tensor, Tensor, Tensor]:
    """From a packed row to a padded batch and back.

    Returns the number of shared tokens; gather (examples, longest), places in the row; scatter (own tokens,), places in
    the flattened padded batch; mask (examples, 1, longest, shared + longest), true where attention may look.
    """
    lengths = torch.tensor(layout.own, device=device)
    longest = int(lengths.max())
    steps = torch.arange(longest, device=device)
    real = steps < lengths[:, None]
    starts = layout.shared + lengths.cumsum(0) - lengths
    gather = (starts[:, None] + steps).where(real, starts[:, None])
    scatter = real.flatten().nonzero().squeeze(1)
    causal = steps[:, None] >= steps
    mask = pad(causal, (layout.shared, 0), value=True).expand(len(layout.own), 1, longest, -1)
    return layout.shared, gather, scatter, mask


def _shared_prompt_length(examples: Sequence[TokenizedExample]) -> int:
    """Tokens at the beginning that all examples share, up to before the one that predicts a supervised token."""
    if len(examples) == 1:
        return 0
    first = examples[0]
    longest = min(_unsupervised_length(example) for example in examples) - 1
    for place in range(longest):
        if any(example.input_ids[place] != first.input_ids[place] for example in examples):
            return place
    return max(longest, 0)


def _unsupervised_length(example: TokenizedExample) -> int:
    return next((n for n, label in enumerate(example.labels) if label != UNSUPERVISED), len(example.labels))


def _no_window(config: PretrainedConfig) -> bool:
    window = getattr(config, "sliding_window", None)
    return window is None or not getattr(config, "use_sliding_window", True)
