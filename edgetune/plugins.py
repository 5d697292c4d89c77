"""What other distributions add to edgetune by entry points.

A distribution names its metrics, data formats, judge dialects and GGUF architectures in the groups below
(https://packaging.python.org/specifications/entry-points/). edgetune looks for plugins if a name is not its own, or
when it lists all names, and imports a plugin when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from edgetune.errors import EdgetuneError, MissingComponent

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

METRICS_GROUP = "edgetune.metrics"
DATA_FORMATS_GROUP = "edgetune.data_formats"
JUDGE_DIALECTS_GROUP = "edgetune.judge_dialects"
GGUF_ARCHITECTURES_GROUP = "edgetune.gguf_architectures"

Value = TypeVar("Value")


class Registry(Mapping[str, Value], Generic[Value]):
    """Values by name: edgetune's `own`, then those of the plugins of a group.

    `adopt` turns what a plugin gives under a name into a value, and raises TypeError or ValueError for anything else.
    Reading the mapping raises MissingComponent, naming the distribution, for a plugin that cannot be used.
    """

    def __init__(self, group: str, own: Mapping[str, Value], adopt: Callable[[str, object], Value]) -> None:
        self.group, self.own = group, own
        self._adopt = adopt
        self._adopted: dict[EntryPoint, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name in self.own:
            return self.own[name]
        entry = find_plugins(self.group, self.own)[name]
        if entry not in self._adopted:
            try:
                self._adopted[entry] = self._adopt(name, entry.load())
            except Exception as problem:
                said = problem if isinstance(problem, EdgetuneError) else f"{type(problem).__name__}: {problem}"
                raise MissingComponent(
                    f"the plugin {name} of {_distribution(entry)} cannot be used ({said})",
                    where=self.group,
                    remedy=f"update {_distribution(entry)}, or uninstall it",
                ) from problem
        return self._adopted[entry]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from find_plugins(self.group, self.own)

    def __len__(self) -> int:
        return len(self.own) + len(find_plugins(self.group, self.own))

    def plugin_of(self, name: str) -> str | None:
        """Name and version of the distribution that adds a name; None for edgetune's own."""
        if name in self.own:
            return None
        entry = find_plugins(self.group, self.own)[name]
        return _distribution(entry) if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def find_plugins(group: str, own: Collection[str] = ()) -> dict[str, EntryPoint]:
    """The plugins of a group by name, not imported yet. Raises MissingComponent for a name that exists already."""
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, _distribution(entry))):
        if entry.name in own or entry.name in found:
            other = _distribution(found[entry.name]) if entry.name in found else "edgetune"
            raise MissingComponent(
                f"{_distribution(entry)} adds {entry.name}, which {other} has already",
                where=group,
                remedy=f"uninstall {_distribution(entry)}, or give its entry point another name",
            )
        found[entry.name] = entry
    return found


def _distribution(entry: EntryPoint) -> str:
    return "a distribution without a name" if entry.dist is None else entry.dist.name
