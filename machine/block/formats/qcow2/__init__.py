"""qcow2, versions 2 and 3 (docs/interop/qcow2.txt).

layout.py declares what is on the disk, header.py opens it; mapping.py finds what is stored for an address, writing.py
changes it; metadata.py keeps L1, L2 and refcounts in memory and orders their way to the disk; create.py, check.py,
snapshots.py, resize.py and bitmaps.py are what their names say. Here is the node and its data path.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, fill, scatter
from dbt.machine.block.errors import BlockError, ImageCorrupt, RequestRefused
from dbt.machine.block.formats.qcow2 import about, bitmaps, check, compressed, create, resize, snapshots, writing
from dbt.machine.block.formats.qcow2 import header as reading
from dbt.machine.block.formats.qcow2.compression import Compressor
from dbt.machine.block.formats.qcow2.layout import (
    AUTOCLEAR,
    COMPRESSED,
    CORRUPT,
    DATA_FILE,
    DIRTY,
    EXT_BACKING_FORMAT,
    EXT_DATA_FILE,
    EXTENDED_L2,
    LAZY_REFCOUNTS,
    MAGIC,
    OFFSET,
    RAW_DATA_FILE,
    ZERO,
    Geometry,
    HeaderV3,
)  # fmt: skip
from dbt.machine.block.formats.qcow2.mapping import NORMAL, PACKED, UNALLOCATED, ZERO_ALLOCATED, ZERO_PLAIN, locate
from dbt.machine.block.formats.qcow2.metadata import Metadata
from dbt.machine.block.node import CheckResult, Extent, Format, Measure
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.request import COMPRESSED as STORE_COMPRESSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.formats.qcow2.layout import HeaderV2
    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Node
    from dbt.machine.block.request import Vectors
    from dbt.machine.block.structure import Structure


class Qcow2(Format):
    """One open image."""

    driver = "qcow2"
    OPTIONS = (
        Option("l2-cache-size", SIZE, 32 << 20, help="memory for L2 tables"),
        Option("refcount-cache-size", SIZE, 4 << 20, help="memory for refcount blocks"),
        Option("lazy-refcounts", bool, None, help="write refcounts at the end; else as the image says"),
    )
    CREATE_OPTIONS = create.OPTIONS
    header: HeaderV2
    incompatible: int
    compatible: int
    autoclear: int
    refcount_order: int
    compression_type: str
    rest: bytes  # of the header, behind what version 3 had at first
    extensions: list[tuple[int, bytes]]
    backing_name, backing_format = "", ""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.file = opening.child("file")
        self.ranges = Ranges()
        reading.read(self)
        reading.check_features(self, opening)
        self.size = self.header.size
        self.geometry = Geometry.of(self.header.cluster_bits, extended=bool(self.incompatible & EXTENDED_L2))
        reading.check_tables(self)
        self.compressor = Compressor(self.compression_type, self.geometry.cluster_size)
        self._unpacked: tuple[int, int, bytes] | None = None  # entry, generation, the cluster
        self._generation = 0
        self.halfway = False  # refcounts are being changed for a snapshot
        self.snapshot_table = (0, 0)
        self.snapshot_list: list[snapshots.Snapshot] = []
        self.data_file: Node = self.file
        self.external = bool(self.incompatible & DATA_FILE)
        self.raw_external = self.external and bool(self.autoclear & RAW_DATA_FILE)
        self.meta = Metadata(self, self.geometry)
        snapshots.load_table(self)
        if self.external:
            self.data_file = opening.data_file(self.extension(EXT_DATA_FILE).decode(errors="replace"))
        if not opening.repair:
            self.backing = opening.backing(self.backing_name, self.backing_format or None)
        if self.writable:
            self._start_writing(opening)

    # The header.

    def extension(self, kind: int) -> bytes:
        """The data of a header extension; empty if it is not there."""
        return next((data for k, data in self.extensions if k == kind), b"")

    def update_header(self, **fields: int) -> None:
        """Change fields of the header, in one write of less than a sector."""
        for name, value in fields.items():
            setattr(self.header, name, value)
        if isinstance(self.header, HeaderV3):
            self.header.incompatible_features = self.incompatible
            self.header.compatible_features = self.compatible
            self.header.autoclear_features = self.autoclear
        self.file.pwrite(0, self.header.pack())

    def write_whole_header(self) -> None:
        """The header with its extensions and the backing file's name, one cluster."""
        data = create.header_cluster(self.header, self.rest, self.extensions, self.backing_name, self.name)
        self.file.pwrite(0, data)

    def _start_writing(self, opening: Opening) -> None:
        lazy = self.options["lazy-refcounts"]
        wanted = bool(self.compatible & LAZY_REFCOUNTS) if lazy is None else lazy
        self.meta.lazy = wanted and self.header.version >= 3
        if opening.repair:
            return
        bitmaps.refuse_recording(self)
        if self.incompatible & DIRTY:
            found = self.check("all")
            if not found.clean:
                offset, what = found.problems[0]
                raise ImageCorrupt(self.name, f"was not closed, and cannot be repaired: {what}", offset=offset)
        known = sum(1 << bit for bit in AUTOCLEAR)
        if self.autoclear & ~known:
            self.autoclear &= known
            self.update_header()

    def prepare(self) -> None:
        """Before anything is allocated or freed: with lazy refcounts the header says that they are not right."""
        if self.meta.lazy and not self.incompatible & DIRTY:
            with self.meta.mutex:
                self.set_dirty()

    def set_dirty(self) -> None:
        """From here on refcounts on the disk need not be right."""
        if self.header.version >= 3 and not self.incompatible & DIRTY:
            self.incompatible |= DIRTY
            self.update_header()
            self.file.flush()

    def set_clean(self) -> None:
        """Everything is on the disk, refcounts too."""
        meta = self.meta
        meta.flush()
        with meta.mutex:
            meta.write_out(all_refcounts=True)
            if self.incompatible & DIRTY:
                meta.sync()
                self.incompatible &= ~DIRTY
                self.update_header()
        meta.sync()

    def mark_corrupt(self) -> None:
        """Write no more, and say so in the image."""
        if self.writable and self.header.version >= 3 and not self.incompatible & CORRUPT:
            self.incompatible |= CORRUPT
            self.update_header()
        self.writable = False

    # Data.

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        held = self.ranges.acquire(offset, offset + length, alone=False)
        try:
            self.read_mapped(offset, length, vectors)
        finally:
            self.ranges.release(held)

    def read_mapped(self, offset: int, length: int, vectors: Vectors) -> None:
        """`read` for who holds the range."""
        done = 0
        while done < length:
            at = offset + done
            with self.meta.mutex:
                kind, count, host, _ = locate(self, at, length - done)
            part = vectors if count == length else cut(vectors, done, count)
            if kind == NORMAL:
                self.data_file.read(host, count, part)
            elif kind == UNALLOCATED and self.backing is not None:
                inside = min(count, max(self.backing.size - at, 0))
                if inside:
                    self.backing.read(at, inside, cut(part, 0, inside))
                if inside < count:
                    fill(part, inside, count - inside)
            elif kind == PACKED:
                within = at & self.geometry.cluster_size - 1
                scatter(memoryview(self._unpack(host))[within : within + count], part)
            else:
                fill(part, 0, count)
            done += count

    def try_read(self, offset: int, length: int, vectors: Vectors) -> bool:
        """Without the mutex, which a worker may hold for long: what was found in the table must be there after it.

        Had the cluster become another's meanwhile, the entry would have changed first.
        """
        geometry = self.geometry
        within = offset & geometry.cluster_size - 1
        if within + length > geometry.cluster_size or geometry.words == 2 or self.external:
            return False
        tables, index = self.meta.l2, offset >> geometry.l1_shift
        table = tables.get(index)
        if table is None:
            return False
        i = (offset >> geometry.cluster_bits) & geometry.l2_entries - 1
        entry = table.words[i]
        host = entry & OFFSET
        if host and not entry & (COMPRESSED | ZERO) and not host & geometry.cluster_size - 1:
            done = self.file.try_read(host + within, length, vectors)
        elif (entry == ZERO and self.header.version >= 3) or (not entry and self.backing is None):
            fill(vectors, 0, length)
            done = True
        elif not entry and self.backing is not None and offset + length <= self.backing.size:
            done = self.backing.try_read(offset, length, vectors)
        else:
            return False
        return done and tables.get(index) is table and table.words[i] == entry

    def _unpack(self, entry: int) -> bytes:
        kept = self._unpacked
        if kept is not None and kept[0] == entry and kept[1] == self._generation:
            return kept[2]
        generation, (offset, size) = self._generation, self.geometry.compressed(entry)
        if offset >= self.file.size:
            raise ImageCorrupt(self.name, "compressed cluster behind the end of the file", offset=offset)
        data = bytearray(size)
        self.file.read(offset, size, [memoryview(data)])
        cluster = self.compressor.unpack(data, self.name, offset)
        self._unpacked = (entry, generation, cluster)
        return cluster

    def forget_unpacked(self) -> None:
        """A compressed cluster's place may be used for another from now on."""
        self._generation += 1

    def reads_zero(self, offset: int, length: int) -> bool:
        """Whether the tables alone say that the range is zero."""
        while length > 0:
            with self.meta.mutex:
                kind, count, _, _ = locate(self, offset, length)
            if kind == UNALLOCATED:
                if self.backing is not None and offset < self.backing.size:
                    return False
            elif kind not in {ZERO_PLAIN, ZERO_ALLOCATED}:
                return False
            offset += count
            length -= count
        return True

    def store(self, host: int, vectors: list[memoryview]) -> None:
        """Write new clusters; the file ends with a whole one."""
        length = sum(map(len, vectors))
        self.data_file.write(host, length, vectors)

    def span(self, offset: int, length: int) -> tuple[int, int]:
        """The range, widened to whole clusters."""
        size = self.geometry.cluster_size
        return offset & -size, offset + length + size - 1 & -size

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self._may_write()
        if flags & STORE_COMPRESSED:
            compressed.write(self, offset, length, vectors)
            return
        start, end = self.span(offset, length)
        with self.ranges.shared(start, end):
            with self.meta.mutex:
                pieces = writing.in_place(self, offset, length)
            if pieces is not None:
                done = 0
                for host, count in pieces:
                    self.data_file.write(host, count, vectors if count == length else cut(vectors, done, count))
                    done += count
                return
        with self.ranges.alone(start, end):
            writing.write(self, offset, length, vectors)

    def _may_write(self) -> None:
        if not self.writable:
            what = "is marked corrupt, was opened for reading only, or a change of it was stopped halfway"
            raise RequestRefused(self.name, what)

    @contextmanager
    def _rebuilding(self) -> Iterator[None]:
        """For what changes more than data. Stopped halfway nothing more is written: the disk is as after a crash."""
        self._may_write()
        with self.ranges.alone(), self.meta.mutex:
            try:
                yield
            except BlockError:
                self.writable = self.writable and not self.halfway
                raise
            except BaseException:
                self.writable = False
                raise

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self._may_write()
        with self.ranges.alone(*self.span(offset, length)):
            writing.write_zeroes(self, offset, length, flags)

    def discard(self, offset: int, length: int) -> None:
        self._may_write()
        with self.ranges.alone(*self.span(offset, length)):
            writing.discard(self, offset, length)

    def flush(self) -> None:
        self.meta.flush()

    def status(self, offset: int, length: int) -> Extent:
        with self.meta.mutex:
            kind, count, host, _ = locate(self, offset, length)
        if kind == UNALLOCATED:
            return Extent(count, data=False, zero=self.backing is None, allocated=False)
        if kind == PACKED:
            return Extent(count, data=True, zero=False, compressed=True)
        if kind == ZERO_PLAIN:
            return Extent(count, data=False, zero=True)
        return Extent(count, data=kind == NORMAL, zero=kind == ZERO_ALLOCATED, offset=host)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        with self._rebuilding():
            resize.resize(self, size, preallocation)

    def close(self) -> None:
        try:
            if self.writable:
                self.set_clean()
        finally:
            self.writable = False
            super().close()

    # What is known about it.

    def info(self) -> dict[str, Any]:
        return about.info(self)

    def structures(self) -> Iterator[tuple[str, int, Structure]]:
        return about.structures(self)

    def check(self, repair: str = "") -> CheckResult:
        if repair:
            self._may_write()
        with self.ranges.alone(), self.meta.mutex:
            return check.check(self, repair)

    def change_backing(self, name: str, driver: str) -> None:
        self._may_write()
        self.meta.flush()
        self.backing_name = name
        self.extensions = [pair for pair in self.extensions if pair[0] != EXT_BACKING_FORMAT]
        if name and driver:
            self.extensions.insert(0, (EXT_BACKING_FORMAT, driver.encode()))
        self.backing_format = driver if name else ""
        self.write_whole_header()
        self.file.flush()

    def empty(self) -> None:
        with self._rebuilding():
            writing.discard(self, 0, self.size, full=True)

    def snapshots(self) -> list[dict[str, Any]]:
        return snapshots.describe(self)

    def snapshot_create(self, name: str) -> None:
        with self._rebuilding():
            snapshots.create(self, name)

    def snapshot_apply(self, name: str) -> None:
        with self._rebuilding():
            snapshots.apply(self, name)

    def snapshot_delete(self, name: str) -> None:
        with self._rebuilding():
            snapshots.delete(self, name)

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        return head[:4] == MAGIC.to_bytes(4, "big") and head[4:8] in {b"\0\0\0\2", b"\0\0\0\3"}

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        create.create(cls, file, size, options)

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        return create.measure(size, options, data)


DRIVER = Qcow2
