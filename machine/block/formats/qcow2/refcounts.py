"""Refcounts: how many references each cluster of the file has, and where there is room ("Host cluster management").

Allocation counts up at once, in memory. Counting down waits: a cluster that was given up may be used again only after
what no longer points to it is on the disk, so `release` puts it on a list that metadata.py settles after its last sync.
A new refcount block is the first cluster of the range that it describes, so making one needs no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import HostError, ImageCorrupt, ImageUnsupported
from dbt.machine.block.formats.qcow2.layout import MAX_REFCOUNT_TABLE, OFFSET
from dbt.machine.block.formats.qcow2.tables import Cache, Table, load, store, zeroes

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from dbt.machine.block.formats.qcow2.metadata import Metadata

MAX_HOST = 1 << 56
ENOSPC = 28
NEAR = 16  # counts that are looked at before all are


class Refcounts:
    """The refcount table and its blocks. Everything here runs under the metadata's mutex."""

    def __init__(self, meta: Metadata, table_offset: int, table_clusters: int, order: int, cache: int) -> None:
        self.meta = meta
        self.file = meta.file
        self.bits = 1 << order
        self.maximum = (1 << self.bits) - 1
        self.cluster_size = meta.geometry.cluster_size
        self.cluster_bits = meta.geometry.cluster_bits
        self.per_block = self.cluster_size * 8 // self.bits
        self.block_shift = self.per_block.bit_length() - 1
        self.unit = max(self.bits, 8)  # of the arrays: narrower counts are packed into bytes
        self.packed = 8 // self.bits if self.bits < 8 else 1
        self.table_offset, self.table_clusters = table_offset, table_clusters
        self.dirty_table = set[int]()
        self.blocks = Cache(cache // self.cluster_size)
        self.hint = 0  # where the next search begins
        self.byte_hint = 0  # rest of a cluster of compressed data
        self.released: list[tuple[int, int, bool]] = []
        self._table: array[int] | None = None

    @property
    def table(self) -> array[int]:
        """Offsets of the blocks; read when it is first needed."""
        if self._table is None:
            self._table = load(self.file, self.table_offset, self.table_clusters << self.cluster_bits)
        return self._table

    @table.setter
    def table(self, table: array[int]) -> None:
        self._table = table

    # Single counts.

    def block(self, index: int) -> Table | None:
        """The block with counts of clusters from index << block_shift on; None if there is none."""
        found = self.blocks.get(index)
        if found is not None:
            return found
        if index >= len(self.table) or not self.table[index]:
            return None
        offset = self.table[index]
        if offset & ~OFFSET or offset & self.cluster_size - 1:
            at = self.table_offset + 8 * index
            raise ImageCorrupt(self.meta.name, f"refcount block {index} is at {offset:#x}: not aligned", offset=at)
        if self.blocks.full_of_dirt():
            self.meta.write_out(all_refcounts=True)
        self.blocks.make_room()
        table = self.blocks[index] = Table(offset, load(self.file, offset, self.cluster_size, self.unit))
        return table

    def _get(self, block: Table, i: int) -> int:
        if self.packed == 1:
            return block.words[i]
        return block.words[i // self.packed] >> i % self.packed * self.bits & self.maximum

    def _set(self, block: Table, i: int, value: int) -> None:
        if self.packed == 1:
            block.words[i] = value
            block.touch(i, i + 1)
            return
        at, shift = i // self.packed, i % self.packed * self.bits
        block.words[at] = block.words[at] & ~(self.maximum << shift) | value << shift
        block.touch(at, at + 1)

    def get(self, cluster: int) -> int:
        """The refcount of a cluster, what is on the list of `release` not counted down yet."""
        block = self.block(cluster >> self.block_shift)
        return 0 if block is None else self._get(block, cluster & self.per_block - 1)

    def change(self, cluster: int, count: int, by: int) -> None:
        """Add `by` to the refcounts of `count` clusters, or to none of them."""
        for c in range(cluster, cluster + count):
            block = self.block(c >> self.block_shift) or self._new_block(c >> self.block_shift)
            i = c & self.per_block - 1
            value = self._get(block, i) + by
            if not 0 <= value <= self.maximum:
                for changed in range(cluster, c):
                    self.set(changed, self.get(changed) - by)
                at = block.offset + i * self.bits // 8
                what = f"cluster {c << self.cluster_bits:#x} would have {value} references"
                if value > 0:
                    raise ImageUnsupported(
                        self.meta.name, f"{what}, refcounts of {self.bits} bits cannot say that", offset=at
                    )
                raise ImageCorrupt(self.meta.name, what, offset=at)
            self._set(block, i, value)

    def set(self, cluster: int, value: int) -> None:
        """Make the refcount `value`, for repairs."""
        block = self.block(cluster >> self.block_shift)
        if block is None:
            if not value:
                return
            block = self._new_block(cluster >> self.block_shift)
        self._set(block, cluster & self.per_block - 1, value)

    # Allocation.

    def run(self, count: int) -> tuple[int, int]:
        """Allocate up to `count` clusters in a row: (offset, how many)."""
        cluster = self.hint
        while True:
            index, i = cluster >> self.block_shift, cluster & self.per_block - 1
            block = self.block(index)
            if block is None:
                block = self._new_block(index)
            start, end = self._free(block, i, count)
            if end > start:
                break
            cluster = index + 1 << self.block_shift
        first = (index << self.block_shift) + start
        self.meta.guard(first << self.cluster_bits, (end - start) << self.cluster_bits)
        for j in range(start, end):
            self._set(block, j, 1)
        self.hint = first + end - start
        return first << self.cluster_bits, end - start

    def _free(self, block: Table, i: int, count: int) -> tuple[int, int]:
        """The first free run of a block at or behind entry i, at most `count` long."""
        last = self.per_block
        if self.packed == 1:
            words = block.words
            i = _zero(words, i)
            end = i
            last = min(last, i + count)
            while end < last and not words[end]:
                end += 1
            return i, end
        while i < last and self._get(block, i):
            i += 1
        end = i
        while end < min(last, i + count) and not self._get(block, end):
            end += 1
        return i, end

    def contiguous(self, count: int, *, fresh: bool = False) -> int:
        """Allocate exactly `count` clusters in a row, `fresh` ones behind the file's end if wanted; their offset."""
        if count == 1 and not fresh:
            return self.run(1)[0]
        first = max(self.hint, -(-self.file.size >> self.cluster_bits)) if fresh else self.hint
        have = 0
        while have < count:
            cluster = first + have
            index = cluster >> self.block_shift
            block = self.block(index) or self._new_block(index)
            if self._get(block, cluster & self.per_block - 1):
                first, have = cluster + 1, 0
            else:
                have += 1
        self.meta.guard(first << self.cluster_bits, count << self.cluster_bits)
        self.change(first, count, 1)
        self.hint = max(self.hint, first + count) if first == self.hint or fresh else self.hint
        return first << self.cluster_bits

    def bytes(self, size: int) -> int:
        """Room for `size` bytes of compressed data, which may share clusters with others; the offset."""
        rest = -self.byte_hint % self.cluster_size
        last = self.byte_hint >> self.cluster_bits
        if rest and self.get(last) < self.maximum:
            if size <= rest:
                at = self.byte_hint
                self.change(last, 1, 1)
                self.byte_hint = at + size
                return at
            more = -(-(size - rest) >> self.cluster_bits)
            if self._all_free(last + 1, more):
                at = self.byte_hint
                self.meta.guard(last + 1 << self.cluster_bits, more << self.cluster_bits)
                self.change(last, more + 1, 1)
                self.hint = max(self.hint, last + 1 + more)
                self.byte_hint = at + size
                return at
        at = self.contiguous(-(-size >> self.cluster_bits))
        self.byte_hint = at + size
        return at

    def _all_free(self, first: int, count: int) -> bool:
        for cluster in range(first, first + count):
            index = cluster >> self.block_shift
            block = self.block(index) or self._new_block(index)
            if self._get(block, cluster & self.per_block - 1):
                return False
        return True

    def _new_block(self, index: int) -> Table:
        """Make a block where there is none: in the first cluster of its own range."""
        if (index + 1 << self.block_shift + self.cluster_bits) > MAX_HOST:
            raise HostError(self.meta.name, OSError(ENOSPC, ""), doing="the file has no more clusters")
        if index >= len(self.table):
            self._grow(index + 1)
            if (found := self.block(index)) is not None:  # growing has made it
                return found
        if self.blocks.full_of_dirt():
            self.meta.write_out(all_refcounts=True)
        self.blocks.make_room()
        offset = index << self.block_shift + self.cluster_bits
        self.meta.guard(offset, self.cluster_size)
        block = Table(offset, zeroes(self.cluster_size * 8 // self.unit, self.unit), new=True)
        self.blocks[index] = block
        self.table[index] = offset
        self.meta.known_blocks.add(offset)
        self.dirty_table.add(index)
        self._set(block, 0, 1)
        return block

    def _grow(self, need: int) -> None:
        """A larger table, behind everything that the old one can describe; then the header names the new one."""
        old_offset, old_clusters = self.table_offset, self.table_clusters
        first_index = len(self.table)
        per_cluster = self.cluster_size // 8
        entries = max(need, first_index + first_index // 2) + 2
        while True:
            clusters = -(-entries // per_cluster)
            blocks = 1
            while blocks * self.per_block < clusters + blocks:
                blocks += 1
            if clusters * per_cluster >= max(first_index + blocks, need):
                break
            entries = max(first_index + blocks, need)
        if clusters << self.cluster_bits > MAX_REFCOUNT_TABLE:
            raise HostError(self.meta.name, OSError(ENOSPC, ""), doing="the refcount table has its largest size")
        self.meta.write_out()
        first = first_index << self.block_shift
        table = zeroes(clusters * per_cluster)
        table[:first_index] = self.table
        for k in range(blocks):
            block = Table(
                (first + k) << self.cluster_bits, zeroes(self.cluster_size * 8 // self.unit, self.unit), new=True
            )
            for i in range(min(max(clusters + blocks - k * self.per_block, 0), self.per_block)):
                self._set(block, i, 1)
            block.write(self.file)
            table[first_index + k] = block.offset
            self.meta.known_blocks.add(block.offset)
        self.table_offset = (first + blocks) << self.cluster_bits
        store(self.file, self.table_offset, table)
        self.table, self.table_clusters = table, clusters
        self.file.flush()
        self.meta.node.update_header(refcount_table_offset=self.table_offset, refcount_table_clusters=clusters)
        self.file.flush()
        self.release(old_offset >> self.cluster_bits, old_clusters)

    # Giving up.

    def release(self, cluster: int, count: int = 1, *, punch: bool = False) -> None:
        """Nothing that is in memory refers to these clusters any more; count them down when the disk has that."""
        self.released.append((cluster, count, punch))

    def settle(self, released: list[tuple[int, int, bool]]) -> None:
        """Count down what was released: its last reference is gone from the disk, too."""
        for cluster, count, punch in released:
            self.change(cluster, count, -1)
            for c in range(cluster, cluster + count):
                if self.get(c):
                    continue
                self.hint = min(self.hint, c)
                if self.byte_hint and (self.byte_hint - 1) >> self.cluster_bits == c:
                    self.byte_hint = 0
                if punch:
                    self.file.discard(c << self.cluster_bits, self.cluster_size)

    def dirty_blocks(self) -> Iterator[Table]:
        """Blocks to be written."""
        return (block for block in self.blocks.values() if block.dirty)


def _zero(words: array[int], i: int) -> int:
    """The first word from i on that is zero; their number if none is. Not one by one: many blocks may be full.

    The bytes of each word are joined by OR, of all words at once: what is zero then is the place.
    """
    near = min(i + NEAR, len(words))
    for at in range(i, near):
        if not words[at]:
            return at
    size, data, joined = words.itemsize, words[near:].tobytes(), 0
    for k in range(size):
        joined |= int.from_bytes(data[k::size], "little")
    found = joined.to_bytes(len(words) - near, "little").find(0)
    return len(words) if found < 0 else near + found
