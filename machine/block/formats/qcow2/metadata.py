"""The metadata of an open image: L1, L2 tables and refcounts in memory, and the order in which they reach the disk.

Whatever subset of writes a crash leaves, the image must have at worst leaked clusters. Data is written when its request
runs; tables wait in memory for `write_out`, which goes in phases, each on the disk before the next begins:

    A  refcount blocks, and L2 tables that nothing points to yet   (with the data of before)
    B  refcount table entries for new blocks
    C  L2 entries and L1 entries: now things are pointed to
    D  after the next flush: counts of what C has dropped go down (refcounts.py, `released`)

With lazy refcounts A leaves refcount blocks out; the dirty bit in the header says that they have to be made anew.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbt.machine.block.errors import ImageCorrupt
from dbt.machine.block.formats.qcow2.layout import COPIED, OFFSET, RESERVED_L1, Geometry
from dbt.machine.block.formats.qcow2.refcounts import Refcounts
from dbt.machine.block.formats.qcow2.tables import Cache, Table, load, zeroes

if TYPE_CHECKING:
    from array import array

    from dbt.machine.block.formats.qcow2 import Qcow2

MAX_RELEASED = 1 << 16  # entries of the list: then it is settled without being asked


class Metadata:
    """L1, L2 and refcounts. `mutex` guards them all; who holds it may wait for the file, nobody else's lock."""

    def __init__(self, node: Qcow2, geometry: Geometry) -> None:
        self.node = node
        self.name = node.name
        self.file = node.file
        self.geometry = geometry
        self.mutex = threading.RLock()
        header = node.header
        self.l1_offset, self.l1_size = header.l1_table_offset, header.l1_size
        self.l2 = Cache(node.options["l2-cache-size"] // geometry.cluster_size)  # by L1 index
        self.dirty_l1 = set[int]()
        self.refcounts = Refcounts(
            self, header.refcount_table_offset, header.refcount_table_clusters, node.refcount_order,
            node.options["refcount-cache-size"],
        )  # fmt: skip
        self.lazy = False
        self.known_blocks = set[int]()
        self.known_l2: set[int] | None = None
        self._l1: array[int] | None = None

    # L1 and L2.

    @property
    def l1(self) -> array[int]:
        """The active L1 table; read when it is first needed."""
        if self._l1 is None:
            self._l1 = load(self.file, self.l1_offset, self.l1_size * 8)
        return self._l1

    @l1.setter
    def l1(self, entries: array[int]) -> None:
        self._l1 = entries
        self.known_l2 = None

    def l2_offset(self, index: int, entry: int) -> int:
        """The offset that an L1 entry has, checked."""
        offset = entry & OFFSET
        if entry & RESERVED_L1 or offset & self.geometry.cluster_size - 1:
            at = self.l1_offset + 8 * index
            raise ImageCorrupt(self.name, f"L1 entry {index} is {entry:#x}: no aligned offset", offset=at)
        return offset

    def table(self, index: int) -> Table | None:
        """The L2 table of L1 entry `index`, for reading; None if there is none."""
        found = self.l2.get(index)
        if found is not None:
            return found
        if index >= len(self.l1):
            return None
        offset = self.l2_offset(index, self.l1[index])
        if not offset:
            return None
        self._room()
        found = self.l2[index] = Table(offset, load(self.file, offset, self.geometry.cluster_size))
        return found

    def table_for_write(self, index: int) -> Table:
        """The L2 table of L1 entry `index`, ours alone: made if there is none, copied if a snapshot shares it."""
        entry = self.l1[index]
        if entry & COPIED:
            found = self.table(index)
            if found is not None:
                return found
        old = self.table(index)
        words = zeroes(self.geometry.cluster_size // 8) if old is None else old.words[:]
        offset = self.refcounts.contiguous(1)
        self._room()
        table = self.l2[index] = Table(offset, words, new=True)
        if old is not None:
            self.refcounts.release(entry >> self.geometry.cluster_bits & OFFSET >> self.geometry.cluster_bits)
        self.set_l1(index, offset | COPIED)
        return table

    def set_l1(self, index: int, entry: int) -> None:
        """Change an L1 entry."""
        if self.known_l2 is not None:
            self.known_l2.discard(self.l1[index] & OFFSET)
            if entry:
                self.known_l2.add(entry & OFFSET)
        self.l1[index] = entry
        self.dirty_l1.add(index)

    def _room(self) -> None:
        if self.l2.full_of_dirt():
            self.write_out()
        self.l2.make_room()

    # Overlaps.

    def guard(self, offset: int, length: int) -> None:
        """ImageCorrupt, and the image marked so, if [offset, offset + length) is metadata that is in use."""
        what = self.metadata_at(offset, length)
        if what:
            self.node.mark_corrupt()
            raise ImageCorrupt(self.name, f"{what} would be overwritten: refcounts are wrong", offset=offset)

    def metadata_at(self, offset: int, length: int) -> str:
        """Which metadata lies in [offset, offset + length); empty if none."""
        size = self.geometry.cluster_size
        end = offset + length
        refcounts = self.refcounts
        if offset < size:
            return "the header"
        if offset < self.l1_offset + self.l1_size * 8 and self.l1_offset < end:
            return "the L1 table"
        if offset < refcounts.table_offset + refcounts.table_clusters * size and refcounts.table_offset < end:
            return "the refcount table"
        start, stop = self.node.snapshot_table
        if offset < stop and start < end:
            return "the snapshot table"
        if self.known_l2 is None:
            self.known_l2 = {entry & OFFSET for entry in self.l1 if entry}
            self.known_blocks = {entry & OFFSET for entry in refcounts.table if entry}
        for at in range(offset & -size, end, size):
            if at in self.known_l2:
                return "an L2 table"
            if at in self.known_blocks:
                return "a refcount block"
        return ""

    # Order.

    def changed(self) -> None:
        """Tables have changed: write them if there are too many."""
        if self.l2.full_of_dirt() or self.refcounts.blocks.full_of_dirt():
            self.write_out()
        if len(self.refcounts.released) > MAX_RELEASED:
            self.write_out()
            self.sync()
            self.settle()

    def sync(self) -> None:
        """Everything written so far is on the disk."""
        if self.node.data_file is not self.file:
            self.node.data_file.flush()
        self.file.flush()

    def write_out(self, *, all_refcounts: bool = False) -> None:
        """Phases A to C. The caller syncs."""
        file = self.file
        refcounts = self.refcounts
        pending = [table for table in self.l2.values() if table.dirty]
        blocks = list(refcounts.dirty_blocks()) if all_refcounts or not self.lazy else []
        linked = bool(pending or self.dirty_l1)
        for table in blocks:
            table.write(file)
        for table in pending:
            if table.new:
                table.write(file)
        if refcounts.dirty_table and (all_refcounts or not self.lazy):
            self.sync()
            for index in sorted(refcounts.dirty_table):
                file.pwrite(refcounts.table_offset + 8 * index, refcounts.table[index].to_bytes(8, "big"))
            refcounts.dirty_table.clear()
        if not linked:
            return
        self.sync()
        for table in pending:
            if table.dirty:
                table.write(file)
        for index in sorted(self.dirty_l1):
            file.pwrite(self.l1_offset + 8 * index, self.l1[index].to_bytes(8, "big"))
        self.dirty_l1.clear()

    def settle(self, released: list[tuple[int, int, bool]] | None = None) -> None:
        """Phase D, after a sync: count down what was released before it."""
        refcounts = self.refcounts
        if released is None:
            released, refcounts.released = refcounts.released, []
        refcounts.settle(released)

    def flush(self) -> None:
        """All phases."""
        with self.mutex:
            self.write_out()
            released, self.refcounts.released = self.refcounts.released, []
        self.sync()
        if released:
            with self.mutex:
                self.settle(released)
