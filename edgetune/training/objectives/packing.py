"""Tokenized examples -> one batch, laid out so that no work is spent on padding or on a prompt that all examples share.

In training by prompt and completion every example repeats the same instruction, and padding fills the rest up. Under
causal attention the hidden states of a shared beginning are the same in every example, so it is computed once, and the
examples' own tokens stand behind it in one row:

    shared prompt | rest of example 1 | rest of example 2 | …

Each token keeps its position in its own example and attends to the shared prompt and to its own example only. Loss and
gradients are those of the padded batch; what is saved is time.

To compare several answers to one prompt, an example branches: behind its own tokens stand the answers, each of which
attends to what is before all of them and to itself.
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
"""How many rows attention may compute for each one that counts, before examples are divided up by length."""


@dataclass(frozen=True)
class Layout:
    """Where the examples stand in a packed row: `shared` tokens first, then `own[i]` tokens of each example i.

    With `branches`, the own tokens of example i are `branches[i][0]` that its answers share, then those of each answer.
    """

    shared: int
    own: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...] = ()


class LanguageBatch(Batch):
    """What the loss of a language model reads. b is 1 in a packed batch, and t the tokens of a row.

    `labels` (b, t) holds the id that each position must predict, -100 where unsupervised.
    """

    input_ids: Tensor  # (b, t)
    position_ids: Tensor  # (b, t), of each token in its own example
    weights: Tensor | None  # (supervised,), of the supervised tokens row by row; None where each counts once
    layout: Layout | None  # None where rows are padded instead


def pad_batch(examples: Sequence[TokenizedExample], pad_token_id: int) -> LanguageBatch:
    """One example a row, padded on the right. No mask is needed: causal attention sees nothing of what is behind it."""
    input_ids = pad_rows([example.input_ids for example in examples], pad_token_id)
    positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
    labels = pad_rows([[*example.labels[1:], UNSUPERVISED] for example in examples], UNSUPERVISED)
    return _batch(examples, input_ids, positions, labels, layout=None)


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
    layout = Layout(shared, tuple(len(example.input_ids) - shared for example in examples))
    return _batch(examples, torch.tensor([input_ids]), torch.tensor([positions]), torch.tensor([labels]), layout)


def pack_answers(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]) -> LanguageBatch:
    """Prompts (ids) in one row, each with all its answers (ids) behind it: `answers[i]` are those to `prompts[i]`.

    What all prompts share at the beginning is there once, and so is each prompt. Every token of an answer is
    supervised, in the order of prompts and answers.
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
            # The last token of the prompt predicts the first of each answer, so that each answer needs its own.
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
    # The first token of an example has nothing before it to be predicted from.
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
    """False when a backend has replaced the layers of `model` by its own, which know nothing of a layout."""
    return type(model.base_model).forward.__module__.startswith("transformers.")


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let `model` compute attention by the layout that comes with each batch."""
    from transformers import AttentionInterface

    # Compiled, it would be compiled anew for each layout, and no two batches have the same.
    AttentionInterface.register(ATTENTION, torch.compiler.disable(packed_attention))
    model.set_attn_implementation(ATTENTION)


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """While this is open, a model that reads packed rows reads padded ones with their mask, as generating needs."""
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
    are attended to as a padded batch behind the shared keys, because one call is quicker than one per example.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": True})[0]
        return attended

    if layout is None or (len(layout.own) == 1 and not layout.branches):
        return attend(query, key, value, None), None
    shared = layout.shared
    groups = _groups(layout, query.device)
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
    """Examples that are attended to in one call, from the packed row to a padded batch and back.

    gather (examples, longest) holds places in the row; scatter (own tokens,) places in the flattened padded batch;
    mask (examples, 1, longest, shared + longest) is true where attention may look.
    """

    gather: Tensor
    scatter: Tensor
    mask: Tensor


@lru_cache(maxsize=1)
def _groups(layout: Layout, device: torch.device) -> tuple[_Group, ...]:
    """Made once for all layers of a model: a GPU would have to be waited for in each."""
    return tuple(_group(layout, members, device) for members in divide(layout.own))


def divide(lengths: Sequence[int]) -> list[list[int]]:
    """Examples of about the same length together; all in one where that wastes little, because one call is quicker."""
    if len(lengths) * max(lengths) <= WASTE * sum(lengths):
        return [list(range(len(lengths)))]
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not groups or WASTE * lengths[number] < lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(number)
    return groups


def _group(layout: Layout, members: Sequence[int], device: torch.device) -> _Group:
    all_lengths = torch.tensor(layout.own, device=device)
    chosen = torch.tensor(members, device=device)
    lengths = all_lengths[chosen]
    longest = int(lengths.max())
    steps = torch.arange(longest, device=device)
    real = steps < lengths[:, None]
    starts = (layout.shared + all_lengths.cumsum(0) - all_lengths)[chosen]
    gather = (starts[:, None] + steps).where(real, starts[:, None])
    causal = (steps[:, None] >= steps).expand(len(members), -1, -1)
    if layout.branches:
        branch = _branch_numbers([layout.branches[member] for member in members], longest, device)
        causal = causal & ((branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :]))
    mask = pad(causal, (layout.shared, 0), value=True).unsqueeze(1)
    return _Group(gather, real.flatten().nonzero().squeeze(1), mask)


def _branch_numbers(branches: Sequence[tuple[int, ...]], longest: int, device: torch.device) -> Tensor:
    """Of each token of each example (examples, longest) the number of its answer; 0 for what is before the answers."""
    rows = [[number for number, length in enumerate(lengths) for _ in range(length)] for lengths in branches]
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


def _shared_prompt_length(examples: Sequence[TokenizedExample]) -> int:
    """Tokens at the beginning that all examples share, up to before the one that predicts a supervised token."""
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
