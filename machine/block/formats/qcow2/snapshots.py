"""Internal snapshots (section "Snapshots"): an L1 table kept under a name, and a reference more on all that it reaches.

While refcounts and flags are changed for a snapshot, the dirty bit is set (version 3): after a crash they are made anew
from the tables, which are switched by single writes of the header. What is stopped halfway by an error is left as after
a crash (`halfway`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import BadOption, BlockError, ImageCorrupt, ImageUnsupported
from dbt.machine.block.formats.qcow2.layout import (
    COMPRESSED,
    COPIED,
    MAX_L1,
    MAX_SNAPSHOT_TABLE,
    MAX_SNAPSHOTS,
    OFFSET,
    SnapshotEntry,
    SnapshotExtra,
)  # fmt: skip
from dbt.machine.block.formats.qcow2.mapping import stored
from dbt.machine.block.formats.qcow2.resize import install_l1
from dbt.machine.block.formats.qcow2.tables import Table, load, store, zeroes

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.structure import Structure


class Snapshot:
    """One entry of the table, with what follows it."""

    def __init__(self, entry: SnapshotEntry, extra: bytes, ident: bytes, name: bytes, at: int = 0) -> None:
        self.entry = entry
        self.extra = extra
        self.ident = ident
        self.name = name
        self.at = at

    def known_extra(self, node: Qcow2) -> SnapshotExtra:
        """The extra data; what an old version did not store is what it meant."""
        default = SnapshotExtra(vm_state_size_large=self.entry.vm_state_size, disk_size=node.size).pack()
        data = self.extra[:24] + default[min(len(self.extra), 24) :]
        return SnapshotExtra.parse(data, node.name, self.at + SnapshotEntry.SIZE)

    def pack(self) -> bytes:
        """Its bytes in the table."""
        self.entry.id_str_size, self.entry.name_size = len(self.ident), len(self.name)
        self.entry.extra_data_size = len(self.extra)
        data = self.entry.pack() + self.extra + self.ident + self.name
        return data + bytes(-len(data) % 8)


def load_table(node: Qcow2) -> None:
    """Read the snapshot table into `node.snapshot_list`."""
    node.snapshot_list = []
    header = node.header
    at = header.snapshots_offset
    tables = 0
    for _ in range(header.nb_snapshots):
        entry = SnapshotEntry.parse(node.file.pread(at, SnapshotEntry.SIZE), node.name, at)
        tables += entry.l1_size * 8
        if tables > node.file.size:
            raise ImageCorrupt(node.name, "the snapshots' L1 tables are larger than the file", offset=at)
        sizes = (entry.extra_data_size, entry.id_str_size, entry.name_size)
        if entry.l1_table_offset & node.geometry.cluster_size - 1 or entry.l1_table_offset >= 1 << 56:
            raise ImageCorrupt(node.name, f"a snapshot's L1 table is at {entry.l1_table_offset:#x}", offset=at)
        tail = bytes(node.file.pread(at + SnapshotEntry.SIZE, sum(sizes)))
        extra, ident = tail[: sizes[0]], tail[sizes[0] : sizes[0] + sizes[1]]
        node.snapshot_list.append(Snapshot(entry, extra, ident, tail[sizes[0] + sizes[1] :], at))
        at += SnapshotEntry.SIZE + sum(sizes) + 7 & -8
        if at - header.snapshots_offset > MAX_SNAPSHOT_TABLE:
            raise ImageCorrupt(node.name, "the snapshot table is larger than 64 MiB", offset=at)
    node.snapshot_table = (header.snapshots_offset, at) if header.nb_snapshots else (0, 0)


def describe(node: Qcow2) -> list[dict[str, Any]]:
    """The list for info."""
    return [
        {
            "id": s.ident.decode(errors="replace"), "name": s.name.decode(errors="replace"),
            "date-sec": s.entry.date_sec, "date-nsec": s.entry.date_nsec, "vm-clock-nsec": s.entry.vm_clock_nsec,
            "vm-state-size": s.known_extra(node).vm_state_size_large,
            "virtual-size": s.known_extra(node).disk_size,
        }
        for s in node.snapshot_list
    ]  # fmt: skip


def structures(node: Qcow2) -> Iterator[tuple[str, int, Structure]]:
    """The entries for `info --verbose`."""
    for s in node.snapshot_list:
        yield f"snapshot {s.name.decode(errors='replace')}", s.at, s.entry


def _find(node: Qcow2, name: str) -> Snapshot:
    text = name.encode()
    for attribute in ("ident", "name"):
        for snapshot in node.snapshot_list:
            if getattr(snapshot, attribute) == text:
                return snapshot
    have = ", ".join(s.name.decode(errors="replace") for s in node.snapshot_list) or "none"
    raise BadOption(node.name, f"there is no snapshot {name!r}", hint=f"snapshots: {have}")


def create(node: Qcow2, name: str) -> None:
    """Keep the state of now."""
    if len(node.snapshot_list) >= MAX_SNAPSHOTS:
        raise BadOption(node.name, f"there are {MAX_SNAPSHOTS} snapshots already")
    if len(name.encode()) > 65535:
        raise BadOption(node.name, "the name is too long")
    meta = node.meta
    _begin(node)
    meta.flush()
    numbers = [int(s.ident) for s in node.snapshot_list if s.ident.isdigit() and len(s.ident) < 20]
    _refer(node, meta.l1)
    _mark_copied(node)
    size = max(-(-len(meta.l1) * 8 >> node.geometry.cluster_bits), 1)
    offset = meta.refcounts.contiguous(size)
    meta.flush()
    plain = zeroes((size << node.geometry.cluster_bits) // 8)
    for i, word in enumerate(meta.l1):
        plain[i] = word & ~COPIED
    store(node.file, offset, plain)
    now = time.time_ns()
    entry = SnapshotEntry(
        l1_table_offset=offset, l1_size=len(meta.l1), date_sec=now // 10**9 & 0xFFFF_FFFF, date_nsec=now % 10**9
    )
    ident = str(max(numbers, default=0) + 1).encode()
    extra = SnapshotExtra(disk_size=node.size).pack()
    _store_table(node, [*node.snapshot_list, Snapshot(entry, extra, ident, name.encode())])
    _finish(node)


def _store_table(node: Qcow2, snapshots: list[Snapshot]) -> None:
    """Write a new snapshot table, let the header name it, give the old one back."""
    meta, bits = node.meta, node.geometry.cluster_bits
    data = b"".join(s.pack() for s in snapshots)
    offset = 0
    if data:
        offset = meta.refcounts.contiguous(-(-len(data) >> bits))
        meta.flush()
        node.file.pwrite(offset, data.ljust(-(-len(data) >> bits) << bits, b"\0"))
    meta.sync()
    start, end = node.snapshot_table
    node.update_header(nb_snapshots=len(snapshots), snapshots_offset=offset)
    node.file.flush()
    if end > start:
        meta.refcounts.release(start >> bits, -(-(end - start) >> bits))
    load_table(node)


def _begin(node: Qcow2) -> None:
    """From here on refcounts need not be right, until `_finish`."""
    node.halfway = True
    node.set_dirty()


def _finish(node: Qcow2) -> None:
    """Everything to the disk; the dirty bit goes unless lazy refcounts keep it."""
    if node.meta.lazy:
        node.meta.flush()
    else:
        node.set_clean()
    node.halfway = False


def _l1_of(node: Qcow2, snapshot: Snapshot) -> array[int]:
    entry = snapshot.entry
    if entry.l1_size * 8 > MAX_L1:
        raise ImageCorrupt(node.name, f"a snapshot's L1 table has {entry.l1_size} entries", offset=snapshot.at)
    return load(node.file, entry.l1_table_offset, entry.l1_size * 8)


def _table(node: Qcow2, index: int, entry: int) -> Table:
    """The L2 table at an L1 entry, of whichever L1 table."""
    offset = node.meta.l2_offset(index, entry & ~COPIED)
    active = node.meta.l2.get(index)
    if active is not None and active.offset == offset:
        return active
    return Table(offset, load(node.file, offset, node.geometry.cluster_size))


def _refer(node: Qcow2, l1: array[int]) -> None:
    """One reference more to everything that `l1` reaches, or to nothing, if a refcount cannot say it."""
    done: list[tuple[int, int]] = []
    change = node.meta.refcounts.change
    try:
        for first, count in _reached(node, l1):
            change(first, count, 1)
            done.append((first, count))
    except BlockError:
        for first, count in done:
            change(first, count, -1)
        _finish(node)
        raise


def _unrefer(node: Qcow2, l1: array[int]) -> None:
    """One reference less."""
    for first, count in _reached(node, l1):
        node.meta.refcounts.release(first, count)


def _reached(node: Qcow2, l1: array[int]) -> Iterator[tuple[int, int]]:
    """(first cluster, how many) of all that `l1` reaches: data, then the L2 table."""
    bits = node.geometry.cluster_bits
    for index, entry in enumerate(l1):
        if not entry & OFFSET:
            continue
        table = _table(node, index, entry)
        for i in range(node.geometry.l2_entries):
            if not table.words[i * node.geometry.words]:
                continue
            offset, length = stored(node, table, i)
            if length:
                first = offset >> bits
                yield first, (offset + length - 1 >> bits) - first + 1
        yield table.offset >> bits, 1


def _mark_copied(node: Qcow2) -> None:
    """Set COPIED in the active tables where the refcount is one, and nowhere else."""
    meta, words = node.meta, node.geometry.words
    refcounts, bits = meta.refcounts, node.geometry.cluster_bits
    for index in range(len(meta.l1)):
        table = meta.table(index)
        if table is None:
            continue
        for i in range(node.geometry.l2_entries):
            entry = table.words[i * words]
            if not entry & OFFSET or entry & COMPRESSED or node.external:
                continue
            alone = refcounts.get((entry & OFFSET) >> bits) == 1
            marked = entry & ~COPIED | (COPIED if alone else 0)
            if marked != entry:
                table.words[i * words] = marked
                table.touch(i * words, i * words + 1)
        alone = refcounts.get(table.offset >> bits) == 1
        marked = table.offset | (COPIED if alone else 0)
        if marked != meta.l1[index]:
            meta.set_l1(index, marked)
        meta.changed()


def delete(node: Qcow2, name: str) -> None:
    """Forget a snapshot: first its entry, then its references."""
    snapshot = _find(node, name)
    l1 = _l1_of(node, snapshot)
    _begin(node)
    _store_table(node, [s for s in node.snapshot_list if s.ident is not snapshot.ident])
    bits = node.geometry.cluster_bits
    _unrefer(node, l1)
    clusters = -(-snapshot.entry.l1_size * 8 >> bits)
    if clusters:
        node.meta.refcounts.release(snapshot.entry.l1_table_offset >> bits, clusters)
    node.meta.flush()
    _mark_copied(node)
    _finish(node)


def apply(node: Qcow2, name: str) -> None:
    """Go back: the active L1 table becomes a copy of the snapshot's."""
    snapshot = _find(node, name)
    size = snapshot.known_extra(node).disk_size
    if node.geometry.l1_entries(size) * 8 > MAX_L1:
        what = f"a snapshot's disk_size is {size}, more than an L1 table of {MAX_L1} bytes can have"
        raise ImageCorrupt(node.name, what, offset=snapshot.at + SnapshotEntry.SIZE + 8)
    l1 = _l1_of(node, snapshot)
    need = max(node.geometry.l1_entries(size), len(l1))
    active = zeroes(need)
    for i, entry in enumerate(l1):
        active[i] = entry & ~COPIED
    _begin(node)
    node.meta.flush()
    try:
        _refer(node, l1)
        counted = True
    except ImageUnsupported:  # narrow refcounts: there is room when the old state's references are gone
        counted = False
        _begin(node)
    node.meta.flush()
    old = node.meta.l1[:]
    install_l1(node, active, size=size)
    _unrefer(node, old)
    node.meta.flush()
    if not counted:
        _refer(node, l1)
    node.meta.flush()
    node.size = size
    _mark_copied(node)
    _finish(node)
