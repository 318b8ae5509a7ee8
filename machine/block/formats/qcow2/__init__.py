"""qcow2, versions 2 and 3 (docs/interop/qcow2.txt).

layout.py declares what is on the disk; mapping.py finds what is stored for an address, writing.py changes it;
metadata.py keeps L1, L2 and refcounts in memory and orders their way to the disk; create.py, check.py, snapshots.py,
resize.py and bitmaps.py are what their names say. Here is the node: opening, the header, and the data path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, fill, scatter
from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported, RequestRefused
from dbt.machine.block.formats.qcow2 import bitmaps, check, create, resize, snapshots, writing
from dbt.machine.block.formats.qcow2.compression import Compressor
from dbt.machine.block.formats.qcow2.layout import (
    AUTOCLEAR,
    BITMAPS,
    COMPRESSED,
    COMPRESSION,
    COMPRESSION_TYPES,
    CORRUPT,
    CRYPT_METHODS,
    DATA_FILE,
    DIRTY,
    EXT_BACKING_FORMAT,
    EXT_CRYPTO,
    EXT_DATA_FILE,
    EXT_FEATURES,
    EXTENDED_L2,
    INCOMPATIBLE,
    LAZY_REFCOUNTS,
    MAGIC,
    MAX_REFCOUNT_TABLE,
    OFFSET,
    RAW_DATA_FILE,
    ZERO,
    FeatureName,
    Geometry,
    HeaderRest,
    HeaderV2,
    HeaderV3,
    parse_extensions,
)  # fmt: skip
from dbt.machine.block.formats.qcow2.mapping import NORMAL, PACKED, UNALLOCATED, ZERO_ALLOCATED, ZERO_PLAIN, locate
from dbt.machine.block.formats.qcow2.metadata import Metadata
from dbt.machine.block.node import CheckResult, Extent, Format, Measure
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.request import COMPRESSED as STORE_COMPRESSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.file = opening.child("file")
        self.ranges = Ranges()
        self._read_header()
        self._check_features(opening)
        self.size = self.header.size
        self.geometry = Geometry.of(self.header.cluster_bits, extended=bool(self.incompatible & EXTENDED_L2))
        self._check_tables()
        self.compressor = Compressor(self.compression_type, self.geometry.cluster_size)
        self._unpacked: tuple[int, int, bytes] | None = None  # entry, generation, the cluster
        self._generation = 0
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

    def _read_header(self) -> None:
        head = bytes(self.file.pread(0, min(self.file.size, 1 << 16)))
        self.header: HeaderV2 = HeaderV2.parse(head, self.name)
        self.incompatible = self.compatible = self.autoclear = 0
        self.refcount_order = 4
        self.compression_type = "zlib"
        length = HeaderV2.SIZE
        self.rest = b""
        if self.header.version >= 3:
            header = self.header = HeaderV3.parse(head, self.name)
            self.incompatible, self.compatible = header.incompatible_features, header.compatible_features
            self.autoclear, self.refcount_order = header.autoclear_features, header.refcount_order
            length = header.header_length
            if length % 8 or length > 1 << header.cluster_bits:
                at = 100
                raise ImageCorrupt(self.name, f"HeaderV3.header_length is {length}", offset=at)
            if length > HeaderV3.SIZE:
                kind = HeaderRest.parse(head.ljust(112, b"\0"), self.name, 104, start=104).compression_type
                if kind >= len(COMPRESSION_TYPES):
                    raise ImageUnsupported(self.name, f"compression type {kind} is not known", offset=104)
                self.compression_type = COMPRESSION_TYPES[kind]
                if bool(kind) != bool(self.incompatible & COMPRESSION):
                    what = f"compression type {self.compression_type} contradicts its incompatible bit"
                    raise ImageCorrupt(self.name, what, offset=104)
            elif self.incompatible & COMPRESSION:
                raise ImageCorrupt(self.name, "the compression type bit is set, and the header too short", offset=72)
            self.rest = head[HeaderV3.SIZE : length]
        size = 1 << self.header.cluster_bits
        name_at, name_size = self.header.backing_file_offset, self.header.backing_file_size
        end = min(size, len(head))
        if name_at:
            if name_at + name_size > size:
                raise ImageCorrupt(self.name, "the backing file's name lies outside of the first cluster", offset=8)
            end = min(end, name_at) if name_at >= length else end
        name = head[name_at : name_at + name_size] if name_at else b""
        self.backing_name = name.decode(errors="surrogateescape")
        self.extensions = parse_extensions(head, length, max(end, length), self.name)
        self.backing_format = self.extension(EXT_BACKING_FORMAT).decode(errors="replace")

    def extension(self, kind: int) -> bytes:
        """The data of a header extension; empty if it is not there."""
        return next((data for k, data in self.extensions if k == kind), b"")

    def _check_features(self, opening: Opening) -> None:
        header = self.header
        if header.crypt_method or self.extension(EXT_CRYPTO):
            method = CRYPT_METHODS.get(header.crypt_method, "unknown")
            raise ImageUnsupported(self.name, f"encrypted with {method}: encryption is not implemented", offset=32)
        unknown = self.incompatible & ~sum(1 << bit for bit in INCOMPATIBLE)
        if unknown:
            names = ", ".join(self._feature_name(bit) for bit in range(64) if unknown >> bit & 1)
            raise ImageUnsupported(self.name, f"incompatible features that are not known: {names}", offset=72)
        if self.incompatible & CORRUPT and self.writable and not opening.repair:
            raise ImageCorrupt(self.name, "is marked corrupt: repair it, or open it for reading", offset=72)
        if self.incompatible & EXTENDED_L2 and header.cluster_bits < 14:
            raise ImageCorrupt(self.name, "extended L2 entries need clusters of 16 KiB or more", offset=20)
        if self.incompatible & DATA_FILE and not self.extension(EXT_DATA_FILE) and not opening.has("data-file"):
            raise ImageCorrupt(self.name, "has an external data file and does not name it", offset=72)

    def _feature_name(self, bit: int) -> str:
        table = self.extension(EXT_FEATURES)
        for at in range(0, len(table) - FeatureName.SIZE + 1, FeatureName.SIZE):
            row = FeatureName.parse(table, self.name, start=at)
            if (row.type, row.bit) == (0, bit):
                return f"{row.name.rstrip(bytes(1)).decode(errors='replace')!r} (bit {bit})"
        return f"bit {bit}"

    def _check_tables(self) -> None:
        """Tables that the header names: aligned, of a size that can be, and not on top of each other."""
        header, size = self.header, self.geometry.cluster_size
        if header.l1_size < self.geometry.l1_entries(header.size):
            what = f"the L1 table has {header.l1_size} entries, {self.geometry.l1_entries(header.size)} are needed"
            raise ImageCorrupt(self.name, what, offset=36)
        clusters = header.refcount_table_clusters
        if not clusters or clusters * size > MAX_REFCOUNT_TABLE:
            raise ImageCorrupt(self.name, f"the refcount table has {clusters} clusters", offset=56)
        tables = [
            ("header", 0, size, 0),
            ("L1 table", header.l1_table_offset, header.l1_size * 8, 40),
            ("refcount table", header.refcount_table_offset, clusters * size, 48),
        ]
        if header.nb_snapshots:
            tables.append(("snapshot table", header.snapshots_offset, 1, 64))
        for k, (name, offset, length, at) in enumerate(tables):
            if offset & size - 1 or offset >= 1 << 56:
                raise ImageCorrupt(self.name, f"the {name} is at {offset:#x}: not aligned", offset=at)
            for other, start, count, _ in tables[:k]:
                if offset < start + count and start < offset + length:
                    raise ImageCorrupt(self.name, f"the {name} and the {other} overlap", offset=at)

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
        generation = self._generation
        offset, size = self.geometry.compressed(entry)
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

    def _span(self, offset: int, length: int) -> tuple[int, int]:
        size = self.geometry.cluster_size
        return offset & -size, offset + length + size - 1 & -size

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self._may_write()
        if flags & STORE_COMPRESSED:
            self._write_compressed(offset, length, vectors)
            return
        start, end = self._span(offset, length)
        with self.ranges.shared(start, end):
            with self.meta.mutex:
                pieces = writing.in_place(self, offset, length)
            if pieces is not None:
                done = 0
                for host, count in pieces:
                    part = vectors if count == length else cut(vectors, done, count)
                    self.data_file.write(host, count, part)
                    done += count
                return
        with self.ranges.alone(start, end):
            writing.write(self, offset, length, vectors)

    def _write_compressed(self, offset: int, length: int, vectors: Vectors) -> None:
        size = self.geometry.cluster_size
        if offset % size or (length % size and offset + length != self.size):
            raise RequestRefused(self.name, "compressed writes are of whole clusters", offset=offset)
        if self.external:
            raise ImageUnsupported(self.name, "an external data file cannot hold compressed clusters")
        data = memoryview(b"".join(vectors)) if len(vectors) > 1 else vectors[0]
        pieces: list[bytes | None] = []
        for at in range(0, length, size):
            piece: memoryview | bytes = data[at : at + size]
            pieces.append(self.compressor.pack(piece if len(piece) == size else bytes(piece).ljust(size, b"\0")))
        with self.ranges.alone(*self._span(offset, length)):
            k = 0
            while k < len(pieces):
                at = offset + k * size
                run: list[bytes] = []
                while k < len(pieces) and (packed := pieces[k]) is not None and self._never_written(offset + k * size):
                    run.append(packed)
                    k += 1
                if run:
                    writing.write_packed(self, at, run)
                else:
                    rest = min(size, length - k * size)
                    writing.write(self, at, rest, [data[k * size : k * size + rest]])
                    k += 1

    def _never_written(self, offset: int) -> bool:
        with self.meta.mutex:
            kind, count, _, _ = locate(self, offset, self.geometry.cluster_size)
        return kind in {UNALLOCATED, ZERO_PLAIN} and count >= min(self.geometry.cluster_size, self.size - offset)

    def _may_write(self) -> None:
        if not self.writable:
            raise RequestRefused(self.name, "the image is marked corrupt, or was opened for reading only")

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self._may_write()
        with self.ranges.alone(*self._span(offset, length)):
            writing.write_zeroes(self, offset, length, flags)

    def discard(self, offset: int, length: int) -> None:
        self._may_write()
        with self.ranges.alone(*self._span(offset, length)):
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
        self._may_write()
        with self.ranges.alone(), self.meta.mutex:
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
        found: dict[str, Any] = {
            "compat": "1.1" if self.header.version >= 3 else "0.10", "cluster-size": self.geometry.cluster_size,
            "compression-type": self.compression_type, "lazy-refcounts": bool(self.compatible & LAZY_REFCOUNTS),
            "refcount-bits": 1 << self.refcount_order, "corrupt": bool(self.incompatible & CORRUPT),
            "dirty": bool(self.incompatible & DIRTY), "extended-l2": bool(self.incompatible & EXTENDED_L2),
        }  # fmt: skip
        if self.backing_name:
            found["backing-filename"] = self.backing_name
            if self.backing_format:
                found["backing-format"] = self.backing_format
        if self.external:
            found["data-file"] = self.extension(EXT_DATA_FILE).decode(errors="replace")
            found["data-file-raw"] = self.raw_external
        if self.autoclear & BITMAPS and (listed := bitmaps.describe(self)):
            found["bitmaps"] = listed
        return found

    def structures(self) -> Iterator[tuple[str, int, Structure]]:
        yield "header", 0, self.header
        if len(self.rest) >= HeaderRest.SIZE:
            yield "additional fields", HeaderV3.SIZE, HeaderRest.parse(self.rest, self.name, HeaderV3.SIZE)
        yield from snapshots.structures(self)
        if self.autoclear & BITMAPS:
            yield from bitmaps.structures(self)

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
        self._may_write()
        with self.ranges.alone():
            writing.discard(self, 0, self.size, full=True)

    def snapshots(self) -> list[dict[str, Any]]:
        return snapshots.describe(self)

    def snapshot_create(self, name: str) -> None:
        self._may_write()
        with self.ranges.alone(), self.meta.mutex:
            snapshots.create(self, name)

    def snapshot_apply(self, name: str) -> None:
        self._may_write()
        with self.ranges.alone(), self.meta.mutex:
            snapshots.apply(self, name)

    def snapshot_delete(self, name: str) -> None:
        self._may_write()
        with self.ranges.alone(), self.meta.mutex:
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
