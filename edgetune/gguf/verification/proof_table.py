"""Renders the contents of a GGUF file and the results of its checks for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgetune.gguf.verification.divergence import Divergence
from edgetune.gguf.verification.inspection import Inspection, LongArray, SpecialToken
from edgetune.gguf.verification.thresholds import CheckedFigure
from edgetune.gguf.verification.verify import Verification

_LONG_TEXT = 100
"""Longer metadata values are cut; --json has them complete."""
_RECIPE = "edgetune.recipe"


def render_verification(checked: Verification, *, against: bool) -> RenderableType:
    """The checks, one line each."""
    blocks = "all blocks" if checked.computed_blocks is None else f"the first {checked.computed_blocks} blocks"
    rows = {
        "opens": f"{checked.tensors} tensors, all that llama.cpp needs",
        "computes": f"{checked.kind}, {blocks}, finite",
    }
    if checked.checksums is not None:
        rows["checksums"] = checksum_line(checked.checksums)
    if against:
        rows["tokens"] = f"{checked.texts} texts have the tokenizer's ids, including BOS and EOS"
    if checked.conversations or checked.refused_conversations:
        same = " to the ids of training" if against else ""
        refused = f", {checked.refused_conversations} refused" if checked.refused_conversations else ""
        rows["template"] = f"{checked.conversations} conversations rendered{same}{refused}"
    return _pairs(rows)


def checksum_line(tensors: int) -> str:
    """The line about a file with unchanged tensors."""
    return f"{tensors} tensors unchanged since export"


def render_divergence(measured: Divergence, findings: Sequence[CheckedFigure]) -> RenderableType:
    """The figures beside their limits."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{measured.tokens:,} tokens")
    table.add_column("", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    table.add_row("perplexity of the model", f"{measured.model_perplexity:.3f}")
    table.add_row("perplexity of the file", f"{measured.file_perplexity:.3f}")
    for finding in findings:
        mark = Text("ok", style="green") if finding.kept else Text("exceeded", style="bold red")
        table.add_row(finding.name, f"{finding.value:.4f}", f"{finding.limit:g}", mark)
    return table


def render_inspection(found: Inspection) -> RenderableType:
    """Facts about the file, its types, its metadata, and last its texts."""
    facts = {
        "file": f"{found.file}, {found.bytes / 1e6:.1f} MB",
        "kind": " ".join(filter(None, [found.kind, found.architecture])),
        "weights": f"{found.weights:,}, {found.bits_per_weight:.2f} bits each",
    }
    for name, said in (("lora", found.lora), ("importance", found.imatrix)):
        if said is not None:
            facts[name] = ", ".join(f"{key} {_short(value)}" for key, value in said.items() if value is not None)
    if found.vocabulary:
        facts["vocabulary"] = ", ".join(f"{key} {_short(value)}" for key, value in found.vocabulary.items())
    if found.special_tokens:
        facts["special"] = ", ".join(f"{role} {_token(token)}" for role, token in found.special_tokens.items())
    if found.lineage:
        facts["lineage"] = ", ".join(
            f"{key.removeprefix('general.')} {_short(value)}" for key, value in found.lineage.items() if key != _RECIPE
        )
    texts = {f"chat template ({name})": template for name, template in found.chat_templates.items()}
    if _RECIPE in found.lineage:
        texts["recipe"] = found.lineage[_RECIPE]
    parts: list[RenderableType] = [_pairs(facts), _types(found), _metadata(found.metadata)]
    for name, text in texts.items():
        parts += [Text(f"\n{name}", style="bold"), Text(text)]
    return Group(*parts)


def _types(found: Inspection) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("type")
    for column in ("tensors", "weights", "MB", "bits/weight"):
        table.add_column(column, justify="right")
    for name, share in found.types.items():
        bits = 8 * share.bytes / share.weights if share.weights else 0.0
        table.add_row(name, str(share.tensors), f"{share.weights:,}", f"{share.bytes / 1e6:.1f}", f"{bits:.2f}")
    return table


def _metadata(groups: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    parts: list[RenderableType] = []
    for group, values in groups.items():
        parts += [Text(group, style="bold"), _pairs({f"  {key}": _short(value) for key, value in values.items()})]
    return Group(*parts)


def _pairs(rows: Mapping[str, str]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        grid.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    return grid


def _short(value: Any) -> str:
    if isinstance(value, LongArray):
        return f"{value.count:,} {value.kind} values: {', '.join(_short(item) for item in value.first)}, …"
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _LONG_TEXT else f"{text[:_LONG_TEXT]}…"


def _token(token: SpecialToken) -> str:
    return f"{token.id} (no such token)" if token.text is None else f"{token.id} {token.text!r}"
