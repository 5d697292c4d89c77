"""A plan as tables and text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgetune.planning.plan import Plan, Suggestion

_PARTS = {"optimizer": "optimizer state", "loading": "loading in float32"}
"""Parts of Memory whose names differ from those of its fields."""


def render(plan: Plan) -> RenderableType:
    """Parameters, a table of memory, whether it fits, suggestions, disk, time, and assumptions."""
    recipe = plan.recipe
    head = Text.assemble(
        (recipe.name, "bold"),
        f"  {recipe.method.type} on {recipe.base.model}, {plan.dtype}"
        + ("" if recipe.base.quantize == "none" else f", {recipe.base.quantize}"),
        f"\ntrained: {plan.trainable_parameters:,} of {plan.total_parameters:,} parameters "
        f"({plan.trainable_percent:.4f} %)\n",
    )
    parts: list[RenderableType] = [head, _memory(plan), _verdict(plan)]
    if plan.suggestions:
        parts.append(_advice(plan.suggestions))
    parts.append(Text(_rest(plan)))
    return Group(*parts)


def _memory(plan: Plan) -> Table:
    table = Table(title="Memory at its peak, one process", title_justify="left", title_style="bold")
    table.add_column("part")
    table.add_column("bytes", justify="right")
    for field, size in vars(plan.memory).items():
        if size:
            table.add_row(_PARTS.get(field, field.replace("_", " ")), _size(size))
    table.add_section()
    table.add_row("total", _size(plan.memory.total), style="bold")
    return table


def _verdict(plan: Plan) -> Text:
    machine = plan.machine
    each = f" ({plan.processes} processes)" if plan.needed_bytes != plan.memory.total else ""
    if machine.memory_bytes is None:
        return Text(f"needs {_size(plan.needed_bytes)}{each}; the device's memory is {machine.memory_source}\n")
    have = f"{_size(machine.memory_bytes)} ({machine.memory_source})"
    if plan.fits:
        return Text(f"fits: {_size(plan.needed_bytes)}{each} of {have}\n", style="green")
    return Text(f"does not fit: {_size(plan.needed_bytes)}{each} of {have}\n", style="bold red")


def _advice(suggestions: Sequence[Suggestion]) -> Table:
    table = Table(title="What to change", title_justify="left", title_style="bold")
    table.add_column("set")
    table.add_column("needs then", justify="right")
    table.add_column("fits")
    table.add_column("effect")
    for each in suggestions:
        changes = "\n".join(f"-s {name}={_yaml(value)}" for name, value in each.changes.items())
        table.add_row(changes, _size(each.needed_bytes), "yes" if each.fits else "no", each.effect)
    return table


def _rest(plan: Plan) -> str:
    disk, duration = plan.disk, plan.duration
    lines = [
        f"disk: {_size(disk.download)} to download, {_size(disk.checkpoints)} checkpoints, {_size(disk.result)} result"
        + ("" if disk.export is None else f", about {_size(disk.export)} exported as q4_k_m")
    ]
    if duration.seconds_per_update is None:
        lines.append(f"time: unknown; {duration.rests_on}")
    else:
        quick, slow = duration.seconds_per_update
        span = f"{_time(quick)} to {_time(slow)} per update of {plan.recipe.train.accumulate} steps"
        if duration.seconds is not None:
            span = f"{_time(duration.seconds[0])} to {_time(duration.seconds[1])} for {plan.updates:,} updates ({span})"
        lines.append(f"time: {span}; {duration.rests_on}")
    lines += [f"assumed: {each}" for each in plan.assumes]
    return "\n".join(lines)


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "{type: lora}" if isinstance(value, dict) else str(value)


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
