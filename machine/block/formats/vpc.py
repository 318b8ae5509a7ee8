"""VPC, the VHD format of Virtual PC (Virtual Hard Disk Image Format Specification 1.0): fixed and dynamic.

A fixed disk is raw with a footer behind it. A dynamic one has a copy of the footer in front, a header, a table of
blocks, and blocks that begin with a bitmap of sectors; like other writers we set all of its bits. Differencing disks
are refused. The size is that of the footer's CurrentSize, unless an old writer's images are only as large as their
geometry says (qemu's, where the size was not forced). A new image has the next size that is one of a geometry, since
Virtual PC goes by that; with `force_size` it has the size that is asked for, and the largest geometry to say so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dbt.machine.block.errors import BadOption, ImageCorrupt, ImageUnsupported
from dbt.machine.block.mapped import DATA, ZERO, Mapped
from dbt.machine.block.node import CheckResult
from dbt.machine.block.options import Option
from dbt.machine.block.structure import Structure, raw, u8, u16, u32, u64
from dbt.machine.block.table_cache import TableCache
from dbt.machine.block.usage import Usage, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Measure, Node

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NOWHERE = 0xFFFFFFFF
SECTOR, BLOCK = 512, 2 << 20
AHEAD = 32 << 20
LARGEST = (65535, 16, 255)  # geometry
MAX_SECTORS = math.prod(LARGEST)
MAX_SIZE = 0xFF000000 * SECTOR  # 2040 GiB, the format's own limit
BY_GEOMETRY = {b"vpc ", b"vs  ", b"qemu"}  # creators whose geometry is the size, as qemu has it


class Footer(Structure, order=">"):
    """Hard Disk Footer: the last 512 bytes, and the first of a dynamic disk."""

    Cookie = raw(8, only=(b"conectix",), form="text")
    Features = u32(2, bits={0: "temporary", 1: "reserved, set"})
    FileFormatVersion = u32(0x00010000, form="hex")
    DataOffset = u64(form="hex")
    TimeStamp = u32()
    CreatorApplication = raw(4, form="text")
    CreatorVersion = u32(form="hex")
    CreatorHostOS = raw(4, form="text")
    OriginalSize = u64()
    CurrentSize = u64()
    Cylinder = u16()
    Heads = u8()
    SectorsPerTrack = u8()
    DiskType = u32()
    Checksum = u32(form="hex")
    UniqueId = raw(16)
    SavedState = u8()
    Reserved = raw(427)


class DynamicHeader(Structure, order=">"):
    """Dynamic Disk Header."""

    Cookie = raw(8, only=(b"cxsparse",), form="text")
    DataOffset = u64((1 << 64) - 1, form="hex")
    TableOffset = u64(form="hex")
    HeaderVersion = u32(0x00010000, form="hex")
    MaxTableEntries = u32()
    BlockSize = u32(minimum=SECTOR, maximum=256 << 20)
    Checksum = u32(form="hex")
    ParentUniqueID = raw(16)
    ParentTimeStamp = u32()
    Reserved = u32()
    ParentUnicodeName = raw(512)
    ParentLocators = raw(192)
    Reserved2 = raw(256)


def checksum(structure: Footer | DynamicHeader) -> int:
    """The complement of the sum of all other bytes."""
    kept, structure.Checksum = structure.Checksum, 0
    value = ~sum(structure.pack()) & NOWHERE
    structure.Checksum = kept
    return value


def geometry(sectors: int) -> tuple[int, int, int]:
    """(cylinders, heads, sectors per track) by the specification's appendix."""
    sectors = min(sectors, MAX_SECTORS)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    track = 17
    tracks = sectors // track
    heads = max(-(-tracks // 1024), 4)
    if tracks >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        tracks = sectors // track
    if tracks >= heads * 1024:
        track, heads = 63, 16
        tracks = sectors // track
    return tracks // heads, heads, track


def sized(size: int, *, forced: bool) -> tuple[int, tuple[int, int, int]]:
    """(bytes, geometry) of a disk that holds `size` bytes: as many as a geometry has, unless none has, or `forced`."""
    wanted = sectors = -(-size // SECTOR)
    place = LARGEST if forced else geometry(sectors)
    while not forced and math.prod(place) < min(wanted, MAX_SECTORS):
        sectors += 1
        place = geometry(sectors)
    return (wanted if math.prod(place) == MAX_SECTORS else math.prod(place)) * SECTOR, place


class Vpc(Mapped):
    """One open image."""

    driver = "vpc"
    ahead = AHEAD
    zero_entries = False
    CREATE_OPTIONS = (
        Option("subformat", ("dynamic", "fixed"), "dynamic", help="fixed: all space is taken at once"),
        Option("force_size", bool, False, help="the size that was asked for, not the next that has a geometry"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        file, self.footer_at = self.file, 0
        if bytes(file.pread(0, min(8, file.size))) != b"conectix" or self._fixed():
            self.footer_at = max(file.size - SECTOR, 0)
        data = file.pread(self.footer_at, min(SECTOR, file.size))
        footer = self.footer = Footer.parse(data, self.name, self.footer_at)
        if footer.Checksum != checksum(footer):
            raise ImageCorrupt(self.name, "the footer's checksum is wrong", offset=self.footer_at + 64)
        if footer.DiskType not in {FIXED, DYNAMIC}:
            what = "a differencing disk" if footer.DiskType == DIFFERENCING else f"disk type {footer.DiskType}"
            raise ImageUnsupported(self.name, f"{what} is not implemented", offset=self.footer_at + 60)
        cylinders, heads, track = footer.Cylinder, footer.Heads, footer.SectorsPerTrack
        self.size = footer.CurrentSize
        if footer.CreatorApplication in BY_GEOMETRY and cylinders * heads * track != MAX_SECTORS:
            self.size = cylinders * heads * track * SECTOR
        if self.size > MAX_SIZE or self.size % SECTOR:
            raise ImageCorrupt(self.name, f"its size is {self.size}", offset=self.footer_at + 48)
        self.fixed = footer.DiskType == FIXED
        self.dynamic: DynamicHeader | None = None
        if self.fixed:
            if self.size > file.size - SECTOR:
                raise ImageCorrupt(self.name, f"the file is too short for {self.size} bytes", offset=file.size)
            self.cluster, self.end = BLOCK, file.size
            return
        self._open_dynamic()

    def _fixed(self) -> bool:
        """Whether the footer at the end is a fixed disk's: then what is in front is the guest's, whatever it says."""
        at = self.file.size - SECTOR
        try:
            footer = Footer.parse(self.file.pread(at, SECTOR), self.name, at)
        except ImageCorrupt:
            return False
        return footer.DiskType == FIXED and footer.Checksum == checksum(footer)

    def _open_dynamic(self) -> None:
        at = self.footer.DataOffset
        header = self.dynamic = DynamicHeader.parse(self.file.pread(at, DynamicHeader.SIZE), self.name, at)
        if header.Checksum != checksum(header):
            raise ImageCorrupt(self.name, "the dynamic disk header's checksum is wrong", offset=at + 36)
        self.cluster, self.map_at = header.BlockSize, header.TableOffset
        if self.cluster & self.cluster - 1:
            raise ImageCorrupt(self.name, f"BlockSize {self.cluster} is no power of two", offset=at + 32)
        self.bitmap = -(-self.cluster // SECTOR // 8 // SECTOR) * SECTOR
        entries = header.MaxTableEntries
        if entries * self.cluster < self.size or self.map_at + entries * 4 > self.file.size or self.map_at % SECTOR:
            raise ImageCorrupt(self.name, f"the table of {entries} blocks cannot be", offset=at + 16)
        self.tables = TableCache(self.file, 32, ">")
        self.end = max(-(-(self.file.size - SECTOR) // SECTOR) * SECTOR, self.map_at + entries * 4)
        self.end = self.reached = -(-self.end // SECTOR) * SECTOR

    def place(self, index: int) -> tuple[int, int, int]:
        if self.fixed:
            return DATA, index * self.cluster, 1
        entry = self.tables.get(self.map_at, index)
        if entry == NOWHERE:
            return ZERO, 0, 1
        host = entry * SECTOR + self.bitmap
        if host + self.cluster > self.end or entry == 0:
            what = f"block {index} is at {host:#x}, where none can be"
            raise ImageCorrupt(self.name, what, offset=self.map_at + 4 * index)
        return DATA, host, 1

    def fresh(self, index: int) -> int:
        return self.take(self.bitmap + self.cluster) + self.bitmap

    def reach(self, end: int) -> None:
        """The footer goes along; until it is there the file has the one of before, which blocks overwrite then."""
        self.file.resize(end + SECTOR)
        self.file.pwrite(end, self.footer.pack())
        self.file.flush()
        self.reached = end

    def cut_off(self) -> None:
        if self.dynamic is not None and self.reached > self.end:
            self.file.pwrite(self.end, self.footer.pack())
            self.file.flush()
            self.file.resize(self.end + SECTOR)

    def link(self, index: int, kind: int, host: int) -> None:
        self.file.pwrite(host - self.bitmap, b"\xff" * self.bitmap)
        self.tables.put(self.map_at, index, (host - self.bitmap) // SECTOR)

    def info(self) -> dict[str, Any]:
        return {
            "subformat": "fixed" if self.fixed else "dynamic", "block-size": None if self.fixed else self.cluster,
            "creator": self.footer.CreatorApplication.decode(errors="replace"),
        }  # fmt: skip

    def structures(self) -> Iterator[tuple[str, int, Structure]]:
        yield "footer", self.footer_at, self.footer
        if self.dynamic is not None:
            yield "dynamic disk header", self.footer.DataOffset, self.dynamic

    def check(self, repair: str = "") -> CheckResult:
        if repair:
            self.check_writable()
        result = CheckResult()
        if self.dynamic is None:
            return result
        with self.ranges.alone(), self.mutex:
            usage = Usage(self, SECTOR, result)
            for at, length in ((0, SECTOR), (self.footer.DataOffset, 1024),
                               (self.map_at, self.dynamic.MaxTableEntries * 4)):  # fmt: skip
                usage.take(at, length, "a header")
            result.total_clusters = self.dynamic.MaxTableEntries
            for index, entry in self.tables.entries(self.map_at, self.dynamic.MaxTableEntries, NOWHERE):
                if usage.take(entry * SECTOR, self.bitmap + self.cluster, f"block {index}"):
                    result.allocated_clusters += 1
                elif repair == "all":
                    self.tables.put(self.map_at, index, NOWHERE)
                    result.corruptions_fixed += 1
        return result

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        if head[:8] == b"conectix":
            return True
        return file.size >= SECTOR and file.pread(file.size - SECTOR, 8) == b"conectix"

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        if size > MAX_SIZE:
            raise BadOption(file.name, f"a size of {size}: at most {MAX_SIZE}")
        size, place = sized(size, forced=options["force_size"])
        fixed = options["subformat"] == "fixed"
        footer = Footer(
            DataOffset=(1 << 64) - 1 if fixed else SECTOR,
            CreatorApplication=b"qem2" if options["force_size"] else b"qemu", CreatorVersion=0x00050003,
            CreatorHostOS=b"Wi2k", OriginalSize=size, CurrentSize=size,
            Cylinder=place[0], Heads=place[1], SectorsPerTrack=place[2], DiskType=FIXED if fixed else DYNAMIC,
            UniqueId=uuid4().bytes,
        )  # fmt: skip
        footer.Checksum = checksum(footer)
        if fixed:
            file.resize(size + SECTOR)
            file.pwrite(size, footer.pack())
            file.flush()
            return
        entries = -(-size // BLOCK)
        header = DynamicHeader(TableOffset=3 * SECTOR, MaxTableEntries=entries, BlockSize=BLOCK)
        header.Checksum = checksum(header)
        table = -(-max(entries * 4, 1) // SECTOR) * SECTOR
        file.pwrite(0, footer.pack() + header.pack() + b"\xff" * table + footer.pack())
        file.flush()

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        size, _ = sized(size, forced=options["force_size"])
        if options["subformat"] == "fixed":
            return measured(size, SECTOR, [(0, size)], SECTOR)
        blocks = -(-size // BLOCK)
        table = -(-blocks * 4 // SECTOR) * SECTOR
        return measured(size, BLOCK, data, 4 * SECTOR + table, SECTOR)


DRIVER = Vpc
