"""The decision tree over fixed bits that finds a word's form.

Where two forms' fixed bits overlap, the one whose bits are a strict superset of the other's wins; any other overlap is
an error, and every overlap is found: two forms that overlap share a word, and that word's leaf has both as candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .pattern import RowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .forms import Form

MAX_BITS: Final = 8  # of one node
MAX_SPARSE_BITS: Final = 4  # of a node whose bits are not fixed in all forms below it


class Tree:
    """`nodes` are (shift, mask, base): the child is children[base + (word >> shift & mask)]; see formats.Node."""

    __slots__ = ("_width", "children", "nodes")

    def __init__(self, forms: Sequence[Form], width: int) -> None:
        self._width = width
        self.nodes: list[tuple[int, int, int]] = []
        self.children: list[int] = []
        root = self._build([f for f in forms if f.row is not forms[0].row], 0)
        if root < 0:  # one form or none: still a node, so that decoding can start at node 0
            self.nodes.append((0, 0, len(self.children)))
            self.children.append(root)

    def find(self, word: int) -> int:
        """The number of the only form that the word can have (its fixed bits are still to be checked)."""
        child = 0
        while child >= 0:
            shift, mask, base = self.nodes[child]
            child = self.children[base + (word >> shift & mask)]
        return ~child

    def _build(self, forms: list[Form], known: int) -> int:
        """A node or leaf for the forms that agree with the word in the bits of `known`."""
        if not forms:
            return ~0
        if len(forms) == 1:
            return ~forms[0].id
        window = _window(forms, known, self._width)
        if window is None:
            return ~_winner(forms).id
        shift, bits = window
        mask = (1 << bits) - 1
        groups: list[list[Form]] = [[] for _ in range(mask + 1)]
        for form in forms:
            fixed, value = form.mask >> shift & mask, form.value >> shift & mask
            if fixed == mask:
                groups[value].append(form)
            else:
                free = mask & ~fixed
                more = free
                while True:  # all subsets of the free bits
                    groups[value | more].append(form)
                    if not more:
                        break
                    more = (more - 1) & free
        number, base = len(self.nodes), len(self.children)
        self.nodes.append((shift, mask, base))
        self.children.extend([~0] * (mask + 1))
        done: dict[tuple[int, ...], int] = {}
        for index, group in enumerate(groups):
            key = tuple(id(form) for form in group)
            # The bits of this node do not matter to what follows if the same forms remain: share the subtree.
            if key not in done:
                done[key] = self._build(group, known | mask << shift)
            self.children[base + index] = done[key]
        return number


def _window(forms: list[Form], known: int, width: int) -> tuple[int, int] | None:
    """The (lowest bit, number of bits) to decide by next; None if the forms fix no other bits."""
    common, some = -1, 0
    for form in forms:
        common &= form.mask
        some |= form.mask
    common &= ~known
    some &= ~known
    if not some:
        return None
    best: tuple[int, int] | None = None
    best_count = 1
    for low in range(width):
        if not common >> low & 1:
            continue
        bits = 1
        while bits < MAX_BITS and common >> (low + bits) & 1:
            bits += 1
        count = len({form.value >> low & ((1 << bits) - 1) for form in forms})
        if count > best_count:
            best, best_count = (low, bits), count
    if best is not None:
        return best
    # Bits that some forms leave open: around the one that most of them fix.
    counts = [sum(form.mask >> bit & 1 for form in forms) if some >> bit & 1 else 0 for bit in range(width)]
    low = counts.index(max(counts))
    bits = 1
    while bits < MAX_SPARSE_BITS and low + bits < width and counts[low + bits] == counts[low]:
        bits += 1
    return low, bits


def _winner(forms: list[Form]) -> Form:
    """Of forms that one word matches, the one whose fixed bits include all others'."""
    best = max(forms, key=lambda form: form.mask.bit_count())
    for form in forms:
        if form is not best and (form.mask == best.mask or form.mask & ~best.mask):
            raise RowError(
                f"{form.name} ({form.row.pattern.text}) and {best.name} ({best.row.pattern.text}) overlap, "
                f"and neither fixes all bits that the other does: {best.value | form.value:#010x}"
            )
    return best
