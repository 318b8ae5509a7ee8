"""Check and repair: count the references to each cluster, compare with the refcounts, look at the COPIED flags.

`leaks` frees what nobody refers to; `all` makes refcounts and flags right as well, with a new refcount structure if the
old one cannot be read or lies on top of something.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from dbt.machine.block.errors import ImageCorrupt
from dbt.machine.block.formats.qcow2 import bitmaps
from dbt.machine.block.formats.qcow2.create import refcount_layout
from dbt.machine.block.formats.qcow2.layout import (
    COMPRESSED,
    COPIED,
    CORRUPT,
    DIRTY,
    MAX_REFCOUNT_TABLE,
    OFFSET,
    RESERVED_L1,
    SUBCLUSTERS,
    ZERO,
)  # fmt: skip
from dbt.machine.block.formats.qcow2.mapping import stored
from dbt.machine.block.formats.qcow2.tables import Table, load, store, zeroes
from dbt.machine.block.node import CheckResult

if TYPE_CHECKING:
    from dbt.machine.block.formats.qcow2 import Qcow2

MAX_COUNTS = 512 << 20  # bytes of memory for the counts of references, 4 for each cluster near one that is used


class Counts(dict[int, "array[int]"]):
    """References to clusters, in pages of as many as a refcount block describes; a page is made when it is needed."""

    def __init__(self, node: Qcow2) -> None:
        super().__init__()
        self.name = node.name
        self.shift = node.meta.refcounts.block_shift
        self.per_page = 1 << self.shift

    def add(self, cluster: int) -> int:
        """One more reference to a cluster; how many there are now."""
        page = self.get(cluster >> self.shift)
        if page is None:
            if (len(self) + 1) * self.per_page * 4 > MAX_COUNTS:
                raise ImageCorrupt(self.name, f"to check it takes more than {MAX_COUNTS} bytes of memory")
            page = self[cluster >> self.shift] = array("I", bytes(4 * self.per_page))
        page[cluster & self.per_page - 1] += 1
        return page[cluster & self.per_page - 1]

    def of(self, cluster: int) -> int:
        """The references to a cluster."""
        page = self.get(cluster >> self.shift)
        return 0 if page is None else page[cluster & self.per_page - 1]

    def last(self) -> int:
        """The last cluster that is referred to."""
        for index in sorted(self, reverse=True):
            for i in range(self.per_page - 1, -1, -1):
                if self[index][i]:
                    return (index << self.shift) + i
        return 0


class Check:
    """One pass."""

    def __init__(self, node: Qcow2) -> None:
        self.node = node
        self.result = CheckResult()
        self.bits = node.geometry.cluster_bits
        self.clusters = -(-node.file.size >> self.bits)
        self.counts = Counts(node)
        self.broken_structure = False
        self.tables = dict[int, Table | None]()

    def corrupt(self, text: str, offset: int | None = None) -> None:
        self.result.corruptions += 1
        self.result.note(text, offset)

    def refer(self, offset: int, length: int, what: str) -> None:
        """Something refers to [offset, offset + length)."""
        if not length:
            return
        first, last = offset >> self.bits, offset + length - 1 >> self.bits
        if last >= self.clusters:
            self.corrupt(f"{what} lies behind the end of the file", offset)
            last = self.clusters - 1
        for cluster in range(first, last + 1):
            self.counts.add(cluster)

    def count(self, *, refcounts: bool = True) -> None:
        """Walk everything."""
        node, size = self.node, self.node.geometry.cluster_size
        header = node.header
        self.refer(0, size, "the header")
        self.refer(node.meta.l1_offset, node.meta.l1_size * 8, "the L1 table")
        self.l1("L1", node.meta.l1, node.meta.l1_offset, active=True)
        for snapshot in node.snapshot_list:
            l1_at, l1_size = snapshot.entry.l1_table_offset, snapshot.entry.l1_size * 8
            self.refer(l1_at, l1_size, "a snapshot's L1 table")
            try:
                l1 = load(node.file, l1_at, l1_size)
            except ImageCorrupt as wrong:
                self.corrupt(wrong.reason, wrong.offset)
                continue
            self.l1("snapshot's L1", l1, l1_at, active=False)
        start, end = node.snapshot_table
        self.refer(start, end - start, "the snapshot table")
        try:
            for offset, length in bitmaps.clusters(node):
                self.refer(offset, length, "a bitmap")
        except ImageCorrupt as wrong:
            self.corrupt(wrong.reason, wrong.offset)
        if not refcounts:
            return
        self.refer(header.refcount_table_offset, header.refcount_table_clusters * size, "the refcount table")
        try:
            table = node.meta.refcounts.table
        except ImageCorrupt as wrong:
            self.corrupt(wrong.reason, wrong.offset)
            self.broken_structure = True
            return
        for index, entry in enumerate(table):
            if not entry:
                continue
            offset = entry & OFFSET
            if entry & ~OFFSET or offset & size - 1 or offset >> self.bits >= self.clusters:
                at = header.refcount_table_offset + 8 * index
                self.corrupt(f"refcount block {index} is at {entry:#x}", at)
                self.broken_structure = True
                continue
            self.refer(offset, size, "a refcount block")
            if self.counts.of(offset >> self.bits) > 1:
                self.corrupt(f"refcount block {index} lies on something else", offset)
                self.broken_structure = True

    def l1(self, name: str, l1: array[int], at: int, *, active: bool) -> None:
        """What an L1 table reaches."""
        size = self.node.geometry.cluster_size
        seen = set[int]()
        for index, entry in enumerate(l1):
            if not entry & OFFSET:
                continue
            offset = entry & OFFSET
            if entry & RESERVED_L1 or offset & size - 1:
                self.corrupt(f"{name} entry {index} is {entry:#x}", at + 8 * index)
                continue
            self.refer(offset, size, "an L2 table")
            if offset in seen:
                self.corrupt(f"{name} entry {index} has the L2 table of another", at + 8 * index)
                continue
            seen.add(offset)
            table = self.load(offset)
            if table is not None:
                self.l2(table, active=active)

    def load(self, offset: int) -> Table | None:
        """An L2 table as the disk has it; read once, the last few are kept."""
        if offset in self.tables:
            return self.tables[offset]
        table = None
        try:
            table = Table(offset, load(self.node.file, offset, self.node.geometry.cluster_size))
        except ImageCorrupt as wrong:
            self.corrupt(wrong.reason, wrong.offset)
        if len(self.tables) > 64:
            self.tables.clear()
        self.tables[offset] = table
        return table

    def l2(self, table: Table, *, active: bool) -> None:
        """What an L2 table refers to."""
        node, geometry = self.node, self.node.geometry
        words, mask = geometry.words, geometry.cluster_size - 1
        result = self.result
        expected = 0
        for i in range(geometry.l2_entries):
            entry = table.words[i * words]
            bitmap = table.words[2 * i + 1] if words == 2 else 0
            if not entry and not bitmap:
                continue
            at = table.offset + 8 * words * i
            if not entry & COMPRESSED and entry & mask & OFFSET:
                self.corrupt(f"L2 entry is {entry:#x}: not aligned", at)
                continue
            if entry & COMPRESSED and entry & COPIED:
                self.corrupt("L2 entry is compressed and marked as ours alone", at)
            if words == 1 and entry & ZERO and not entry & COMPRESSED and node.header.version < 3:
                self.corrupt("L2 entry of a zero cluster in version 2", at)
            if bitmap and not entry & COMPRESSED:
                both = bitmap & bitmap >> SUBCLUSTERS
                if both or (bitmap & (1 << SUBCLUSTERS) - 1 and not entry & OFFSET and not node.external):
                    self.corrupt(f"L2 bitmap is {bitmap:#x}, which contradicts itself or its entry", at + 8)
            offset, length = stored(node, table, i)
            if length:
                self.refer(offset, length, "data")
                if active:
                    result.allocated_clusters += 1
                    if entry & COMPRESSED:
                        result.compressed_clusters += 1
                    if expected and offset != expected:
                        result.fragmented_clusters += 1
                    expected = offset + length


def check(node: Qcow2, repair: str) -> CheckResult:
    """Check `node`; see the module."""
    if node.writable:
        node.meta.flush()
        node.meta.write_out(all_refcounts=not node.incompatible & DIRTY or not repair)
    found = Check(node)
    found.count()
    result = found.result
    result.total_clusters = -(-node.size >> found.bits)
    if found.broken_structure and repair == "all":
        _rebuild(node, found)
    else:
        _compare(node, found, repair)
    _flags(node, found, repair if result.corruptions == result.corruptions_fixed else "")
    if repair:
        node.meta.flush()
        node.meta.write_out(all_refcounts=True)
        node.meta.sync()
        if result.corruptions == result.corruptions_fixed:
            node.incompatible &= ~(CORRUPT | (DIRTY if repair == "all" else 0))
            node.update_header()
            node.file.flush()
    result.image_end = found.counts.last() + 1 << found.bits
    return result


def _compare(node: Qcow2, found: Check, repair: str) -> None:
    """Refcounts against references."""
    refcounts = node.meta.refcounts
    per_block = refcounts.per_block
    try:
        table = refcounts.table
        blocks = {index for index, entry in enumerate(table) if entry}
        for index in sorted(blocks | found.counts.keys()):
            first = index * per_block
            want: array[int] | list[int] = found.counts.get(index, [])
            block = refcounts.block(index)
            if block is None:
                have: array[int] | list[int] = []
            elif refcounts.packed == 1:
                have = block.words
            else:
                have = [refcounts.get(first + i) for i in range(per_block)]
            count = max(len(want), len(have))
            for i in range(count):
                wanted = want[i] if i < len(want) else 0
                if (there := have[i] if i < len(have) else 0) != wanted:
                    _differs(node, found, repair, first + i, there, wanted)
    except ImageCorrupt as wrong:
        found.result.errors += 1
        found.result.note(wrong.reason, wrong.offset)


def _differs(node: Qcow2, found: Check, repair: str, cluster: int, have: int, want: int) -> None:
    """One refcount that is not what the references say."""
    result = found.result
    offset = cluster << found.bits
    fix = repair == "all" or (repair == "leaks" and have > want)
    if have > want:
        result.leaks += 1
        result.leaks_fixed += fix
        result.note(f"leaked cluster: refcount {have}, {want} references", offset)
    else:
        result.corruptions += 1
        result.corruptions_fixed += fix
        result.note(f"refcount {have}, {want} references", offset)
    if fix:
        node.meta.refcounts.set(cluster, want)


def _flags(node: Qcow2, found: Check, repair: str) -> None:
    """COPIED in the active tables: set exactly where there is one reference."""
    meta, words, result = node.meta, node.geometry.words, found.result
    counts, bits = found.counts, found.bits
    for index in range(len(meta.l1)):
        entry = meta.l1[index]
        offset = entry & OFFSET
        if not offset or offset >> bits >= found.clusters or offset & node.geometry.cluster_size - 1:
            continue
        if (counts.of(offset >> bits) == 1) != bool(entry & COPIED):
            result.corruptions += 1
            result.note(f"L1 entry {index} has COPIED wrong", meta.l1_offset + 8 * index)
            if repair == "all":
                meta.set_l1(index, entry ^ COPIED)
                result.corruptions_fixed += 1
        if node.external or entry & RESERVED_L1:
            continue
        try:
            table = meta.table(index)
        except ImageCorrupt:
            continue  # counted already
        if table is None:
            continue
        for i in range(node.geometry.l2_entries):
            entry = table.words[i * words]
            host = entry & OFFSET
            if not host or entry & COMPRESSED or host >> bits >= found.clusters:
                continue
            if (counts.of(host >> bits) == 1) != bool(entry & COPIED):
                result.corruptions += 1
                result.note(f"L2 entry {i} has COPIED wrong", table.offset + 8 * words * i)
                if repair == "all":
                    table.words[i * words] = entry ^ COPIED
                    table.touch(i * words, i * words + 1)
                    result.corruptions_fixed += 1
        meta.changed()


def _rebuild(node: Qcow2, found: Check) -> None:
    """A new refcount structure behind the end of the file, made from the references alone."""
    again = Check(node)
    again.count(refcounts=False)
    meta, geometry = node.meta, node.geometry
    refcounts = meta.refcounts
    table_clusters, blocks = refcount_layout(geometry, node.refcount_order, again.clusters)
    if table_clusters * geometry.cluster_size > MAX_REFCOUNT_TABLE or blocks * geometry.cluster_size > MAX_COUNTS:
        what = f"its refcounts cannot be made anew: a file of {node.file.size} bytes takes {blocks} blocks of them"
        raise ImageCorrupt(node.name, what, offset=node.header.refcount_table_offset)
    first = again.clusters
    total = first + table_clusters + blocks
    for cluster in range(first, total):
        again.counts.add(cluster)
    table_at = first << again.bits
    table = zeroes(table_clusters * geometry.cluster_size // 8)
    refcounts.blocks.clear()
    refcounts.dirty_table.clear()
    refcounts.released.clear()
    for k in range(blocks):
        offset = first + table_clusters + k << again.bits
        table[k] = offset
        refcounts.blocks[k] = Table(
            offset, zeroes(geometry.cluster_size * 8 // refcounts.unit, refcounts.unit), new=True
        )
    refcounts.table = table
    for index, page in again.counts.items():
        for i, count in enumerate(page):
            if count:
                refcounts.set((index << again.counts.shift) + i, count)
    for block in refcounts.blocks.values():
        block.write(node.file)
    store(node.file, table_at, table)
    node.file.flush()
    refcounts.table_offset, refcounts.table_clusters = table_at, table_clusters
    node.update_header(refcount_table_offset=table_at, refcount_table_clusters=table_clusters)
    node.file.flush()
    meta.known_l2 = None
    refcounts.hint = 0
    found.result.corruptions_fixed = found.result.corruptions - (again.result.corruptions)
    found.counts, found.clusters = again.counts, total
