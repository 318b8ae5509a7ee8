"""VHDX, Hyper-V's virtual disk (MS-VHDX): fixed, dynamic, and differencing with a parent.

layout.py has what is on the disk, log.py the log, create.py makes files. Here is the node. All changes of metadata but
of the headers go through the log. The headers are written in turn, the one with the higher sequence number counts.

A differencing disk's blocks may be partially present, which a bitmap in another block tells. We read such and write
whole blocks only: what is missing is copied from the parent, then the block is said to be present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported, RequestRefused
from dbt.machine.block.formats.vhdx import create as making
from dbt.machine.block.formats.vhdx import layout
from dbt.machine.block.formats.vhdx.layout import MIB, OFFSET, SECTOR, STATE
from dbt.machine.block.formats.vhdx.log import LogWriter, Replayed, pending, replay
from dbt.machine.block.mapped import COPY, DATA, PARTIAL, UNALLOCATED, ZERO, Mapped, TableCache, Usage, measured
from dbt.machine.block.node import CheckResult
from dbt.machine.block.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Measure, Node

ZEROES = {layout.UNDEFINED, layout.ZEROED, layout.UNMAPPED, layout.UNMAPPED_OLD}
KNOWN_ITEMS = {
    layout.FILE_PARAMETERS, layout.VIRTUAL_DISK_SIZE, layout.VIRTUAL_DISK_ID, layout.LOGICAL_SECTOR_SIZE,
    layout.PHYSICAL_SECTOR_SIZE, layout.PARENT_LOCATOR,
}  # fmt: skip
S = TypeVar("S", bound=Structure)


class Vhdx(Mapped):
    """One open file."""

    driver = "vhdx"
    CREATE_OPTIONS = making.OPTIONS

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.below = self.file  # as it is, without the replay in memory
        self.log_error = ""
        self.replayed = False
        layout.FileTypeIdentifier.parse(self.file.pread(0, min(self.file.size, 1024)), self.name)
        self._read_headers()
        if self.header.LogGuid != layout.NO_GUID:
            self._replay(opening)
        self._read_regions()
        self._read_metadata()
        self.tables = TableCache(self.file, 64, "<")
        self.end = max([-(-self.file.size // MIB) * MIB, *(at + length for at, length in self.regions)])
        self.log: LogWriter | None = None
        if self.has_parent and not opening.repair:
            self._open_parent(opening)

    # Opening.

    def _read_headers(self) -> None:
        found: list[tuple[layout.Header, int]] = []
        wrong = ""
        for at in layout.HEADERS:
            data = self.file.pread(at, layout.HEADER_BYTES) if at + SECTOR <= self.file.size else bytearray(SECTOR)
            try:
                header = layout.Header.parse(data, self.name, at)
            except ImageCorrupt as error:
                wrong = wrong or error.reason
                continue
            if layout.intact(data):
                found.append((header, at))
            else:
                wrong = wrong or "the header's checksum is wrong"
        if not found:
            raise ImageCorrupt(self.name, f"neither header is valid: {wrong}", offset=layout.HEADERS[0])
        self.header, self.header_at = max(found, key=lambda pair: pair[0].SequenceNumber)
        header = self.header
        if header.LogGuid != layout.NO_GUID and header.LogVersion:
            raise ImageUnsupported(self.name, f"log version {header.LogVersion}", offset=self.header_at + 64)
        if header.LogLength % MIB or header.LogOffset % MIB or not header.LogLength or header.LogOffset < MIB:
            raise ImageCorrupt(self.name, "the log lies where none can be", offset=self.header_at + 68)

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
            self._write_header(LogGuid=layout.NO_GUID)
            self.replayed = True
        else:
            self.file = Replayed(self.file, entries)

    def _write_header(self, **fields: bytes) -> None:
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

    def _read_regions(self) -> None:
        for at in layout.REGION_TABLES:
            data = self.file.pread(at, layout.TABLE_BYTES)
            if data[:4] == b"regi" and layout.intact(data):
                break
        else:
            raise ImageCorrupt(self.name, "neither region table is valid", offset=layout.REGION_TABLES[0])
        self.region_header = layout.RegionTableHeader.parse(data, self.name, at)
        self.region_table_at = at
        self.region_entries = _array(layout.RegionTableEntry, data, self.region_header.EntryCount, 16, self.name, at)
        self.regions = [(0, MIB), (self.header.LogOffset, self.header.LogLength)]
        known: dict[bytes, tuple[int, int]] = {}
        for k, entry in enumerate(self.region_entries):
            where = at + 16 + 32 * k
            start, length = entry.FileOffset, entry.Length
            if start % MIB or length % MIB or not length or start < MIB or start + length > self.file.size:
                raise ImageCorrupt(self.name, f"a region at {start:#x}, {length} bytes", offset=where)
            if any(start < a + n and a < start + length for a, n in self.regions) or entry.Guid in known:
                raise ImageCorrupt(self.name, "regions overlap", offset=where)
            if entry.Guid not in {layout.BAT, layout.METADATA} and entry.Required & layout.REQUIRED_REGION:
                raise ImageUnsupported(self.name, f"required region {UUID(bytes_le=entry.Guid)}", offset=where)
            self.regions.append((start, length))
            known[entry.Guid] = start, length
        if layout.BAT not in known or layout.METADATA not in known:
            raise ImageCorrupt(self.name, "the region table has no BAT or no metadata", offset=at)
        self.bat_at, self.bat_bytes = known[layout.BAT]
        self.metadata_at, self.metadata_bytes = known[layout.METADATA]

    def _read_metadata(self) -> None:
        base = self.metadata_at
        data = self.file.pread(base, layout.TABLE_BYTES)
        self.metadata_header = layout.MetadataTableHeader.parse(data, self.name, base)
        count = self.metadata_header.EntryCount
        self.items: dict[bytes, layout.MetadataTableEntry] = {}
        self.item_entries = _array(layout.MetadataTableEntry, data, count, 32, self.name, base)
        for k, entry in enumerate(self.item_entries):
            where = base + 32 + 32 * k
            if entry.Length and not layout.TABLE_BYTES <= entry.Offset <= self.metadata_bytes - entry.Length:
                raise ImageCorrupt(self.name, "a metadata item lies outside of its region", offset=where)
            if entry.ItemId not in KNOWN_ITEMS and entry.Flags & layout.REQUIRED_ITEM:
                raise ImageUnsupported(self.name, f"required metadata {UUID(bytes_le=entry.ItemId)}", offset=where)
            self.items.setdefault(entry.ItemId, entry)
        self.parameters = self._item(layout.FILE_PARAMETERS, layout.FileParameters)
        self.disk_size = self._item(layout.VIRTUAL_DISK_SIZE, layout.VirtualDiskSize)
        self.sector = self._item(layout.LOGICAL_SECTOR_SIZE, layout.SectorSize).SectorSize
        self.size, self.cluster = self.disk_size.VirtualDiskSize, self.parameters.BlockSize
        self.has_parent = bool(self.parameters.Flags & layout.HAS_PARENT)
        at = base + self.items[layout.FILE_PARAMETERS].Offset
        if self.cluster & self.cluster - 1:
            raise ImageCorrupt(self.name, f"BlockSize {self.cluster} is no power of two", offset=at)
        if self.size % self.sector:
            raise ImageCorrupt(self.name, f"VirtualDiskSize {self.size} is no multiple of sectors", offset=at)
        entries, self.ratio = making.bat_entries(self.size, self.cluster, self.sector, parent=self.has_parent)
        self.blocks = -(-self.size // self.cluster)
        if entries * 8 > self.bat_bytes:
            raise ImageCorrupt(self.name, f"the BAT needs {entries * 8} bytes for this size", offset=self.bat_at)

    def _item(self, guid: bytes, kind: type[S]) -> S:
        entry = self.items.get(guid)
        if entry is None or entry.Length < kind.SIZE:
            raise ImageCorrupt(self.name, f"metadata {kind.__name__} is missing", offset=self.metadata_at)
        at = self.metadata_at + entry.Offset
        return kind.parse(self.file.pread(at, kind.SIZE), self.name, at)

    def locator(self) -> dict[str, str]:
        """Keys and values of the parent locator (2.6.2.6)."""
        entry = self.items.get(layout.PARENT_LOCATOR)
        if entry is None:
            raise ImageCorrupt(self.name, "has a parent and no parent locator", offset=self.metadata_at)
        at = self.metadata_at + entry.Offset
        data = bytes(self.file.pread(at, entry.Length))
        head = layout.ParentLocatorHeader.parse(data, self.name, at)
        if head.LocatorType != layout.LOCATOR_VHDX:
            what = f"a parent locator of type {UUID(bytes_le=head.LocatorType)}"
            raise ImageUnsupported(self.name, what, offset=at)
        found: dict[str, str] = {}
        for pair in _array(layout.ParentLocatorEntry, data, head.KeyValueCount, 20, self.name, at):
            ends = pair.KeyOffset + pair.KeyLength, pair.ValueOffset + pair.ValueLength
            if max(ends) > entry.Length:
                raise ImageCorrupt(self.name, "a string of the parent locator lies outside of it", offset=at)
            key, value = data[pair.KeyOffset : ends[0]], data[pair.ValueOffset : ends[1]]
            found[key.decode("utf-16-le", "replace")] = value.decode("utf-16-le", "replace")
        return found

    def _open_parent(self, opening: Opening) -> None:
        found = self.locator()
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
        elif state in ZEROES:
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
        bits = self._bitmap(index, first, last + 1)
        run = 1
        while run < len(bits) and bits[run] == bits[0]:
            run += 1
        count = min((first + run) * self.sector - within, length)
        return (DATA, count, host + within) if bits[0] else (UNALLOCATED, count, 0)

    def _bitmap(self, index: int, first: int, end: int) -> list[int]:
        """Which sectors of a block are here."""
        number = (index // self.ratio + 1) * (self.ratio + 1) - 1
        entry = self.tables.get(self.bat_at, number)
        host = entry & OFFSET
        if entry & STATE != layout.FULLY_PRESENT or self._impossible(host, MIB):
            what = f"the bitmap of block {index} is missing"
            raise ImageCorrupt(self.name, what, offset=self.bat_at + 8 * number)
        base = index % self.ratio * (self.cluster // self.sector)
        data = self.file.pread(host + (base + first) // 8, (base + end + 7) // 8 - (base + first) // 8)
        return [data[(base + k) // 8 - (base + first) // 8] >> (base + k) % 8 & 1 for k in range(first, end)]

    # Writing.

    def prepare(self) -> None:
        if self.log is None:
            with self.mutex:
                if self.log is None:
                    guids = {name: uuid4().bytes_le for name in ("FileWriteGuid", "DataWriteGuid", "LogGuid")}
                    log = LogWriter(self.file, self.header, guids["LogGuid"])
                    log.write([(self.bat_at, bytes(self.file.pread(self.bat_at, SECTOR)))])  # changes nothing
                    self._write_header(**guids)
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
        self._log([(self.bat_at + page * SECTOR, bytes(data)) for page, data in sectors.items()])
        for number, entry in entries:
            self.tables.remember(self.bat_at, number, entry)

    def _log(self, sectors: list[tuple[int, bytes]]) -> None:
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
            self._log([(start, bytes(data[:SECTOR])), (start + SECTOR, bytes(data[SECTOR:]))])
        self.flush()

    def close(self) -> None:
        try:
            if self.log is not None:
                self.log = None
                self._write_header(LogGuid=layout.NO_GUID)
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
            found["parent-locator"] = self.locator()
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
            return self._check(repair)

    def _check(self, repair: str) -> CheckResult:
        result = CheckResult()
        usage = Usage(self, MIB, result)
        if self.log_error:
            usage.corrupt(f"the log: {self.log_error}", self.header.LogOffset)
            if repair == "all" and self.log is None:
                self._write_header(LogGuid=layout.NO_GUID)
                result.corruptions_fixed += 1
        if self.replayed:
            result.note("the log was replayed", self.header.LogOffset)
        for at, length in self.regions:
            usage.take(at, length, "a region")
        result.total_clusters = self.blocks
        previous = None
        entries, _ = making.bat_entries(self.size, self.cluster, self.sector, parent=self.has_parent)
        for number, entry in self.tables.entries(self.bat_at, entries):
            state, host = entry & STATE, entry & OFFSET
            is_bitmap = number % (self.ratio + 1) == self.ratio
            present = state == layout.FULLY_PRESENT or (state == layout.PARTIALLY_PRESENT and not is_bitmap)
            if not present and (state == layout.NOT_PRESENT or (state in ZEROES and not is_bitmap)):
                continue
            length = MIB if is_bitmap else self.cluster
            what = f"BAT entry {number}"
            good = present and (self.has_parent or state == layout.FULLY_PRESENT)
            if not good:
                usage.corrupt(f"{what} has state {state}", self.bat_at + 8 * number)
            else:
                good = usage.take(host, min(length, max(usage.limit - host, 1)), what)
            if not good:
                if repair == "all":
                    page = number * 8 // SECTOR * SECTOR
                    data = self.file.pread(self.bat_at + page, SECTOR)
                    data[number * 8 - page : number * 8 - page + 8] = bytes(8)
                    self._log([(self.bat_at + page, bytes(data))])
                    self.tables.remember(self.bat_at, number, 0)
                    result.corruptions_fixed += 1
                continue
            if not is_bitmap:
                result.allocated_clusters += 1
                result.fragmented_clusters += previous is not None and host != previous + self.cluster
                previous = host
        spare = usage.count_leaks()
        if result.leaks != spare:
            result.problems.pop()  # gaps between structures are the writer's choice, as qemu's are
            result.leaks = spare
            if spare:
                result.note(f"{spare} MiB at the end are not used by anything", result.image_end)
        if repair and spare:
            self.file.resize(result.image_end)
            self.end = result.image_end
            result.leaks_fixed = spare
        return result

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


def _array(kind: type[S], data: bytes | bytearray, count: int, start: int, name: str, at: int) -> list[S]:
    """`count` structures behind each other."""
    return [kind.parse(data, name, at + start + k * kind.SIZE, start=start + k * kind.SIZE) for k in range(count)]


DRIVER = Vhdx
