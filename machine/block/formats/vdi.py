"""VDI, VirtualBox's disk image, version 1.1: one map of blocks, dynamic or static.

The map's entries are numbers of blocks behind `offset_data`, or FREE (nowhere) or DISCARDED (zeroes). Snapshots and
differencing images (image types 3 and 4) are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dbt.machine.block.errors import BadOption, ImageCorrupt, ImageUnsupported
from dbt.machine.block.mapped import DATA, UNALLOCATED, ZERO, Mapped
from dbt.machine.block.node import CheckResult
from dbt.machine.block.options import Option
from dbt.machine.block.structure import Structure, raw, u32, u64
from dbt.machine.block.table_cache import TableCache
from dbt.machine.block.usage import Usage, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Measure, Node

SIGNATURE, VERSION = 0xBEDA107F, 0x00010001
DYNAMIC, STATIC = 1, 2
FREE, DISCARDED = 0xFFFFFFFF, 0xFFFFFFFE
BLOCK = 1 << 20
AHEAD = 32 << 20
MAX_BLOCKS = 0x3FFFFFFF // 4 + 1
TEXT = b"<<< QEMU VM Virtual Disk Image >>>\n"  # what readers expect is the magic; this is for people


class VdiHeader(Structure, order="<"):
    """The header, 512 bytes at offset 0."""

    text = raw(64, form="text")
    signature = u32(only=(SIGNATURE,), form="hex")
    version = u32(only=(VERSION,), form="hex")
    header_size = u32(0x180)
    image_type = u32(DYNAMIC)
    image_flags = u32()
    description = raw(256, form="text")
    offset_bmap = u32(form="hex")
    offset_data = u32(form="hex")
    cylinders = u32()
    heads = u32()
    sectors = u32()
    sector_size = u32(512, only=(512,))
    unused1 = u32()
    disk_size = u64()
    block_size = u32(BLOCK, minimum=512, maximum=256 << 20)
    block_extra = u32(only=(0,))
    blocks_in_image = u32(maximum=MAX_BLOCKS)
    blocks_allocated = u32()
    uuid_image = raw(16)
    uuid_last_snap = raw(16)
    uuid_link = raw(16)
    uuid_parent = raw(16)


class Vdi(Mapped):
    """One open image."""

    driver = "vdi"
    ahead = AHEAD
    CREATE_OPTIONS = (Option("static", bool, False, help="take all space at once"),)

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        header = self.header = VdiHeader.parse(self.file.pread(0, min(512, self.file.size)), self.name)
        if header.image_type not in {DYNAMIC, STATIC}:
            raise ImageUnsupported(self.name, f"image type {header.image_type} (undo or differencing)", offset=76)
        if any(header.uuid_link) or any(header.uuid_parent):
            raise ImageUnsupported(self.name, "a parent image: differencing VDI is not implemented", offset=424)
        self.cluster, self.size = header.block_size, header.disk_size
        self.map_at, self.data_at = header.offset_bmap, header.offset_data
        blocks = header.blocks_in_image
        if self.cluster & self.cluster - 1:
            raise ImageCorrupt(self.name, f"block_size {self.cluster} is no power of two", offset=376)
        if self.size > blocks * self.cluster:
            raise ImageCorrupt(self.name, f"{blocks} blocks are too few for {self.size} bytes", offset=384)
        if self.map_at < 512 or self.map_at % 512 or self.data_at % 512 or self.map_at + blocks * 4 > self.data_at:
            raise ImageCorrupt(self.name, "the map lies where none can be", offset=340)
        if self.map_at + blocks * 4 > self.file.size:
            raise ImageCorrupt(self.name, "the map lies behind the end of the file", offset=340)
        self.tables = TableCache(self.file, 32, "<")
        used = max(self.file.size - self.data_at, 0)
        self.end = self.data_at + -(-used // self.cluster) * self.cluster

    def place(self, index: int) -> tuple[int, int, int]:
        entry = self.tables.get(self.map_at, index)
        if entry == FREE:
            return UNALLOCATED, 0, 1
        if entry == DISCARDED:
            return ZERO, 0, 1
        host = self.data_at + entry * self.cluster
        if host >= self.end:
            what = f"block {index} is at {host:#x}, behind the end of the file"
            raise ImageCorrupt(self.name, what, offset=self.map_at + 4 * index)
        return DATA, host, 1

    def link(self, index: int, kind: int, host: int) -> None:
        self.tables.put(self.map_at, index, DISCARDED if kind == ZERO else (host - self.data_at) // self.cluster)
        if kind == DATA:
            self.header.blocks_allocated = self.header.blocks_allocated + 1 & FREE
            self.file.pwrite(0, self.header.pack())

    def info(self) -> dict[str, Any]:
        return {
            "subformat": "static" if self.header.image_type == STATIC else "dynamic", "block-size": self.cluster,
            "blocks-allocated": self.header.blocks_allocated,
        }  # fmt: skip

    def structures(self) -> Iterator[tuple[str, int, VdiHeader]]:
        yield "header", 0, self.header

    def check(self, repair: str = "") -> CheckResult:
        if repair:
            self.check_writable()
        with self.ranges.alone(), self.mutex:
            return self._check(repair)

    def _check(self, repair: str) -> CheckResult:
        result = CheckResult()
        usage = Usage(self, 512, result)
        result.total_clusters = self.header.blocks_in_image
        for index, entry in self.tables.entries(self.map_at, self.header.blocks_in_image, FREE):
            if entry == DISCARDED:
                continue
            host = self.data_at + entry * self.cluster
            if usage.take(host, min(self.cluster, max(usage.limit - host, 1)), f"block {index}"):
                result.allocated_clusters += 1
            elif repair == "all":
                self.tables.put(self.map_at, index, FREE)
                result.corruptions_fixed += 1
        if result.allocated_clusters != self.header.blocks_allocated:
            what = f"blocks_allocated is {self.header.blocks_allocated}, {result.allocated_clusters} are"
            result.leaks += 1  # a crash between the map and the header: nothing is lost by it
            result.note(what, 388)
            if repair:
                self.header.blocks_allocated = result.allocated_clusters
                self.file.pwrite(0, self.header.pack())
                result.leaks_fixed += 1
        return result

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        return head[64:68] == SIGNATURE.to_bytes(4, "little")

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        blocks = -(-size // BLOCK)
        if blocks > MAX_BLOCKS:
            raise BadOption(file.name, f"a size of {size}: at most {MAX_BLOCKS * BLOCK}")
        static = options["static"]
        data_at = 512 + -(-blocks * 4 // 512) * 512
        header = VdiHeader(
            text=TEXT.ljust(64, b"\0"), image_type=STATIC if static else DYNAMIC, offset_bmap=512,
            offset_data=data_at, disk_size=-(-size // 512) * 512, blocks_in_image=blocks,
            blocks_allocated=blocks if static else 0, uuid_image=uuid4().bytes_le, uuid_last_snap=uuid4().bytes_le,
        )  # fmt: skip
        file.resize(data_at + (blocks * BLOCK if static else 0))
        step = 1 << 18
        for start in range(0, blocks, step):
            numbers = range(start, min(start + step, blocks))
            table = b"".join(k.to_bytes(4, "little") for k in numbers) if static else b"\xff" * (4 * len(numbers))
            file.pwrite(512 + 4 * start, table)
        file.pwrite(0, header.pack())
        file.flush()

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        blocks = -(-size // BLOCK)
        tables = 512 + -(-blocks * 4 // 512) * 512
        return measured(size, BLOCK, [(0, size)] if options["static"] else data, tables)


DRIVER = Vdi
