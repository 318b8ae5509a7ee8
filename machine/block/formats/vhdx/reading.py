"""Headers, regions and metadata of an image that is opened, with everything compared that can be (MS-VHDX 2.2, 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported
from dbt.machine.block.formats.vhdx import create as making
from dbt.machine.block.formats.vhdx import layout
from dbt.machine.block.formats.vhdx.layout import MIB, SECTOR
from dbt.machine.block.structure import Structure

if TYPE_CHECKING:
    from dbt.machine.block.formats.vhdx import Vhdx

KNOWN_ITEMS = {
    layout.FILE_PARAMETERS, layout.VIRTUAL_DISK_SIZE, layout.VIRTUAL_DISK_ID, layout.LOGICAL_SECTOR_SIZE,
    layout.PHYSICAL_SECTOR_SIZE, layout.PARENT_LOCATOR,
}  # fmt: skip
S = TypeVar("S", bound=Structure)


def read_headers(node: Vhdx) -> None:
    """Set `header`, the one that counts, and `header_at`."""
    found: list[tuple[layout.Header, int]] = []
    wrong = ""
    for at in layout.HEADERS:
        data = node.file.pread(at, layout.HEADER_BYTES) if at + SECTOR <= node.file.size else bytearray(SECTOR)
        try:
            header = layout.Header.parse(data, node.name, at)
        except ImageCorrupt as error:
            wrong = wrong or error.reason
            continue
        if layout.intact(data):
            found.append((header, at))
        else:
            wrong = wrong or "the header's checksum is wrong"
    if not found:
        raise ImageCorrupt(node.name, f"neither header is valid: {wrong}", offset=layout.HEADERS[0])
    node.header, node.header_at = max(found, key=lambda pair: pair[0].SequenceNumber)
    header = node.header
    if header.LogGuid != layout.NO_GUID and header.LogVersion:
        raise ImageUnsupported(node.name, f"log version {header.LogVersion}", offset=node.header_at + 64)
    if header.LogLength % MIB or header.LogOffset % MIB or not header.LogLength or header.LogOffset < MIB:
        raise ImageCorrupt(node.name, "the log lies where none can be", offset=node.header_at + 68)


def read_regions(node: Vhdx) -> None:
    """Set `regions`, what they are, and where BAT and metadata lie."""
    for at in layout.REGION_TABLES:
        data = node.file.pread(at, layout.TABLE_BYTES)
        if data[:4] == b"regi" and layout.intact(data):
            break
    else:
        raise ImageCorrupt(node.name, "neither region table is valid", offset=layout.REGION_TABLES[0])
    node.region_header = layout.RegionTableHeader.parse(data, node.name, at)
    node.region_table_at = at
    node.region_entries = _array(layout.RegionTableEntry, data, node.region_header.EntryCount, 16, node.name, at)
    node.regions = [(0, MIB), (node.header.LogOffset, node.header.LogLength)]
    known: dict[bytes, tuple[int, int]] = {}
    for k, entry in enumerate(node.region_entries):
        where = at + 16 + 32 * k
        start, length = entry.FileOffset, entry.Length
        if start % MIB or length % MIB or not length or start < MIB or start + length > node.file.size:
            raise ImageCorrupt(node.name, f"a region at {start:#x}, {length} bytes", offset=where)
        if any(start < a + n and a < start + length for a, n in node.regions) or entry.Guid in known:
            raise ImageCorrupt(node.name, "regions overlap", offset=where)
        if entry.Guid not in {layout.BAT, layout.METADATA} and entry.Required & layout.REQUIRED_REGION:
            raise ImageUnsupported(node.name, f"required region {UUID(bytes_le=entry.Guid)}", offset=where)
        node.regions.append((start, length))
        known[entry.Guid] = start, length
    if layout.BAT not in known or layout.METADATA not in known:
        raise ImageCorrupt(node.name, "the region table has no BAT or no metadata", offset=at)
    node.bat_at, node.bat_bytes = known[layout.BAT]
    node.metadata_at, node.metadata_bytes = known[layout.METADATA]


def read_metadata(node: Vhdx) -> None:
    """Set `items`, the parameters and the sizes."""
    base = node.metadata_at
    data = node.file.pread(base, layout.TABLE_BYTES)
    node.metadata_header = layout.MetadataTableHeader.parse(data, node.name, base)
    count = node.metadata_header.EntryCount
    node.items = {}
    node.item_entries = _array(layout.MetadataTableEntry, data, count, 32, node.name, base)
    for k, entry in enumerate(node.item_entries):
        where = base + 32 + 32 * k
        if entry.Length and not layout.TABLE_BYTES <= entry.Offset <= node.metadata_bytes - entry.Length:
            raise ImageCorrupt(node.name, "a metadata item lies outside of its region", offset=where)
        if entry.ItemId not in KNOWN_ITEMS and entry.Flags & layout.REQUIRED_ITEM:
            raise ImageUnsupported(node.name, f"required metadata {UUID(bytes_le=entry.ItemId)}", offset=where)
        node.items.setdefault(entry.ItemId, entry)
    node.parameters = _item(node, layout.FILE_PARAMETERS, layout.FileParameters)
    node.disk_size = _item(node, layout.VIRTUAL_DISK_SIZE, layout.VirtualDiskSize)
    node.sector = _item(node, layout.LOGICAL_SECTOR_SIZE, layout.SectorSize).SectorSize
    node.size, node.cluster = node.disk_size.VirtualDiskSize, node.parameters.BlockSize
    node.has_parent = bool(node.parameters.Flags & layout.HAS_PARENT)
    at = base + node.items[layout.FILE_PARAMETERS].Offset
    if node.cluster & node.cluster - 1:
        raise ImageCorrupt(node.name, f"BlockSize {node.cluster} is no power of two", offset=at)
    if node.size % node.sector:
        raise ImageCorrupt(node.name, f"VirtualDiskSize {node.size} is no multiple of sectors", offset=at)
    entries, node.ratio = making.bat_entries(node.size, node.cluster, node.sector, parent=node.has_parent)
    node.blocks = -(-node.size // node.cluster)
    if entries * 8 > node.bat_bytes:
        raise ImageCorrupt(node.name, f"the BAT needs {entries * 8} bytes for this size", offset=node.bat_at)


def _item(node: Vhdx, guid: bytes, kind: type[S]) -> S:
    entry = node.items.get(guid)
    if entry is None or entry.Length < kind.SIZE:
        raise ImageCorrupt(node.name, f"metadata {kind.__name__} is missing", offset=node.metadata_at)
    at = node.metadata_at + entry.Offset
    return kind.parse(node.file.pread(at, kind.SIZE), node.name, at)


def locator(node: Vhdx) -> dict[str, str]:
    """Keys and values of the parent locator (2.6.2.6)."""
    entry = node.items.get(layout.PARENT_LOCATOR)
    if entry is None:
        raise ImageCorrupt(node.name, "has a parent and no parent locator", offset=node.metadata_at)
    at = node.metadata_at + entry.Offset
    data = bytes(node.file.pread(at, entry.Length))
    head = layout.ParentLocatorHeader.parse(data, node.name, at)
    if head.LocatorType != layout.LOCATOR_VHDX:
        what = f"a parent locator of type {UUID(bytes_le=head.LocatorType)}"
        raise ImageUnsupported(node.name, what, offset=at)
    found: dict[str, str] = {}
    for pair in _array(layout.ParentLocatorEntry, data, head.KeyValueCount, 20, node.name, at):
        ends = pair.KeyOffset + pair.KeyLength, pair.ValueOffset + pair.ValueLength
        if max(ends) > entry.Length:
            raise ImageCorrupt(node.name, "a string of the parent locator lies outside of it", offset=at)
        key, value = data[pair.KeyOffset : ends[0]], data[pair.ValueOffset : ends[1]]
        found[key.decode("utf-16-le", "replace")] = value.decode("utf-16-le", "replace")
    return found


def _array(kind: type[S], data: bytes | bytearray, count: int, start: int, name: str, at: int) -> list[S]:
    """`count` structures behind each other."""
    return [kind.parse(data, name, at + start + k * kind.SIZE, start=start + k * kind.SIZE) for k in range(count)]
