"""QED, the QEMU enhanced disk format (docs/interop/qed_spec): two levels of tables, and a bit that asks for a check.

Tables are written in place and in no order; before the first of them changes the header's NEED_CHECK bit is set, and it
is cleared when the image is closed. An image that has it is repaired when it is opened for writing: entries that point
behind the end of the file are dropped, and that is all that a crash can have done, because room is only taken there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import BadOption, ImageCorrupt, ImageUnsupported, RequestRefused
from dbt.machine.block.mapped import DATA, UNALLOCATED, ZERO, Mapped
from dbt.machine.block.node import CheckResult
from dbt.machine.block.options import SIZE, Option
from dbt.machine.block.structure import Structure, u32, u64
from dbt.machine.block.table_cache import TableCache
from dbt.machine.block.usage import Usage, measured, power_of_two

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block.graph import Opening
    from dbt.machine.block.node import Measure, Node

MAGIC = 0x00444551
BACKING_FILE, NEED_CHECK, BACKING_FORMAT_NO_PROBE = 1, 2, 4
FEATURES = {0: "backing file", 1: "need check", 2: "backing format no probe"}
MAX_NAME = 1023
UNUSED, ZEROES = 0, 1  # L2 entries; all others are offsets


class QEDHeader(Structure, order="<"):
    """The header, at offset 0; `header_size` counts clusters."""

    magic = u32(only=(MAGIC,), form="hex")
    cluster_size = u32(minimum=4096, maximum=1 << 26)
    table_size = u32(minimum=1, maximum=16)
    header_size = u32(1, minimum=1)
    features = u64(bits=FEATURES)
    compat_features = u64(bits={})
    autoclear_features = u64(bits={})
    l1_table_offset = u64(form="hex")
    image_size = u64()
    backing_filename_offset = u32()
    backing_filename_size = u32()


class Qed(Mapped):
    """One open image."""

    driver = "qed"
    CREATE_OPTIONS = (
        Option("backing_file", str, None, help="name of the backing file, as the image is to say it"),
        Option("backing_fmt", str, None, help="its format; only that it is raw is stored"),
        Option("cluster_size", SIZE, 65536, help="4K to 64M"),
        Option("table_size", int, 4, help="clusters of a table: 1, 2, 4, 8, 16"),
    )

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        header = self.header = QEDHeader.parse(self.file.pread(0, min(QEDHeader.SIZE, self.file.size)), self.name)
        self._check_header()
        self.cluster, self.size = header.cluster_size, header.image_size
        self.table_bytes = header.cluster_size * header.table_size
        self.entries = self.table_bytes // 8
        self.first = header.header_size * header.cluster_size  # nothing but the header lies before
        self.tables = TableCache(self.file, 64, "<")
        self.end = -(-self.file.size // self.cluster) * self.cluster
        self.dirty = bool(header.features & NEED_CHECK)
        self.backing_name = ""
        if header.features & BACKING_FILE:
            at, length = header.backing_filename_offset, header.backing_filename_size
            if at + length > self.first or length > MAX_NAME:
                raise ImageCorrupt(self.name, "the backing file's name lies outside of the header", offset=56)
            self.backing_name = bytes(self.file.pread(at, length)).decode(errors="surrogateescape")
            self.backing_format = "raw" if header.features & BACKING_FORMAT_NO_PROBE else None
            if not opening.repair:
                self.backing = opening.backing(self.backing_name, self.backing_format)
        elif not opening.repair:
            self.backing = opening.backing("", None)
        if self.writable and not opening.repair:
            if header.autoclear_features:  # none is known
                self._update(autoclear_features=0)
            if self.dirty:
                self.check("all")

    def _check_header(self) -> None:
        header, name = self.header, self.name
        if header.features & ~(BACKING_FILE | NEED_CHECK | BACKING_FORMAT_NO_PROBE):
            unknown = [f"bit {k}" for k in range(3, 64) if header.features >> k & 1]
            raise ImageUnsupported(name, f"features that are not known: {', '.join(unknown)}", offset=16)
        size, table = header.cluster_size, header.table_size
        for what, value, at in (("cluster_size", size, 4), ("table_size", table, 8)):
            if value & value - 1:
                raise ImageCorrupt(name, f"{what} {value} is no power of two", offset=at)
        if header.image_size % 512 or header.image_size > (size * table // 8) ** 2 * size:
            raise ImageCorrupt(name, f"image_size {header.image_size} cannot be with its tables", offset=48)
        l1, first = header.l1_table_offset, header.header_size * size
        if l1 % size or l1 < first or l1 + size * table > self.file.size:
            raise ImageCorrupt(name, f"the L1 table is at {l1:#x}, where none can be", offset=40)

    def _update(self, **fields: int) -> None:
        for name, value in fields.items():
            setattr(self.header, name, value)
        self.file.pwrite(0, self.header.pack())

    # The tables.

    def _table(self, index: int) -> int:
        """The L2 table of a cluster, 0 if there is none."""
        l1_index = index // self.entries
        table = self.tables.get(self.header.l1_table_offset, l1_index)
        if table and not self._valid(table, self.table_bytes):
            what = f"L1 entry {l1_index} is {table:#x}, where no table can be"
            raise ImageCorrupt(self.name, what, offset=self.header.l1_table_offset + 8 * l1_index)
        return table

    def _valid(self, offset: int, length: int) -> bool:
        return not offset % self.cluster and offset >= self.first and offset + length <= self.end

    def place(self, index: int) -> tuple[int, int, int]:
        table = self._table(index)
        if not table:
            return UNALLOCATED, 0, self.entries - index % self.entries
        entry = self.tables.get(table, index % self.entries)
        if entry == UNUSED:
            return UNALLOCATED, 0, 1
        if entry == ZEROES:
            return ZERO, 0, 1
        if not self._valid(entry, self.cluster):
            what = f"L2 entry {index % self.entries} is {entry:#x}, where no cluster can be"
            raise ImageCorrupt(self.name, what, offset=table + index % self.entries * 8)
        return DATA, entry, 1

    def prepare_tables(self) -> None:
        with self.mutex:
            if not self.dirty:
                self._update(features=self.header.features | NEED_CHECK)
                self.file.flush()
                self.dirty = True

    def link(self, index: int, kind: int, host: int) -> None:
        table = self._table(index)
        if not table:
            table = self.end
            self.file.write_zeroes(table, self.table_bytes)
            self.end += self.table_bytes
            self.file.flush()  # an L1 entry never leads to what was there before
            self.tables.put(self.header.l1_table_offset, index // self.entries, table)
        self.tables.put(table, index % self.entries, ZEROES if kind == ZERO else host)

    def _set_clean(self) -> None:
        self.file.flush()
        if self.dirty:
            self._update(features=self.header.features & ~NEED_CHECK)
            self.file.flush()
            self.dirty = False

    def close(self) -> None:
        try:
            if self.writable:
                self._set_clean()
        finally:
            super().close()

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        self.check_writable()
        if preallocation != "off":
            raise ImageUnsupported(self.name, f"qed has no preallocation={preallocation}")
        if size < self.size:
            raise ImageUnsupported(self.name, "qed images cannot be made smaller")
        if size % 512 or size > self.entries**2 * self.cluster:
            raise RequestRefused(self.name, f"a size of {size}: with its tables it is a multiple of 512 up to "
                                            f"{self.entries**2 * self.cluster}")  # fmt: skip
        old, self.size = self.size, size
        if self.backing is not None and self.backing.size > old:  # what is new is not what is below
            self.write_zeroes(old, min(size, self.backing.size) - old)
        self._update(image_size=size)
        self.file.flush()

    # What is known about it.

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "cluster-size": self.cluster, "table-size": self.header.table_size,
            "dirty": bool(self.header.features & NEED_CHECK),
        }  # fmt: skip
        if self.backing_name:
            found["backing-filename"] = self.backing_name
            if self.backing_format:
                found["backing-format"] = self.backing_format
        return found

    def structures(self) -> Iterator[tuple[str, int, QEDHeader]]:
        yield "header", 0, self.header

    def check(self, repair: str = "") -> CheckResult:
        if repair:
            self.check_writable()
        with self.ranges.alone(), self.mutex:
            return self._check(repair)

    def _check(self, repair: str) -> CheckResult:
        result = CheckResult()
        usage = Usage(self, self.cluster, result)
        l1 = self.header.l1_table_offset
        usage.take(0, min(self.first, self.file.size), "the header")
        usage.take(l1, self.table_bytes, "the L1 table")
        result.total_clusters = -(-self.size // self.cluster)
        previous = None
        for k, table in self.tables.entries(l1, self.entries):
            good = self._valid(table, self.table_bytes)
            if not good:
                usage.corrupt(f"L1 entry {k} is {table:#x}, where no table can be", l1 + 8 * k)
            elif not usage.take(table, self.table_bytes, f"the L2 table of L1 entry {k}"):
                good = False
            if not good:
                self._drop(result, repair, l1, k)
                continue
            for n, entry in self.tables.entries(table, self.entries):
                if entry == ZEROES:
                    continue
                fine = self._valid(entry, self.cluster)
                if not fine:
                    usage.corrupt(f"L2 entry {n} is {entry:#x}, where no cluster can be", table + 8 * n)
                elif not usage.take(entry, min(self.cluster, max(usage.limit - entry, 1)), f"cluster of L2 entry {n}"):
                    fine = False
                if not fine:
                    self._drop(result, repair, table, n)
                    continue
                result.allocated_clusters += 1
                result.fragmented_clusters += previous is not None and entry != previous + self.cluster
                previous = entry
        spare = usage.count_leaks()
        if repair and spare:
            self.file.resize(usage.result.image_end)
            self.end = usage.result.image_end
            result.leaks_fixed = spare
        if repair == "all" and result.corruptions == result.corruptions_fixed:
            self._set_clean()
        return result

    def _drop(self, result: CheckResult, repair: str, table: int, index: int) -> None:
        """Forget an entry that cannot be right."""
        if repair == "all":
            self.tables.put(table, index, UNUSED)
            result.corruptions_fixed += 1

    def change_backing(self, name: str, driver: str) -> None:
        self.check_writable()
        features, at, text = _backing_fields(name, driver, self.cluster * self.header.header_size, self.name)
        self.backing_name, self.backing_format = name, "raw" if driver == "raw" else None
        kept = self.header.features & ~(BACKING_FILE | BACKING_FORMAT_NO_PROBE)
        fields = {"backing_filename_offset": at, "backing_filename_size": len(text)}
        for field, value in {**fields, "features": kept | features}.items():
            setattr(self.header, field, value)
        self.file.pwrite(0, self.header.pack() + text)
        self.file.flush()

    @classmethod
    def probe(cls, head: bytes, file: Node) -> bool:
        return head[:4] == MAGIC.to_bytes(4, "little")

    @classmethod
    def create(cls, file: Node, size: int, options: dict[str, Any]) -> None:
        cluster, table = options["cluster_size"], options["table_size"]
        _check_options(size, options, file.name)
        features, at, text = _backing_fields(
            options["backing_file"] or "", options["backing_fmt"] or "", cluster, file.name
        )
        if options["backing_fmt"] and not options["backing_file"]:
            raise BadOption(file.name, "backing_fmt needs backing_file")
        header = QEDHeader(
            cluster_size=cluster, table_size=table, features=features, l1_table_offset=cluster, image_size=size,
            backing_filename_offset=at, backing_filename_size=len(text),
        )  # fmt: skip
        file.resize(cluster * (1 + table))
        file.pwrite(0, header.pack() + text)
        file.flush()

    @classmethod
    def measure(cls, size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
        _check_options(size, options, "measure")
        cluster, table = options["cluster_size"], options["cluster_size"] * options["table_size"]
        return measured(size, cluster, data, cluster + table + -(-size // (table // 8 * cluster)) * table)


def _check_options(size: int, options: dict[str, Any], name: str) -> None:
    cluster, table = options["cluster_size"], options["table_size"]
    power_of_two(cluster, 4096, 1 << 26, "cluster_size", name)
    power_of_two(table, 1, 16, "table_size", name)
    if size % 512 or size > (most := (cluster * table // 8) ** 2 * cluster):
        raise BadOption(name, f"a size of {size}: with these tables it is a multiple of 512 up to {most}")


def _backing_fields(name: str, driver: str, room: int, where: str) -> tuple[int, int, bytes]:
    """(features, offset, name) as the header is to have them."""
    text = name.encode(errors="surrogateescape")
    if len(text) > min(MAX_NAME, room - QEDHeader.SIZE):
        raise BadOption(where, f"the backing file's name has {len(text)} bytes, at most {MAX_NAME} fit")
    if not text:
        return 0, 0, b""
    return BACKING_FILE | (BACKING_FORMAT_NO_PROBE if driver == "raw" else 0), QEDHeader.SIZE, text


DRIVER = Qed
