"""Small loops of a region twice in a row: every second round has no poll, and one taken branch less.

A loop of a few instructions takes as long as its branches do. What LLVM knows at the end of a round it uses in the
next one, so additions to a pointer become displacements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.engine.former import successors

if TYPE_CHECKING:
    from dbt.engine.former import Region

ROUNDS: Final = 2
MOST: Final = 8  # instructions of such a loop


class Node(NamedTuple):
    """A block of the region, or a copy of it."""

    pc: int
    copy: int = 0

    @property
    def label(self) -> str:
        """Its label in LLVM's text."""
        return f"b{self.pc:x}" + (f".{self.copy}" if self.copy else "")


class Way(NamedTuple):
    """A node, and where those of its edges lead that stay in its loop; none of them polls if it is not the `last`."""

    node: Node
    inside: dict[int, Node]
    last: bool

    def to(self, target: int) -> Node:
        """Where an edge to a guest address leads in the region."""
        return self.inside.get(target) or Node(target)

    def polls(self, target: int) -> bool:
        """Whether an edge back to a guest address polls."""
        return self.last or target not in self.inside


def unrolled(region: Region) -> list[Way]:
    """The nodes of a region; a copy comes behind what leads to it, as blocks do."""
    ways = {pc: [Way(Node(pc), {}, last=True)] for pc in region.blocks}
    for header, body in _loops(region).items():
        ways.update((pc, []) for pc in body)
        for copy in range(ROUNDS):
            inside = {pc: Node(pc, copy) for pc in body} | {header: Node(header, (copy + 1) % ROUNDS)}
            ways[body[-1]] += [Way(Node(pc, copy), inside, copy == ROUNDS - 1) for pc in body]
    return [way for pc in region.blocks for way in ways[pc]]


def _loops(region: Region) -> dict[int, list[int]]:
    """By its first block: the blocks of each small loop that has no other inside, in their order."""
    order = {pc: number for number, pc in enumerate(region.blocks)}
    before: dict[int, list[int]] = {pc: [] for pc in order}
    for pc, block in region.blocks.items():
        for target in successors(block, region.return_sites):
            if target in order:
                before[target].append(pc)
    back = {pc: [last for last in before[pc] if order[last] >= order[pc]] for pc in order}
    found = {}
    for header, first in order.items():
        body = _body(region, header, back[header], before) if back[header] else None
        if body is None or any(order[pc] < first or (back[pc] and pc != header) for pc in body):
            continue
        found[header] = sorted(body, key=order.__getitem__)
    return found


def _body(region: Region, header: int, ends: list[int], before: dict[int, list[int]]) -> set[int] | None:
    """The blocks from which one of the `ends` is reached without the header; None if the loop is not a small one."""
    body, size, waiting = set[int](), 0, [header, *ends]
    while waiting:
        pc = waiting.pop()
        if pc in body:
            continue
        block = region.blocks[pc]
        size += len(block.steps)
        if size > MOST or block.returns or block.ways or any(step.synchronises for step in block.steps):
            return None
        if pc == region.entry and pc != header:
            return None
        body.add(pc)
        waiting += before[pc] if pc != header else []
    return body
