"""Where the tokens of texts that are read beside each other lie in the cache, so that each gets its own bits.

llama.cpp deals the terms of an attention's sums out over lanes, by their place in the cache, row by row. A token at
another place modulo the number of lanes would get other rounding. So every token is put where it would lie if nothing
else were read, modulo the lanes, after a beginning that fills whole rows; what comes between are other tokens, and
padding only where none fits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

PADDING = (-1, -1)
"""A place that holds no token of any tree."""


@dataclass
class Tree:
    """What is read for one question: a trunk, and continuations that share its beginning.

    Each node is a token; `depths` counts from the trunk's first. `paths` are the sequences that a node belongs to, from
    0 on, and `targets` the continuations, by number, with the token that each goes on with. A chain is a run of nodes,
    each the first child of the one before; it can be read once the parent of its first node, if any, is.
    """

    continuations: int
    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)
    targets: list[list[tuple[int, int]]] = field(default_factory=list)
    chains: list[list[int]] = field(default_factory=list)
    sequences: int = 0

    @classmethod
    def grow(cls, trunk: Sequence[int], continuations: Sequence[Sequence[int]], *, shared: int) -> Tree:
        """The tree of all continuations on one trunk of at least one token.

        They share the trunk's first `shared` tokens, and each has tokens of its own from there on; an empty one has
        none. Those of one token need the trunk alone, so they share all of it. Where whole rows of lanes are shared,
        each path lies as it would if it were the only one.
        """
        tree = cls(len(continuations))
        children: dict[Hashable, int] = {}
        for number, continuation in enumerate(continuations):
            if not continuation:
                continue
            node, path = -1, []
            known = len(tree.tokens)
            own = number if len(continuation) > 1 else None
            for depth, token in enumerate([*trunk, *continuation[:-1]]):
                owner = None if depth < shared else own
                parent, node = node, children.setdefault((node, owner), len(tree.tokens))
                if node == len(tree.tokens):
                    tree._sprout(parent, token, depth)
                path.append(node)
                if depth >= len(trunk) - 1:
                    tree.targets[node].append((number, continuation[depth - len(trunk) + 1]))
            if len(tree.tokens) > known:
                for each in path:
                    tree.paths[each].append(tree.sequences)
                tree.sequences += 1
        return tree

    def _sprout(self, parent: int, token: int, depth: int) -> None:
        node = len(self.tokens)
        self.tokens.append(token)
        self.depths.append(depth)
        self.paths.append([])
        self.targets.append([])
        if parent >= 0 and self.chains[-1][-1] == parent and parent == node - 1:
            self.chains[-1].append(node)
        else:
            self.chains.append([node])


@dataclass(frozen=True)
class _Chain:
    tree: int
    nodes: Sequence[int]
    lane: int


def lay_out(trees: Sequence[Tree], lanes: int) -> list[tuple[int, int]]:
    """For each place after the beginning, the number of a tree and of its node, or PADDING.

    A node of depth d lies at a place that is d modulo `lanes`, and after its parent.
    """
    places: list[tuple[int, int]] = []
    waiting: list[_Chain] = []
    for number, tree in enumerate(trees):
        if not tree.chains:
            continue
        first, *rest = (_Chain(number, nodes, tree.depths[nodes[0]] % lanes) for nodes in tree.chains)
        while (gap := (first.lane - len(places)) % lanes) and _place_one(waiting, places, lanes, within=gap):
            pass
        _put(first, places, lanes)
        waiting += rest
    while _place_one(waiting, places, lanes, within=None):
        pass
    return places


def longest_layout(trees: Sequence[Tree], lanes: int) -> int:
    """No layout of these trees takes more places than this."""
    chains = sum(len(tree.chains) for tree in trees)
    return sum(len(tree.tokens) for tree in trees) + max(0, chains - 1) * (lanes - 1)


def _place_one(waiting: list[_Chain], places: list[tuple[int, int]], lanes: int, *, within: int | None) -> bool:
    """Put the waiting chain that needs the least padding, if there is one that ends `within` so many places."""
    best: tuple[int, int] | None = None
    for index, (padding, length) in enumerate(_needs(waiting, len(places), lanes)):
        if (within is None or padding + length <= within) and (best is None or padding < best[0]):
            best = padding, index
    if best is None:
        return False
    _put(waiting.pop(best[1]), places, lanes)
    return True


def _needs(waiting: Sequence[_Chain], here: int, lanes: int) -> Iterator[tuple[int, int]]:
    """The padding before each chain, and its length. Of one tree's chains only the first is ready: later ones may be
    its children."""
    seen: set[int] = set()
    for chain in waiting:
        ready = chain.tree not in seen
        seen.add(chain.tree)
        yield ((chain.lane - here) % lanes if ready else 1 << 30), len(chain.nodes)


def _put(chain: _Chain, places: list[tuple[int, int]], lanes: int) -> None:
    places += [PADDING] * ((chain.lane - len(places)) % lanes)
    places += [(chain.tree, node) for node in chain.nodes]
