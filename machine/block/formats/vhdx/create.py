"""Making VHDX files: headers, region tables, metadata, BAT; fixed, dynamic, or differencing if there is a parent."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dbt.machine.block.errors import BadOption
from dbt.machine.block.formats.vhdx import layout
from dbt.machine.block.formats.vhdx.layout import MIB, TABLE_BYTES
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.usage import power_of_two

if TYPE_CHECKING:
    from dbt.machine.block.node import Node

OPTIONS = (
    Option("subformat", ("dynamic", "fixed"), "dynamic", help="fixed: all space is taken at once"),
    Option("block_size", SIZE, 0, help="1M to 256M; 0: by the size"),
    Option("log_size", SIZE, MIB, help="a multiple of 1M"),
    Option("block_state_zero", bool, True, help="blocks are marked as zero, not as absent"),
    Option("backing_file", str, None, help="the parent of a differencing disk, a VHDX file"),
    Option("backing_fmt", ("vhdx",), "vhdx", help="the parent's format"),
)


def bat_entries(size: int, block: int, sector: int, *, parent: bool) -> tuple[int, int]:
    """(entries of the BAT, payload blocks for each bitmap block), 2.5."""
    ratio = (1 << 23) * sector // block
    blocks = -(-size // block)
    if parent:
        return -(-blocks // ratio) * (ratio + 1), ratio
    return blocks + (max(blocks - 1, 0) // ratio), ratio


def choose_block(size: int, given: int, name: str) -> int:
    """The block size."""
    if given:
        power_of_two(given, MIB, 256 * MIB, "block_size", name)
        return given
    return next(block for most, block in ((1 << 30, 8), (100 << 30, 16), (32 << 40, 32), (1 << 63, 64))
                if size <= most) * MIB  # fmt: skip


def locator(name: str, linkage: bytes) -> bytes:
    """A parent locator (2.6.2.6) with a relative path."""
    from uuid import UUID

    pairs = {"parent_linkage": f"{{{UUID(bytes_le=linkage)}}}", "relative_path": name.replace("/", "\\")}
    at = layout.ParentLocatorHeader.SIZE + len(pairs) * layout.ParentLocatorEntry.SIZE
    head = layout.ParentLocatorHeader(LocatorType=layout.LOCATOR_VHDX, KeyValueCount=len(pairs)).pack()
    strings = b""
    for key, value in pairs.items():
        texts = [text.encode("utf-16-le") for text in (key, value)]
        head += layout.ParentLocatorEntry(
            KeyOffset=at + len(strings), ValueOffset=at + len(strings) + len(texts[0]), KeyLength=len(texts[0]),
            ValueLength=len(texts[1]),
        ).pack()  # fmt: skip
        strings += texts[0] + texts[1]
    return head + strings


def metadata(size: int, block: int, flags: int, parent: bytes) -> bytes:
    """The metadata region, as much as is not zero."""
    items = [
        (layout.FILE_PARAMETERS, layout.FileParameters(BlockSize=block, Flags=flags).pack(), 4),
        (layout.VIRTUAL_DISK_SIZE, layout.VirtualDiskSize(VirtualDiskSize=size).pack(), 6),
        (layout.VIRTUAL_DISK_ID, uuid4().bytes_le, 6),
        (layout.LOGICAL_SECTOR_SIZE, layout.SectorSize().pack(), 6),
        (layout.PHYSICAL_SECTOR_SIZE, layout.SectorSize().pack(), 6),
    ]
    if parent:
        items.append((layout.PARENT_LOCATOR, parent, 4))
    table = layout.MetadataTableHeader(EntryCount=len(items)).pack()
    data = b""
    for item, content, bits in items:
        table += layout.MetadataTableEntry(
            ItemId=item, Offset=TABLE_BYTES + len(data), Length=len(content), Flags=bits
        ).pack()
        data += content
    return table.ljust(TABLE_BYTES, b"\0") + data


def create(file: Node, size: int, options: dict[str, Any]) -> None:
    """An empty image in `file`."""
    name, log_size = file.name, options["log_size"]
    if size % 512 or size > layout.MAX_SIZE:
        raise BadOption(name, f"a size of {size}: it is a multiple of 512 up to 64 TiB")
    if log_size % MIB or not MIB <= log_size <= 64 * MIB:
        raise BadOption(name, f"log_size {log_size} is no multiple of 1M up to 64M")
    block, fixed = choose_block(size, options["block_size"], name), options["subformat"] == "fixed"
    parent = b""
    if options["backing_file"]:
        if fixed:
            raise BadOption(name, "a fixed disk has no backing_file")
        parent = locator(options["backing_file"], parent_guid(name, options["backing_file"]))
    entries, ratio = bat_entries(size, block, 512, parent=bool(parent))
    bat_at, bat_size = 2 * MIB + log_size, max(-(-entries * 8 // MIB), 1) * MIB
    end = bat_at + bat_size
    blocks = -(-size // block)
    table = array("Q", bytes(8 * entries))
    if fixed or (options["block_state_zero"] and not parent):
        for k in range(blocks):
            table[k + k // ratio] = end + k * block | layout.FULLY_PRESENT if fixed else layout.ZEROED
    file.resize(end + (blocks * block if fixed else 0))
    file.pwrite(0, layout.FileTypeIdentifier(Creator="Dragoman".encode("utf-16-le")).pack())
    header = layout.Header(
        FileWriteGuid=uuid4().bytes_le, DataWriteGuid=uuid4().bytes_le, LogLength=log_size, LogOffset=MIB
    )
    for number, at in enumerate(layout.HEADERS):
        header.SequenceNumber = number
        file.pwrite(at, layout.sealed(header.pack().ljust(layout.HEADER_BYTES, b"\0")))
    regions = layout.RegionTableHeader(EntryCount=2).pack()
    regions += layout.RegionTableEntry(Guid=layout.BAT, FileOffset=bat_at, Length=bat_size, Required=1).pack()
    regions += layout.RegionTableEntry(Guid=layout.METADATA, FileOffset=MIB + log_size, Length=MIB, Required=1).pack()
    sealed = layout.sealed(regions.ljust(TABLE_BYTES, b"\0"))
    for at in layout.REGION_TABLES:
        file.pwrite(at, sealed)
    flags = (layout.LEAVE_BLOCK_ALLOCATED if fixed else 0) | (layout.HAS_PARENT if parent else 0)
    file.pwrite(MIB + log_size, metadata(size, block, flags, parent))
    file.pwrite(bat_at, table.tobytes())
    file.flush()


def parent_guid(name: str, parent: str) -> bytes:
    """The DataWriteGuid of the parent, which the child remembers."""
    from dbt.machine.block.formats.vhdx import Vhdx
    from dbt.machine.block.graph import open_image

    node = open_image(os.path.join(os.path.dirname(name), parent), "vhdx", allow_backing=True)
    try:
        assert isinstance(node, Vhdx)
        return node.header.DataWriteGuid
    finally:
        node.close()
