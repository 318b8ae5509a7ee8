"""The log of a VHDX file (MS-VHDX, 2.3): metadata goes there first, so that a crash leaves it whole.

Writing: an entry holds whole 4 KiB sectors of metadata; when it is on the disk they are written to their places. Those
are on the disk when the next entry is, so each entry's Tail is the entry before it.

Replay: the active sequence is the longest run of valid entries with following numbers whose last has the highest; from
its Tail on the sectors are put in their places. A file that is open for reading gets them in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.buffers import scatter
from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported
from dbt.machine.block.formats.vhdx.layout import (
    MIB,
    SECTOR,
    Header,
    LogDataSector,
    LogDescriptor,
    LogEntryHeader,
    intact,
    sealed,
)
from dbt.machine.block.node import Extent, Node

if TYPE_CHECKING:
    from dbt.machine.block.request import Vectors

MAX_LOG = 64 * MIB
IN_FIRST = (SECTOR - LogEntryHeader.SIZE) // LogDescriptor.SIZE  # descriptors beside the header
MAX_ZEROES = 1 << 40


class Entry:
    """One valid entry: what it changes, (offset, data) or (offset, length)."""

    def __init__(self, header: LogEntryHeader, changes: list[tuple[int, bytes | int]]) -> None:
        self.header = header
        self.changes = changes


class LogReader:
    """All of a log in memory, and the valid entries in it."""

    def __init__(self, file: Node, header: Header, name: str) -> None:
        self.name, self.guid = name, header.LogGuid
        self.offset, self.length = header.LogOffset, header.LogLength
        if self.length > MAX_LOG:
            raise ImageUnsupported(name, f"a log of {self.length} bytes; at most {MAX_LOG} are replayed")
        data = bytes(file.pread(self.offset, self.length))
        self.data = data + data  # what wraps is in one piece
        self.budget = 2 * self.length  # bytes whose checksums are looked at: entries do not overlap
        self.seen: dict[int, Entry | None] = {}

    def entry(self, at: int) -> Entry | None:
        """The valid entry at `at`, or None."""
        if at not in self.seen:
            self.seen[at] = self._parse(at)
        return self.seen[at]

    def _parse(self, at: int) -> Entry | None:
        if self.data[at : at + 4] != b"loge":
            return None
        try:
            header = LogEntryHeader.parse(self.data, self.name, self.offset + at, start=at)
        except ImageCorrupt:
            return None
        length, count = header.EntryLength, header.DescriptorCount
        sectors = -(-(LogEntryHeader.SIZE + count * LogDescriptor.SIZE) // SECTOR)
        if length % SECTOR or not sectors * SECTOR <= length <= self.length or header.LogGuid != self.guid:
            return None
        if header.Tail % SECTOR or header.Tail >= self.length:
            return None
        self.budget -= length
        if self.budget < 0:
            raise ImageCorrupt(self.name, "the log's entries overlap", offset=self.offset + at)
        data = self.data[at : at + length]
        if not intact(data):
            return None
        try:
            return Entry(header, self._changes(data, header, sectors, at))
        except ImageCorrupt:
            return None

    def _changes(self, data: bytes, header: LogEntryHeader, sectors: int, at: int) -> list[tuple[int, bytes | int]]:
        changes: list[tuple[int, bytes | int]] = []
        following = sectors * SECTOR
        number = header.SequenceNumber
        for k in range(header.DescriptorCount):
            start = LogEntryHeader.SIZE + k * LogDescriptor.SIZE
            one = LogDescriptor.parse(data, self.name, self.offset + at + start, start=start)
            wrong = one.SequenceNumber != number or one.FileOffset % SECTOR
            if one.Signature == b"zero":
                length = int.from_bytes(one.Leading, "little")
                wrong = wrong or length % SECTOR or length > MAX_ZEROES
                changes.append((one.FileOffset, length))
            else:
                sector = LogDataSector.parse(data, self.name, self.offset + at + following, start=following)
                wrong = wrong or sector.SequenceHigh << 32 | sector.SequenceLow != number
                following += SECTOR
                changes.append((one.FileOffset, one.Leading + sector.Data + one.Trailing))
            if wrong:
                raise ImageCorrupt(self.name, "a log descriptor is not valid", offset=self.offset + at + start)
        return changes

    def active(self) -> list[Entry]:
        """The entries of the active sequence that are to be replayed, oldest first (2.3.2)."""
        best: list[tuple[int, Entry]] = []
        start = 0
        while start < self.length:
            run: list[tuple[int, Entry]] = []
            at, covered = start, 0
            while (entry := self.entry(at)) is not None and covered + entry.header.EntryLength <= self.length:
                if run and entry.header.SequenceNumber != run[-1][1].header.SequenceNumber + 1:
                    break
                run.append((at, entry))
                covered += entry.header.EntryLength
                at = (at + entry.header.EntryLength) % self.length
            if run:
                head = run[-1][1].header
                tails = [k for k, (place, _) in enumerate(run) if place == head.Tail]
                if tails and (not best or head.SequenceNumber > best[-1][1].header.SequenceNumber):
                    best = run[tails[0] :]
            start += covered or SECTOR
        if not best:
            raise ImageCorrupt(self.name, "the log has no valid entries, and the header names it", offset=self.offset)
        return [entry for _, entry in best]


class Replayed(Node):
    """`file` as it would be after the replay, for reading."""

    driver = "replayed"

    def __init__(self, file: Node, entries: list[Entry]) -> None:  # made by us, not opened
        self.file, self.name, self.writable = file, file.name, False
        self.options, self.children = {}, {}
        self.size = max(file.size, entries[-1].header.LastFileOffset)
        self.changes = [change for entry in entries for change in entry.changes]

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        data = bytearray(length)
        inside = min(length, max(self.file.size - offset, 0))
        if inside:
            self.file.read(offset, inside, [memoryview(data)[:inside]])
        for at, change in self.changes:
            size = change if isinstance(change, int) else len(change)
            low, high = max(at, offset), min(at + size, offset + length)
            if low < high:
                piece = bytes(high - low) if isinstance(change, int) else change[low - at : high - at]
                data[low - offset : high - offset] = piece
        scatter(data, vectors)

    def status(self, offset: int, length: int) -> Extent:
        return Extent(length, data=True, zero=False)


def replay(file: Node, entries: list[Entry]) -> None:
    """Put the sectors in their places."""
    for entry in entries:
        for offset, change in entry.changes:
            if isinstance(change, int):
                file.write_zeroes(offset, change)
            else:
                file.pwrite(offset, change)
    if file.size < (end := entries[-1].header.LastFileOffset):
        file.resize(end)
    file.flush()


def pending(file: Node, header: Header, name: str) -> list[Entry]:
    """What is to be replayed."""
    entries = LogReader(file, header, name).active()
    flushed, last = entries[-1].header.FlushedFileOffset, entries[-1].header.LastFileOffset
    if flushed > file.size:
        raise ImageCorrupt(name, f"the log was written when the file had {flushed} bytes", offset=header.LogOffset)
    most = max(file.size, flushed) + (1 << 40)
    if last > most or any(at + (c if isinstance(c, int) else len(c)) > max(last, file.size)
                          for entry in entries for at, c in entry.changes):  # fmt: skip
        raise ImageCorrupt(name, "the log leads behind the end of the file", offset=header.LogOffset)
    return entries


class LogWriter:
    """Writes entries from the start of the log on, with numbers from 1; `guid` is new.

    The first entry is written before the header names the log: a log that is named and empty is corrupt (2.3.3).
    """

    def __init__(self, file: Node, header: Header, guid: bytes) -> None:
        self.file, self.guid = file, guid
        self.offset, self.length = header.LogOffset, header.LogLength
        self.number = 0
        self.head = 0  # where the next goes
        self.last: int | None = None
        self.flushed = file.size
        self.most = min((self.length // SECTOR - 4) // 2, IN_FIRST)  # sectors in one entry: two are in the log

    def write(self, sectors: list[tuple[int, bytes]]) -> None:
        """Change 4 KiB sectors of metadata; on the disk in the log when this returns, and in their places later."""
        for start in range(0, len(sectors), self.most):
            self._write(sectors[start : start + self.most])

    def _write(self, sectors: list[tuple[int, bytes]]) -> None:
        number = self.number + 1  # kept when it is written
        size = self.file.size
        tail = self.head if self.last is None else self.last
        header = LogEntryHeader(
            EntryLength=SECTOR * (1 + len(sectors)), Tail=tail, SequenceNumber=number, LogGuid=self.guid,
            DescriptorCount=len(sectors), FlushedFileOffset=self.flushed, LastFileOffset=-(-size // MIB) * MIB,
        )  # fmt: skip
        first, data = header.pack(), b""
        for offset, content in sectors:
            first += LogDescriptor(
                Signature=b"desc", Leading=content[:8], Trailing=content[-4:], FileOffset=offset,
                SequenceNumber=number,
            ).pack()  # fmt: skip
            data += LogDataSector(SequenceHigh=number >> 32, Data=content[8:-4], SequenceLow=number & 0xFFFFFFFF).pack()
        entry = sealed(first.ljust(SECTOR, b"\0") + data)
        until_end = self.length - self.head
        self.file.pwrite(self.offset + self.head, entry[:until_end])
        self.file.pwrite(self.offset, entry[until_end:])
        self.file.flush()
        self.flushed = size
        self.number = number
        self.last, self.head = self.head, (self.head + len(entry)) % self.length
        for offset, content in sectors:
            self.file.pwrite(offset, content)
