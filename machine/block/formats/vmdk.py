"""VMDK, VMware's virtual disk (Virtual Disk Format 5.0): monolithicSparse and streamOptimized, one file each.

A grain directory leads to grain tables, these to grains of 64 KiB; there is a second copy of both. In a
stream-optimised file each grain is compressed with zlib behind a marker, and written once. Other kinds, which are
several files, and files with a parent are refused by the name that their descriptor has.
"""

from __future__ import annotations

import os
import random
import re
import zlib
from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, gather
from dbt.machine.block.errors import BadOption, ImageCorrupt, ImageUnsupported, RequestRefused
from dbt.machine.block.mapped import DATA, PACKED, UNALLOCATED, ZERO, Mapped
from dbt.machine.block.node import CheckResult
from dbt.machine.block.options import Option
from dbt.machine.block.structure import Structure, raw, u8, u16, u32, u64
from dbt.machine.block.table_cache import TableCache
from dbt.machine.block.usage import Usage, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Measure, Node
    from dbt.machine.block.request import Vectors

SECTOR = 512
REDUNDANT, ZEROED_GRAIN, COMPRESSED, MARKERS = 1 << 1, 1 << 2, 1 << 16, 1 << 17
KNOWN = 1 | REDUNDANT | ZEROED_GRAIN | COMPRESSED | MARKERS
AT_END = (1 << 64) - 1
PER_TABLE = 512
GRAIN = 128
AHEAD = 32 << 20
MAX_UNLINKED = 1 << 12  # grains of a stream that no table has yet
DESCRIPTOR_AT, DESCRIPTOR_SECTORS = 1, 20
MAX_DESCRIPTOR = 1 << 20
MAX_CAPACITY = 1 << 37  # sectors, 64 TiB
KINDS = ("monolithicSparse", "streamOptimized")


class SparseExtentHeader(Structure, order="<"):
    """Hosted sparse extent header, 512 bytes; offsets and sizes are in sectors."""

    magicNumber = raw(4, only=(b"KDMV",), form="text")
    version = u32(1, minimum=1, maximum=3)
    flags = u32(bits={0: "newline test", 1: "redundant table", 2: "zeroed grain", 16: "compressed", 17: "markers"})
    capacity = u64(maximum=MAX_CAPACITY)
    grainSize = u64(GRAIN, minimum=8, maximum=1 << 15)
    descriptorOffset = u64()
    descriptorSize = u64(maximum=MAX_DESCRIPTOR // SECTOR)
    numGTEsPerGT = u32(PER_TABLE, only=(PER_TABLE,))
    rgdOffset = u64()
    gdOffset = u64()
    overHead = u64()
    uncleanShutdown = u8()
    newLines = raw(4, b"\n \r\n")
    compressAlgorithm = u16()
    pad = raw(433)


class GrainMarker(Structure, order="<"):
    """In front of a compressed grain."""

    lba = u64()
    size = u32(minimum=1)


class Vmdk(Mapped):
    """One open file."""

    driver = "vmdk"
    ahead = AHEAD
    CREATE_OPTIONS = (
        Option("subformat", KINDS, KINDS[0], help="one growing file, or one that is compressed and written once"),
        Option("adapter_type", ("ide", "lsilogic", "buslogic", "legacyESX"), "ide", help="for the geometry"),
        Option("compat6", bool, False, help="hardware version 6"),
        Option("hwversion", str, None, help="hardware version, as the descriptor is to say it"),
        Option("toolsversion", str, "2147483647", help="version of VMware's tools, as the descriptor is to say it"),
        Option("zeroed_grain", bool, False, help="entries can say that a grain is zero"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        file, name = self.file, self.name
        head = bytes(file.pread(0, min(SECTOR, file.size)))
        if head.lstrip().startswith(b"# Disk DescriptorFile"):
            kind = _value(file.pread(0, min(file.size, MAX_DESCRIPTOR)).decode(errors="replace"), "createType")
            raise ImageUnsupported(name, f"createType {kind}: images of several files are not implemented", offset=0)
        header = SparseExtentHeader.parse(head, name)
        self.header_at = 0
        if header.gdOffset == AT_END:  # a stream that was written in one go: the header's copy is at the end
            self.header_at = max(file.size - 2 * SECTOR, 0)
            header = SparseExtentHeader.parse(file.pread(self.header_at, SECTOR), name, self.header_at)
        self.header = header
        if header.flags & ~KNOWN:
            raise ImageUnsupported(name, f"flags {header.flags & ~KNOWN:#x} are not known", offset=8)
        self.packed = bool(header.flags & COMPRESSED)
        if self.packed and (header.compressAlgorithm != 1 or not header.flags & MARKERS):
            raise ImageUnsupported(name, f"compressAlgorithm {header.compressAlgorithm}, or no markers", offset=77)
        if header.grainSize & header.grainSize - 1:
            raise ImageCorrupt(name, f"grainSize {header.grainSize} is no power of two", offset=20)
        self.size, self.cluster = header.capacity * SECTOR, header.grainSize * SECTOR
        self.zero_entries = bool(header.flags & ZEROED_GRAIN)
        self.grains = -(-self.size // self.cluster)
        self.directory = header.gdOffset * SECTOR
        self.directory_entries = -(-self.grains // PER_TABLE)
        if header.gdOffset < 1 or self.directory + self.directory_entries * 4 > file.size:
            raise ImageCorrupt(name, "the grain directory lies where none can be", offset=self.header_at + 56)
        self.second = header.rgdOffset * SECTOR if header.flags & REDUNDANT else 0
        if self.second + self.directory_entries * 4 > file.size:
            raise ImageCorrupt(name, "the redundant grain directory lies behind the end", offset=self.header_at + 48)
        self._read_descriptor()
        self.unlinked: dict[int, int] = {}  # grains of a stream, where they are: tables have them after a flush
        if self.packed:
            self.ahead = 0
        self.tables = TableCache(file, 32, "<")
        unit = SECTOR if self.packed else self.cluster
        self.end = max(-(-file.size // unit) * unit, -(-header.overHead * SECTOR // unit) * unit)
        if header.overHead * SECTOR > file.size:
            raise ImageCorrupt(name, f"overHead is {header.overHead}, behind the end of the file", offset=64)
        if self.header_at and self.writable:
            raise ImageUnsupported(name, "a stream that was written in one go is only read")

    def _read_descriptor(self) -> None:
        header, self.descriptor = self.header, ""
        if not header.descriptorOffset:
            return
        at = header.descriptorOffset * SECTOR
        data = bytes(self.file.pread(at, header.descriptorSize * SECTOR))
        self.descriptor = data.partition(b"\0")[0].decode(errors="replace")
        kind = _value(self.descriptor, "createType")
        if kind not in KINDS:
            raise ImageUnsupported(self.name, f"createType {kind} is not implemented", offset=at)
        if _value(self.descriptor, "parentCID").lower() not in {"", "ffffffff"}:
            raise ImageUnsupported(self.name, "a parent (parentCID): VMDK with one is not implemented", offset=at)

    # Where grains are.

    def _table(self, directory: int, index: int) -> int:
        number = index // PER_TABLE
        table = self.tables.get(directory, number) * SECTOR
        if table and table + PER_TABLE * 4 > self.file.size:
            what = f"grain table {number} is at {table:#x}, behind the end of the file"
            raise ImageCorrupt(self.name, what, offset=directory + 4 * number)
        return table

    def place(self, index: int) -> tuple[int, int, int]:
        if index in self.unlinked:
            return PACKED, self.unlinked[index], 1
        table = self._table(self.directory, index)
        if not table:
            return UNALLOCATED, 0, PER_TABLE - index % PER_TABLE if not self.unlinked else 1
        entry = self.tables.get(table, index % PER_TABLE)
        if entry == 0:
            return UNALLOCATED, 0, 1
        if entry == 1 and self.zero_entries:
            return ZERO, 0, 1
        host = entry * SECTOR
        if host >= self.file.size or host < SECTOR:
            what = f"grain {index} is at {host:#x}, where none can be"
            raise ImageCorrupt(self.name, what, offset=table + index % PER_TABLE * 4)
        return (PACKED if self.packed else DATA), host, 1

    def unpack(self, host: int) -> bytes:
        marker = GrainMarker.parse(self.file.pread(host, GrainMarker.SIZE), self.name, host)
        if marker.size > 2 * self.cluster:
            raise ImageCorrupt(self.name, f"a compressed grain of {marker.size} bytes", offset=host)
        data = self.file.pread(host + GrainMarker.SIZE, marker.size)
        try:
            grain = zlib.decompressobj().decompress(data, self.cluster)
        except zlib.error as wrong:
            raise ImageCorrupt(self.name, f"a compressed grain: {wrong}", offset=host) from None
        return grain.ljust(self.cluster, b"\0")

    def link(self, index: int, kind: int, host: int) -> None:
        entry = 1 if kind == ZERO else host // SECTOR
        if entry >= 1 << 32:
            raise RequestRefused(self.name, "a VMDK file ends at 2 TiB", offset=host)
        for directory in (self.second, self.directory):
            if not directory:
                continue
            table = self._table(directory, index)
            if not table:
                what = f"grain table {index // PER_TABLE} is missing: images without all their tables are only read"
                raise ImageUnsupported(self.name, what, offset=directory)
            self.tables.put(table, index % PER_TABLE, entry)

    # Writing a stream.

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        if not self.packed:
            super().write(offset, length, vectors, flags)
            return
        self.check_writable()
        with self.ranges.alone(*self._span(offset, length)):
            done = 0
            while done < length:
                index, within = divmod(offset + done, self.cluster)
                count = min(self.cluster - within, length - done)
                data = bytes(gather(cut(vectors, done, count)))
                self._pack(index, bytes(within) + data)
                done += count

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        if not self.packed:
            super().write_zeroes(offset, length, flags)
            return
        self.check_writable()
        while length > 0:
            with self.mutex:
                kind, count, _ = self.locate(offset, length)
            if kind == PACKED:
                raise self._written(offset)
            offset, length = offset + count, length - count

    def _written(self, offset: int) -> ImageUnsupported:
        what = "this grain was written before, and a streamOptimized image is written once, in whole grains"
        return ImageUnsupported(self.name, what, offset=offset)

    def _pack(self, index: int, data: bytes) -> None:
        with self.mutex:
            if self.place(index)[0] == PACKED:
                raise self._written(index * self.cluster)
            content = zlib.compress(data.ljust(self.cluster, b"\0"))
            grain = GrainMarker(lba=index * self.header.grainSize, size=len(content)).pack() + content
            host, self.end = self.end, self.end + -(-len(grain) // SECTOR) * SECTOR
            self.file.pwrite(host, grain.ljust(self.end - host, b"\0"))
            self.unlinked[index] = host
            if len(self.unlinked) > MAX_UNLINKED:
                self._link_stream()

    def _link_stream(self) -> None:
        """Grains are on stable storage before tables lead there. The mutex is held."""
        self.file.flush()
        for index, host in self.unlinked.items():
            self.link(index, PACKED, host)
        self.unlinked.clear()

    def flush(self) -> None:
        with self.mutex:
            if self.unlinked:
                self._link_stream()
        self.file.flush()

    # What is known about it.

    def info(self) -> dict[str, Any]:
        return {
            "create-type": _value(self.descriptor, "createType"), "grain-size": self.cluster,
            "cid": _value(self.descriptor, "CID"), "compressed": self.packed, "zeroed-grain": self.zero_entries,
        }  # fmt: skip

    def structures(self) -> Iterator[tuple[str, int, SparseExtentHeader]]:
        yield "header", self.header_at, self.header

    def check(self, repair: str = "") -> CheckResult:
        if repair:
            self.check_writable()
        result = CheckResult()
        result.total_clusters = self.grains
        if self.writable:
            self.flush()
        with self.ranges.alone(), self.mutex:
            usage = Usage(self, SECTOR, result)
            for number, place in self.tables.entries(self.directory, self.directory_entries):
                table = place * SECTOR
                if not usage.take(table, PER_TABLE * 4, f"grain table {number}"):
                    continue
                for k, entry in self.tables.entries(table, PER_TABLE):
                    if entry == 1 and self.zero_entries:
                        continue
                    host = entry * SECTOR
                    length = SECTOR if self.packed else min(self.cluster, max(usage.limit - host, 1))
                    if usage.take(host, length, f"grain {number * PER_TABLE + k}"):
                        result.allocated_clusters += 1
                        result.compressed_clusters += self.packed
                    elif repair == "all":
                        self.link(number * PER_TABLE + k, UNALLOCATED, 0)
                        result.corruptions_fixed += 1
        return result

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        return head[:4] == b"KDMV" or head.lstrip().startswith(b"# Disk DescriptorFile")

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        capacity = -(-size // SECTOR)
        if capacity > MAX_CAPACITY:
            raise BadOption(file.name, f"a size of {size}: at most 64 TiB")
        if options["hwversion"] and options["compat6"]:
            raise BadOption(file.name, "hwversion and compat6 contradict each other")
        for name in ("hwversion", "toolsversion"):
            if not re.fullmatch(r"[\w.-]*", options[name] or ""):
                raise BadOption(file.name, f"{name} {options[name]!r} is no version")
        stream = options["subformat"] == "streamOptimized"
        tables = -(-capacity // (GRAIN * PER_TABLE))
        directory = -(-tables * 4 // SECTOR)
        second = DESCRIPTOR_AT + DESCRIPTOR_SECTORS
        first = second + directory + tables * 4
        flags = 1 | REDUNDANT | (ZEROED_GRAIN if options["zeroed_grain"] else 0)
        header = SparseExtentHeader(
            version=3 if stream else 2 if options["zeroed_grain"] else 1,
            flags=flags | (COMPRESSED | MARKERS if stream else 0), capacity=capacity,
            descriptorOffset=DESCRIPTOR_AT, descriptorSize=DESCRIPTOR_SECTORS, rgdOffset=second, gdOffset=first,
            overHead=-(-(first + directory + tables * 4) // GRAIN) * GRAIN, compressAlgorithm=int(stream),
        )  # fmt: skip
        file.resize(header.overHead * SECTOR)
        for at in (second, first):
            places = b"".join((at + directory + k * 4).to_bytes(4, "little") for k in range(tables))
            file.pwrite(at * SECTOR, places)
        text = _descriptor(os.path.basename(file.name), capacity, options).encode(errors="surrogateescape")
        if len(text) > DESCRIPTOR_SECTORS * SECTOR:
            raise BadOption(file.name, "the descriptor does not fit: its name is too long")
        file.pwrite(0, header.pack() + text)
        file.flush()

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        tables = -(-size // (GRAIN * SECTOR * PER_TABLE))
        head = 1 + DESCRIPTOR_SECTORS + 2 * (-(-tables * 4 // SECTOR) + tables * 4)
        return measured(size, GRAIN * SECTOR, data, -(-head // GRAIN) * GRAIN * SECTOR)


def _value(text: str, name: str) -> str:
    found = re.search(rf'^{name}\s*=\s*"?([^"\n]*)', text, re.MULTILINE)
    return found[1].strip() if found else ""


def _descriptor(name: str, capacity: int, options: dict[str, Any]) -> str:
    heads = 16 if options["adapter_type"] == "ide" else 255
    version = options["hwversion"] or ("6" if options["compat6"] else "4")
    return f"""# Disk DescriptorFile
version=1
CID={random.getrandbits(32) | 1:08x}
parentCID=ffffffff
createType="{options["subformat"]}"

# Extent description
RW {capacity} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "{version}"
ddb.geometry.cylinders = "{capacity // (heads * 63)}"
ddb.geometry.heads = "{heads}"
ddb.geometry.sectors = "63"
ddb.adapterType = "{options["adapter_type"]}"
ddb.toolsVersion = "{options["toolsversion"]}"
"""


DRIVER = Vmdk
