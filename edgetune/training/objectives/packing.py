"""Packs tokenized examples into one row, so that neither padding nor a shared prompt is computed more than once.

In training on prompts and completions, every example repeats the same instruction, and padding fills the rest. Under
causal attention the hidden states of a shared beginning are the same in every example, so it is computed once, and the
examples' own tokens follow it in one row:

    shared prompt | rest of example 1 | rest of example 2 | …

Each token keeps its position in its own example and attends only to the shared prompt and its own example. Loss and
gradients equal those of the padded batch, in less time.

To compare several answers to one prompt, an example branches: the answers follow its own tokens, and each attends to
the tokens before all answers and to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from edgetune.data.tokenize import UNSUPERVISED, TokenizedExample
from edgetune.models.families import find_family
from edgetune.training.objectives.objective import Batch, token_weights
from edgetune.training.objectives.padding import pad_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ATTENTION = "edgetune_packed"

WASTE = 2
"""Examples are divided by length when attention would compute more than so many rows for each real one."""


@dataclass(frozen=True)
class Layout:
    """The places of the examples in a packed row: `shared` tokens first, then `own[i]` tokens of each example i.

    With `branches`, the own tokens of example i are `branches[i][0]` that its answers share, then those of each answer.
    """

    shared: int
    own: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...] = ()


class LanguageBatch(Batch):
    """The batch of a language model. b is 1 in a packed batch, and t is the number of tokens in a row.

    `labels` (b, t) holds the id that each position must predict, -100 where unsupervised.
    """

    input_ids: Tensor  # (b, t)
    position_ids: Tensor  # (b, t), of each token in its own example
    weights: Tensor | None  # (supervised,), of the supervised tokens row by row; None where each counts once
    layout: Layout | None  # None where rows are padded instead


def pad_batch(examples: Sequence[TokenizedExample], pad_token_id: int) -> LanguageBatch:
    """One example per row, padded on the right. Causal attention never sees the padding, so no mask is needed."""
    input_ids = pad_rows([example.input_ids for example in examples], pad_token_id)
    positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    labels = pad_rows([[*example.labels[1:], UNSUPERVISED] for example in examples], UNSUPERVISED)
    return _batch(examples, input_ids, positions, labels, layout=None)


def pack_batch(examples: Sequence[TokenizedExample], *, share_prompt: bool) -> LanguageBatch:
    """All examples in one row; with `share_prompt`, their common beginning only once."""
    shared = _shared_prompt_length(examples) if share_prompt else 0
    first = examples[0].input_ids[:shared]
    input_ids, positions, labels = [*first], [*range(shared)], [UNSUPERVISED] * shared
    for example in examples:
        length = len(example.input_ids)
        input_ids += example.input_ids[shared:]
        positions += range(shared, length)
        labels += [*example.labels[shared + 1 :], UNSUPERVISED]
    layout = Layout(shared, tuple(len(example.input_ids) - shared for example in examples))
    return _batch(examples, torch.tensor([input_ids]), torch.tensor([positions]), torch.tensor([labels]), layout)


def pack_answers(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]) -> LanguageBatch:
    """Prompts (ids) in one row, each followed by its answers (ids): `answers[i]` belong to `prompts[i]`.

    The prompts' common beginning and each prompt appear once. Every token of an answer is supervised, in the order of
    prompts and answers.
    """
    shared = _common_length(prompts, limit=min(map(len, prompts)) - 1)
    input_ids, positions, labels = [*prompts[0][:shared]], [*range(shared)], [UNSUPERVISED] * shared
    branches: list[tuple[int, ...]] = []
    for prompt, choices in zip(prompts, answers, strict=True):
        trunk = prompt[shared:-1]
        input_ids += trunk
        positions += range(shared, len(prompt) - 1)
        labels += [UNSUPERVISED] * len(trunk)
        for answer in choices:
            # The prompt's last token predicts the first of each answer, so each answer needs its own copy.
            input_ids += [prompt[-1], *answer[:-1]]
            positions += range(len(prompt) - 1, len(prompt) - 1 + len(answer))
            labels += answer
        branches.append((len(trunk), *map(len, choices)))
    layout = Layout(shared, tuple(map(sum, branches)), tuple(branches))
    targets = torch.tensor([labels])
    supervised = int((targets != UNSUPERVISED).sum())
    return LanguageBatch(
        input_ids=torch.tensor([input_ids]),
        position_ids=torch.tensor([positions]),
        labels=targets,
        weights=None,
        layout=layout,
        tokens=len(input_ids),
        supervised=supervised,
        weight=float(supervised),
    )


def _batch(
    examples: Sequence[TokenizedExample], input_ids: Tensor, positions: Tensor, labels: Tensor, layout: Layout | None
) -> LanguageBatch:
    # Nothing predicts the first token of an example.
    supervised = [sum(label != UNSUPERVISED for label in example.labels[1:]) for example in examples]
    return LanguageBatch(
        input_ids=input_ids,
        position_ids=positions,
        labels=labels,
        weights=token_weights(examples, supervised),
        layout=layout,
        tokens=sum(len(example.input_ids) for example in examples),
        supervised=sum(supervised),
        weight=sum(example.weight * count for example, count in zip(examples, supervised, strict=True)),
    )


def can_pack(config: PretrainedConfig) -> bool:
    """True when every layer of the model attends to all earlier tokens and to nothing else."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    return find_family(config.model_type).packs and set(layers) == {"full_attention"} and _no_window(config)


def has_transformers_layers(model: PreTrainedModel) -> bool:
    """False when a backend has replaced the layers of `model` by its own, which do not support a layout."""
    return type(model.base_model).forward.__module__.startswith("transformers.")


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let `model` compute attention by the layout that comes with each batch."""
    from transformers import AttentionInterface

    # torch.compile would compile it again for each batch, because each has its own layout.
    AttentionInterface.register(ATTENTION, torch.compiler.disable(packed_attention))
    model.set_attn_implementation(ATTENTION)


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """While this is open, a model with packed attention uses masks and padded rows instead, which generation needs."""
    packs = model.config._attn_implementation == ATTENTION
    if packs:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if packs:
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
    form a padded batch after the shared keys, because one call is faster than one per example.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": True})[0]
        return attended

    if layout is None or (len(layout.own) == 1 and not layout.branches):
        return attend(query, key, value, None), None
    shared = layout.shared
    groups = groups_of(layout, query.device)
    pieces = []
    for group in groups:
        attended = attend(
            query[0][:, group.gather].transpose(0, 1),
            _behind_shared(key[0], shared, group.gather),
            _behind_shared(value[0], shared, group.gather),
            group.mask,
        )
        pieces.append(attended.flatten(0, 1)[group.scatter])
    if len(groups) == 1:
        own = pieces[0].unsqueeze(0)
    else:
        places = torch.cat([group.gather.flatten()[group.scatter] for group in groups])
        own = torch.cat(pieces)[places.argsort()].unsqueeze(0)
    if shared == 0:
        return own, None
    front = attend(query[:, :, :shared], key[:, :, :shared], value[:, :, :shared], None)
    return torch.cat([front, own], dim=1), None


def _behind_shared(states: Tensor, shared: int, gather: Tensor) -> Tensor:
    """States (h, t, d) as (examples, h, shared + longest, d): the shared ones, then each example's own."""
    own = states[:, gather].transpose(0, 1)
    front = states[:, :shared].unsqueeze(0).expand(len(own), -1, -1, -1)
    return torch.cat([front, own], dim=2)


@dataclass(frozen=True)
class _Group:
    """The examples of one attention call, from the packed row to a padded batch and back.

    gather (examples, longest) holds places in the row; scatter (own tokens,) places in the flattened padded batch;
    mask (examples, 1, longest, shared + longest) is true where attention is allowed.
    """

    gather: Tensor
    scatter: Tensor
    mask: Tensor


@lru_cache(maxsize=1)
def groups_of(layout: Layout, device: torch.device) -> tuple[_Group, ...]:
    """Computed once for all layers, and on the CPU: sizes depend on values, which a GPU would have to synchronize for
    and the meta device does not have."""
    return tuple(_group(layout, members, device) for members in _divide(layout.own))


def _divide(lengths: Sequence[int]) -> list[list[int]]:
    """Groups of examples of about the same length; one group where that wastes little, because one call is faster."""
    if len(lengths) * max(lengths) <= WASTE * sum(lengths):
        return [list(range(len(lengths)))]
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not groups or WASTE * lengths[number] < lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(number)
    return groups


def _group(layout: Layout, members: Sequence[int], device: torch.device) -> _Group:
    all_lengths, chosen = torch.tensor(layout.own), torch.tensor(members)
    lengths = all_lengths[chosen]
    longest = int(lengths.max())
    steps = torch.arange(longest)
    real = steps < lengths[:, None]
    starts = (layout.shared + all_lengths.cumsum(0) - all_lengths)[chosen]
    gather = (starts[:, None] + steps).where(real, starts[:, None])
    causal = (steps[:, None] >= steps).expand(len(members), -1, -1)
    if layout.branches:
        branch = _branch_numbers([layout.branches[member] for member in members], longest)
        causal = causal & ((branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :]))
    mask = pad(causal, (layout.shared, 0), value=True).unsqueeze(1)
    return _Group(gather.to(device), real.flatten().nonzero().squeeze(1).to(device), mask.to(device))


def _branch_numbers(branches: Sequence[tuple[int, ...]], longest: int) -> Tensor:
    """The number of each token's answer (examples, longest); 0 before the answers."""
    rows = [[number for number, length in enumerate(lengths) for _ in range(length)] for lengths in branches]
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def _shared_prompt_length(examples: Sequence[TokenizedExample]) -> int:
    """Tokens at the beginning that all examples share, without the one that predicts the first supervised token."""
    if len(examples) == 1:
        return 0
    limit = min(_unsupervised_length(example) for example in examples) - 1
    return _common_length([example.input_ids for example in examples], limit)


def _common_length(sequences: Sequence[Sequence[int]], limit: int) -> int:
    """How many tokens at the beginning all sequences share, `limit` at most."""
    first = sequences[0]
    for place in range(limit):
        if any(sequence[place] != first[place] for sequence in sequences):
            return place
    return max(limit, 0)


def _unsupervised_length(example: TokenizedExample) -> int:
    return next((n for n, label in enumerate(example.labels) if label != UNSUPERVISED), len(example.labels))


def _no_window(config: PretrainedConfig) -> bool:
    window = getattr(config, "sliding_window", None)
    return window is None or not getattr(config, "use_sliding_window", True)
