"""From guest addresses to what is stored for them: L2 entries and subcluster bitmaps read as extents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import ImageCorrupt
from dbt.machine.block.formats.qcow2.layout import COMPRESSED, COPIED, OFFSET, SUBCLUSTERS, ZERO

if TYPE_CHECKING:
    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.formats.qcow2.tables import Table

# Kinds of an extent.
UNALLOCATED, ZERO_PLAIN, ZERO_ALLOCATED, NORMAL, PACKED = range(5)


def kind_of(node: Qcow2, table: Table, i: int) -> int:
    """The kind of the cluster that entry i, one without subclusters, describes; the entry is checked."""
    entry = table.words[i]
    if entry & COMPRESSED:
        return PACKED
    host = entry & OFFSET
    if host & node.geometry.cluster_size - 1:
        raise ImageCorrupt(node.name, f"L2 entry is {entry:#x}: no aligned offset", offset=table.offset + 8 * i)
    there = host or (node.external and entry & COPIED)
    if entry & ZERO:
        if node.header.version < 3:
            raise ImageCorrupt(node.name, "L2 entry of a zero cluster in version 2", offset=table.offset + 8 * i)
        return ZERO_ALLOCATED if there else ZERO_PLAIN
    return NORMAL if there else UNALLOCATED


def sub_kind(node: Qcow2, table: Table, i: int, sub: int) -> int:
    """The same for a subcluster; entry i is two words long."""
    entry, bitmap = table.words[2 * i], table.words[2 * i + 1]
    if entry & COMPRESSED:
        return PACKED
    host = entry & OFFSET
    at = table.offset + 16 * i
    if host & node.geometry.cluster_size - 1 or entry & ZERO:
        raise ImageCorrupt(node.name, f"L2 entry is {entry:#x}: no aligned offset", offset=at)
    stored, zero = bitmap >> sub & 1, bitmap >> SUBCLUSTERS + sub & 1
    there = host or (node.external and entry & COPIED)
    if stored and (zero or not there):
        raise ImageCorrupt(node.name, f"L2 bitmap is {bitmap:#x}, which contradicts itself or its entry", offset=at + 8)
    if stored:
        return NORMAL
    if zero:
        return ZERO_ALLOCATED if there else ZERO_PLAIN
    return UNALLOCATED


def locate(node: Qcow2, offset: int, length: int) -> tuple[int, int, int, bool]:
    """(kind, bytes, host, copied) of what begins at `offset`: at most `length` bytes of one kind, one after the other.

    `host` is the offset in the data file (NORMAL, ZERO_ALLOCATED) or the L2 entry (PACKED); `copied`: it is ours alone.
    The mutex is held.
    """
    geometry = node.geometry
    index = offset >> geometry.l1_shift
    limit = min(length, (index + 1 << geometry.l1_shift) - offset)
    table = node.meta.table(index)
    if table is None:
        return UNALLOCATED, limit, 0, False
    if geometry.words == 2:
        return _locate_sub(node, table, offset, limit)
    size = geometry.cluster_size
    i = (offset >> geometry.cluster_bits) & geometry.l2_entries - 1
    words = table.words
    entry = words[i]
    kind = kind_of(node, table, i)
    within = offset & size - 1
    count = size - within
    if kind == PACKED:
        return kind, min(count, limit), entry, False
    host = entry & OFFSET
    step = size if kind >= ZERO_ALLOCATED else 0
    wanted = entry + step
    i += 1
    while count < limit and words[i] == wanted:
        count += size
        wanted += step
        i += 1
    return kind, min(count, limit), host + within, bool(entry & COPIED)


def _locate_sub(node: Qcow2, table: Table, offset: int, limit: int) -> tuple[int, int, int, bool]:
    geometry = node.geometry
    size, granule = geometry.cluster_size, geometry.granule
    i = (offset >> geometry.cluster_bits) & geometry.l2_entries - 1
    within = offset & size - 1
    sub = within // granule
    kind = sub_kind(node, table, i, sub)
    first = table.words[2 * i]
    if kind == PACKED:
        return kind, min(size - within, limit), first, False
    count = granule - within % granule
    step = size if kind >= ZERO_ALLOCATED else 0
    wanted = first
    while count < limit:
        sub += 1
        if sub == SUBCLUSTERS:
            sub = 0
            i += 1
            wanted += step
            if table.words[2 * i] != wanted:
                break
        if sub_kind(node, table, i, sub) != kind:
            break
        count += granule
    return kind, min(count, limit), (first & OFFSET) + within, bool(first & COPIED)


def stored(node: Qcow2, table: Table, i: int) -> tuple[int, int]:
    """(offset in the file, bytes) that entry i refers to, for refcounts; 0 bytes if it refers to nothing there."""
    entry = table.words[i * node.geometry.words]
    if entry & COMPRESSED:
        return node.geometry.compressed(entry)
    if node.external or not entry & OFFSET:
        return 0, 0
    return entry & OFFSET, node.geometry.cluster_size
