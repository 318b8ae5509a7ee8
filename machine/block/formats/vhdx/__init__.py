"""VHDX, Hyper-V's virtual disk (MS-VHDX): fixed, dynamic, and differencing with a parent.

layout.py has what is on the disk, reading.py opens it, log.py is the log; create.py, check.py. Here is the node. All
changes of metadata but of the headers go through the log. The headers are written in turn, the one with the higher
sequence number counts.

A differencing disk's blocks may be partially present, which a bitmap in another block tells. We read such and write
whole blocks only: what is missing is copied from the parent, then the block is said to be present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported, RequestRefused
from dbt.machine.block.formats.vhdx import check as checking
from dbt.machine.block.formats.vhdx import create as making
from dbt.machine.block.formats.vhdx import layout, reading
from dbt.machine.block.formats.vhdx.layout import MIB, OFFSET, SECTOR, STATE
from dbt.machine.block.formats.vhdx.log import LogWriter, Replayed, pending, replay
from dbt.machine.block.mapped import COPY, DATA, PARTIAL, UNALLOCATED, ZERO, Mapped
from dbt.machine.block.table_cache import TableCache
from dbt.machine.block.usage import measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import CheckResult, Measure, Node
    from dbt.machine.block.structure import Structure

AT_ONCE = 4096  # sectors of a bitmap that one lookup goes through: there may be half a million


class Vhdx(Mapped):
    """One open file."""

    driver = "vhdx"
    CREATE_OPTIONS = making.OPTIONS
    header: layout.Header
    header_at: int
    region_header: layout.RegionTableHeader
    region_table_at: int
    region_entries: list[layout.RegionTableEntry]
    regions: list[tuple[int, int]]  # (offset, bytes) where no blocks are
    bat_at: int
    bat_bytes: int
    metadata_at: int
    metadata_bytes: int
    metadata_header: layout.MetadataTableHeader
    items: dict[bytes, layout.MetadataTableEntry]
    item_entries: list[layout.MetadataTableEntry]
    parameters: layout.FileParameters
    disk_size: layout.VirtualDiskSize
    sector: int
    has_parent: bool
    ratio: int  # blocks for each block of bitmaps
    blocks: int

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.below = self.file  # as it is, without the replay in memory
        self.log_error = ""
        self.replayed = False
        layout.FileTypeIdentifier.parse(self.file.pread(0, min(self.file.size, 1024)), self.name)
        reading.read_headers(self)
        if self.header.LogGuid != layout.NO_GUID:
            self._replay(opening)
        reading.read_regions(self)
        reading.read_metadata(self)
        self.tables = TableCache(self.file, 64, "<")
        self.end = max([-(-self.file.size // MIB) * MIB, *(at + length for at, length in self.regions)])
        self.log: LogWriter | None = None
        if self.has_parent and not opening.repair:
            self._open_parent(opening)

    # Opening.

    def _replay(self, opening: Opening) -> None:
        try:
            entries = pending(self.file, self.header, self.name)
        except ImageCorrupt as error:
            if not opening.repair:
                raise
            self.log_error = error.reason
            return
        if self.writable:
            replay(self.file, entries)
            self.write_header(LogGuid=layout.NO_GUID)
            self.replayed = True
        else:
            self.file = Replayed(self.file, entries)

    def write_header(self, **fields: bytes) -> None:
        """Write the header that does not count now; from then on it does."""
        for name, value in fields.items():
            setattr(self.header, name, value)
        self.header.SequenceNumber += 1
        self.header_at = sum(layout.HEADERS) - self.header_at
        self.header.Checksum = 0
        data = layout.sealed(self.header.pack().ljust(layout.HEADER_BYTES, b"\0"))
        self.below.flush()
        self.below.pwrite(self.header_at, data)
        self.below.flush()

    def _open_parent(self, opening: Opening) -> None:
        found = reading.locator(self)
        path = found.get("relative_path") or found.get("absolute_win32_path") or found.get("volume_path")
        if not path and not opening.has("backing"):
            raise ImageCorrupt(self.name, "the parent locator has no path", offset=self.metadata_at)
        path = (path or "").replace("\\", "/")
        self.backing = opening.backing(path, "vhdx")
        if not isinstance(self.backing, Vhdx):
            return
        have = str(UUID(bytes_le=self.backing.header.DataWriteGuid))
        wanted = [found.get(key, "").strip("{}").lower() for key in ("parent_linkage", "parent_linkage2")]
        if have not in wanted:
            what = f"its parent {self.backing.name} was changed since: its identity is {have}, not {wanted[0]}"
            raise ImageCorrupt(self.name, what, offset=self.metadata_at)

    # Where blocks are.

    def _entry(self, index: int) -> int:
        return index + index // self.ratio

    def place(self, index: int) -> tuple[int, int, int]:
        number = self._entry(index)
        entry = self.tables.get(self.bat_at, number)
        state = entry & STATE
        if state in {layout.FULLY_PRESENT, layout.PARTIALLY_PRESENT}:
            host = entry & OFFSET
            if why := self._impossible(host, self.cluster):
                raise ImageCorrupt(self.name, f"block {index} is at {host:#x}: {why}", offset=self.bat_at + 8 * number)
            if state == layout.FULLY_PRESENT:
                return DATA, host, 1
            if self.has_parent:
                return PARTIAL, host, 1
        elif state in layout.ZEROES:
            return ZERO, 0, 1
        elif state == layout.NOT_PRESENT:
            return (UNALLOCATED if self.has_parent else ZERO), 0, 1
        raise ImageCorrupt(self.name, f"block {index} has state {state}", offset=self.bat_at + 8 * number)

    def _impossible(self, host: int, length: int) -> str:
        if host >= self.file.size:
            return "behind the end of the file"
        if any(host < at + size and at < host + length for at, size in self.regions):
            return "over the file's metadata"
        return ""

    def locate(self, offset: int, length: int) -> tuple[int, int, int]:
        index, within = divmod(offset, self.cluster)
        kind, host, _ = self.place(index)
        if kind != PARTIAL:
            return super().locate(offset, length)
        length = min(length, self.cluster - within)
        first, last = within // self.sector, (within + length - 1) // self.sector
        here, run = self._alike(index, first, min(last + 1, first + AT_ONCE))
        count = min((first + run) * self.sector - within, length)
        return (DATA, count, host + within) if here else (UNALLOCATED, count, 0)

    def _alike(self, index: int, first: int, end: int) -> tuple[int, int]:
        """Whether sector `first` of a block is here, and how many are from there on of which the same is true."""
        number = (index // self.ratio + 1) * (self.ratio + 1) - 1
        entry = self.tables.get(self.bat_at, number)
        host = entry & OFFSET
        if entry & STATE != layout.FULLY_PRESENT or self._impossible(host, MIB):
            what = f"the bitmap of block {index} is missing"
            raise ImageCorrupt(self.name, what, offset=self.bat_at + 8 * number)
        base = index % self.ratio * (self.cluster // self.sector)
        at, count = base + first, end - first
        data = self.file.pread(host + at // 8, (at + count + 7) // 8 - at // 8)
        every = (1 << count) - 1
        bits = int.from_bytes(data, "little") >> at % 8 & every
        here = bits & 1
        other = bits ^ every if here else bits
        return here, (other & -other).bit_length() - 1 if other else count

    # Writing.

    def prepare(self) -> None:
        if self.log is None:
            with self.mutex:
                if self.log is None:
                    guids = {name: uuid4().bytes_le for name in ("FileWriteGuid", "DataWriteGuid", "LogGuid")}
                    log = LogWriter(self.file, self.header, guids["LogGuid"])
                    log.write([(self.bat_at, bytes(self.file.pread(self.bat_at, SECTOR)))])  # changes nothing
                    self.write_header(**guids)
                    self.log = log

    def complete(self, index: int, host: int) -> None:
        """The parent's sectors of a partially present block."""
        at, end = index * self.cluster, min((index + 1) * self.cluster, self.size)
        while at < end:
            with self.mutex:
                kind, count, _ = self.locate(at, min(end - at, COPY))
            if kind != DATA:
                buffer = memoryview(bytearray(count))
                self.read_backing(at, count, [buffer])
                self.file.write(host + at % self.cluster, count, [buffer])
            at += count

    def link(self, index: int, kind: int, host: int) -> None:
        self.link_all(kind, [(index, host)])

    def link_all(self, kind: int, new: list[tuple[int, int]]) -> None:
        state = layout.ZEROED if kind == ZERO else layout.FULLY_PRESENT
        entries = [(self._entry(index), host | state) for index, host in new]
        sectors: dict[int, bytearray] = {}
        for number, entry in entries:
            page = number * 8 // SECTOR
            if page not in sectors:
                sectors[page] = self.file.pread(self.bat_at + page * SECTOR, SECTOR)
            start = number * 8 % SECTOR
            sectors[page][start : start + 8] = entry.to_bytes(8, "little")
        self.write_log([(self.bat_at + page * SECTOR, bytes(data)) for page, data in sectors.items()])
        for number, entry in entries:
            self.tables.remember(self.bat_at, number, entry)

    def write_log(self, sectors: list[tuple[int, bytes]]) -> None:
        """Change (offset, content) sectors through the log."""
        self.prepare()
        assert self.log is not None
        self.log.write(sectors)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        self.check_writable()
        if preallocation != "off" or self.parameters.Flags & layout.LEAVE_BLOCK_ALLOCATED:
            raise ImageUnsupported(self.name, "fixed VHDX files cannot be resized, and no other is preallocated")
        if size < self.size:
            raise ImageUnsupported(self.name, "VHDX files cannot be made smaller")
        entries, _ = making.bat_entries(size, self.cluster, self.sector, parent=self.has_parent)
        if size % self.sector or entries * 8 > self.bat_bytes:
            raise RequestRefused(self.name, f"a size of {size}: the BAT has room for {self.bat_bytes // 8} entries")
        old = self.size
        with self.mutex:
            at = self.metadata_at + self.items[layout.VIRTUAL_DISK_SIZE].Offset
            start = at // SECTOR * SECTOR
            data = self.file.pread(start, 2 * SECTOR)
            self.disk_size.VirtualDiskSize = size
            data[at - start : at - start + 8] = self.disk_size.pack()
            self.size, self.blocks = size, -(-size // self.cluster)
        if self.backing is not None and self.backing.size > old:
            self.write_zeroes(old, min(size, self.backing.size) - old)
        with self.mutex:
            self.write_log([(start, bytes(data[:SECTOR])), (start + SECTOR, bytes(data[SECTOR:]))])
        self.flush()

    def close(self) -> None:
        try:
            if self.log is not None:
                self.log = None
                self.write_header(LogGuid=layout.NO_GUID)
        finally:
            super().close()

    # What is known about it.

    def info(self) -> dict[str, Any]:
        fixed = self.parameters.Flags & layout.LEAVE_BLOCK_ALLOCATED
        found: dict[str, Any] = {
            "subformat": "differencing" if self.has_parent else "fixed" if fixed else "dynamic",
            "block-size": self.cluster, "logical-sector-size": self.sector, "log-size": self.header.LogLength,
            "log-pending": self.header.LogGuid != layout.NO_GUID and self.log is None,
        }  # fmt: skip
        if self.has_parent:
            found["parent-locator"] = reading.locator(self)
        return found

    def structures(self) -> Iterator[tuple[str, int, Structure]]:
        yield "file type identifier", 0, layout.FileTypeIdentifier.parse(self.file.pread(0, 1024), self.name)
        yield "header", self.header_at, self.header
        yield "region table", self.region_table_at, self.region_header
        for k, region in enumerate(self.region_entries):
            yield f"region {k}", self.region_table_at + 16 + 32 * k, region
        yield "metadata table", self.metadata_at, self.metadata_header
        for k, item in enumerate(self.item_entries):
            yield f"metadata entry {k}", self.metadata_at + 32 + 32 * k, item
        yield "file parameters", self.metadata_at + self.items[layout.FILE_PARAMETERS].Offset, self.parameters
        yield "virtual disk size", self.metadata_at + self.items[layout.VIRTUAL_DISK_SIZE].Offset, self.disk_size

    def check(self, repair: str = "") -> CheckResult:
        if repair:
            self.check_writable()
        with self.ranges.alone(), self.mutex:
            return checking.check(self, repair)

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        return head[:8] == b"vhdxfile"

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        making.create(file, size, options)

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        block = making.choose_block(size, options["block_size"], "measure")
        entries, _ = making.bat_entries(size, block, 512, parent=bool(options["backing_file"]))
        tables = 2 * MIB + options["log_size"] + max(-(-entries * 8 // MIB), 1) * MIB
        if options["subformat"] == "fixed":
            return measured(size, block, [(0, size)], tables)
        return measured(size, block, data, tables)


DRIVER = Vhdx
