"""Formats that map clusters one by one: the data path that qed, vhdx, vmdk, vdi and vpc share.

A cluster is where an entry of the format's tables says, or nowhere: then it reads as zeroes or as the backing. A format
says where (`place`), takes new room (`fresh`), and changes its tables (`link`); here is all that moves data. Room is
only ever taken at the end of the file. What is new is written first, then, if anything but zeroes could be lost, a
flush, then the tables: a crash leaves the old content or the new. Where nothing else tells after a crash which entries
lead beyond the file's end, the file is made larger `ahead` of its use, on stable storage before any entry leads there.

Tables are kept by a TableCache (table_cache.py); checks count with a Usage (usage.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import cut, fill, scatter
from dbt.machine.block.errors import ImageUnsupported
from dbt.machine.block.node import Extent, Format
from dbt.machine.block.ranges import Ranges
from dbt.machine.block.request import COMPRESSED, MAY_UNMAP

if TYPE_CHECKING:
    from dbt.machine.block.graph import Opening
    from dbt.machine.block.request import Vectors

# What an entry says. PARTIAL: some sectors are here, the others are the backing's; a bitmap tells.
UNALLOCATED, ZERO, DATA, PACKED, PARTIAL = range(5)

MOST_RUN = 1 << 14  # clusters that one lookup goes through
COPY = 1 << 20  # bytes that are copied at a time


class Mapped(Format):
    """The base of such formats. They set `cluster`, `size` and `end` (where the file ends), and define what follows."""

    cluster: int
    end: int
    zero_entries = True  # whether the tables can say "zeroes"
    flush_before_link = False  # always, not only if there is a backing
    ahead = 0  # bytes by which the file grows at a time; 0: as it is written

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.file = opening.child("file")
        self.ranges = Ranges()
        self.mutex = threading.RLock()
        self.reached = self.file.size  # the file has this size also after a crash
        self._unpacked: tuple[int, bytes] | None = None

    # What a format defines. The mutex is held.

    def place(self, index: int) -> tuple[int, int, int]:
        """(kind, offset in the file, how many clusters from here on are nowhere as well, or 1) of a cluster."""
        raise NotImplementedError

    def link(self, index: int, kind: int, host: int) -> None:
        """Make the tables say that the cluster is of `kind`, DATA or ZERO, and where it is."""
        raise ImageUnsupported(self.name, f"{self.driver} images of this kind cannot be written")

    def link_all(self, kind: int, new: list[tuple[int, int]]) -> None:
        """`link` of many."""
        for index, host in new:
            self.link(index, kind, host)

    def fresh(self, index: int) -> int:
        """Room for a cluster, at the end of the file."""
        return self.take(self.cluster)

    def take(self, length: int) -> int:
        """Room for `length` bytes, at the end of the file."""
        host = self.end
        if self.ahead and host + length > self.reached:
            self.reach(host + max(length, self.ahead))
        self.end += length
        return host

    def reach(self, end: int) -> None:
        """Make the file end at `end`, on stable storage. What is new is zero."""
        self.file.resize(end)
        self.file.flush()
        self.reached = end

    def cut_off(self) -> None:
        """The image is closed: what the file has ahead is given back."""
        self.file.resize(self.end)

    def prepare(self) -> None:
        """Something is about to change: data if not tables."""

    def prepare_tables(self) -> None:
        """Tables are about to change."""

    def unpack(self, host: int) -> bytes:
        """The compressed cluster at `host`."""
        raise NotImplementedError

    def complete(self, index: int, host: int) -> None:
        """Fill in what a PARTIAL cluster has not yet."""
        raise NotImplementedError

    # Looking up.

    def locate(self, offset: int, length: int) -> tuple[int, int, int]:
        """(kind, bytes that are alike from here on, offset in the file). The mutex is held."""
        cluster = self.cluster
        index, within = divmod(offset, cluster)
        last = (offset + length - 1) // cluster
        kind, host, run = self.place(index)
        count = run
        if kind != PACKED:
            while index + count <= last and count < MOST_RUN:
                following, at, run = self.place(index + count)
                if following != kind or (kind == DATA and at != host + count * cluster):
                    break
                count += run
        return kind, min(count * cluster - within, length), host + within if kind == DATA else host

    # Reading.

    def read(self, offset: int, length: int, vectors: Vectors) -> None:
        held = self.ranges.acquire(offset, offset + length, alone=False)
        try:
            self._read(offset, length, vectors)
        finally:
            self.ranges.release(held)

    def _read(self, offset: int, length: int, vectors: Vectors) -> None:
        done = 0
        while done < length:
            at = offset + done
            with self.mutex:
                kind, count, host = self.locate(at, length - done)
            part = vectors if count == length else cut(vectors, done, count)
            if kind == DATA:
                self.file.read(host, count, part)
            elif kind == PACKED:
                within = at % self.cluster
                scatter(memoryview(self._unpack(host))[within : within + count], part)
            elif kind == UNALLOCATED:
                self.read_backing(at, count, part)
            else:
                fill(part, 0, count)
            done += count

    def read_backing(self, offset: int, length: int, vectors: Vectors) -> None:
        """What is below, and zeroes beyond its end."""
        backing = self.backing
        inside = 0 if backing is None else min(length, max(backing.size - offset, 0))
        if backing is not None and inside:
            backing.read(offset, inside, cut(vectors, 0, inside))
        if inside < length:
            fill(vectors, inside, length - inside)

    def _unpack(self, host: int) -> bytes:
        kept = self._unpacked
        if kept is None or kept[0] != host:
            kept = self._unpacked = (host, self.unpack(host))
        return kept[1]

    def status(self, offset: int, length: int) -> Extent:
        with self.mutex:
            kind, count, host = self.locate(offset, length)
        if kind == UNALLOCATED:
            return Extent(count, data=False, zero=self.backing is None, allocated=False)
        if kind == ZERO:
            return Extent(count, data=False, zero=True)
        if kind == PACKED:
            return Extent(count, data=True, zero=False, compressed=True)
        return Extent(count, data=True, zero=False, offset=host)

    # Writing.

    def _span(self, offset: int, length: int) -> tuple[int, int]:
        cluster = self.cluster
        return offset // cluster * cluster, -(-(offset + length) // cluster) * cluster

    def _in_place(self, offset: int, length: int) -> list[tuple[int, int]] | None:
        """(offset in the file, bytes) if all of it is there. The mutex is held."""
        pieces = []
        while length > 0:
            kind, count, host = self.locate(offset, length)
            if kind != DATA or self.place(offset // self.cluster)[0] != DATA:
                return None
            pieces.append((host, count))
            offset += count
            length -= count
        return pieces

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self.check_writable()
        if flags & COMPRESSED:
            self.write_packed(offset, length, vectors)
            return
        self.prepare()
        start, end = self._span(offset, length)
        with self.ranges.shared(start, end):
            with self.mutex:
                pieces = self._in_place(offset, length)
            if pieces is not None:
                done = 0
                for host, count in pieces:
                    self.file.write(host, count, vectors if count == length else cut(vectors, done, count))
                    done += count
                return
        with self.ranges.alone(start, end):
            self._write_new(offset, length, vectors)

    def write_packed(self, offset: int, length: int, vectors: Vectors) -> None:
        """Store compressed clusters."""
        raise ImageUnsupported(self.name, f"{self.driver} images of this kind have no compressed clusters")

    def _write_new(self, offset: int, length: int, vectors: Vectors) -> None:
        """Write where clusters are missing. The range is held alone."""
        new: list[tuple[int, int]] = []
        run: tuple[int, int, int] | None = None  # what lies behind each other is one write
        precious = self.flush_before_link
        self.prepare_tables()
        done = 0
        while done < length:
            index, within = divmod(offset + done, self.cluster)
            count = min(self.cluster - within, length - done)
            with self.mutex:
                kind, host, _ = self.place(index)
                if kind not in {DATA, PARTIAL}:
                    host = self.fresh(index)
            if kind == PARTIAL:
                self.complete(index, host)
                precious = True
            elif kind != DATA:
                precious |= kind == PACKED or self.backing is not None
                self._surround(kind, index, host, within, count)
            if kind != DATA:
                new.append((index, host))
            if run is not None and run[1] + run[2] == host + within:
                run = run[0], run[1], run[2] + count
            else:
                self._write_run(run, vectors)
                run = done, host + within, count
            done += count
        self._write_run(run, vectors)
        if new and precious:
            self.file.flush()
        if new:
            with self.mutex:
                self.link_all(DATA, new)

    def _write_run(self, run: tuple[int, int, int] | None, vectors: Vectors) -> None:
        if run is not None:
            done, host, count = run
            self.file.write(host, count, cut(vectors, done, count))

    def _surround(self, kind: int, index: int, host: int, within: int, count: int) -> None:
        """What a new cluster has before and behind the part that is written."""
        start, tail = index * self.cluster, within + count
        for at, length in ((0, within), (tail, self.cluster - tail)):
            below = 0
            if kind == PACKED:
                below = length
            elif kind == UNALLOCATED and self.backing is not None:
                below = min(length, max(min(self.backing.size, self.size) - start - at, 0))
            for piece in range(at, at + below, COPY):
                size = min(COPY, at + below - piece)
                buffer = memoryview(bytearray(size))
                if kind == PACKED:
                    buffer[:] = self._unpack(self.place(index)[1])[piece : piece + size]
                else:
                    self.read_backing(start + piece, size, [buffer])
                self.file.write(host + piece, size, [buffer])
            if below < length:
                self.file.write_zeroes(host + at + below, length - below, MAY_UNMAP)

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self.check_writable()
        self.prepare()
        with self.ranges.alone(*self._span(offset, length)):
            while length > 0:
                with self.mutex:
                    kind, count, host = self.locate(offset, length)
                    whole = self.place(offset // self.cluster)[0]
                if kind == DATA:
                    self.file.write_zeroes(host, count, flags)
                elif kind != ZERO and not (kind == UNALLOCATED and self._nothing_below(offset)):
                    count = self._zero_cluster(whole, offset, count)
                offset += count
                length -= count

    def _nothing_below(self, offset: int) -> bool:
        return self.backing is None or offset >= self.backing.size

    def _zero_cluster(self, kind: int, offset: int, length: int) -> int:
        """Zero what the backing or a compressed cluster has; the bytes that are zero then."""
        index, within = divmod(offset, self.cluster)
        whole = min(self.cluster, self.size - index * self.cluster)
        if within == 0 and length >= whole and self.zero_entries and kind != PARTIAL:
            self.prepare_tables()
            with self.mutex:
                self.link(index, ZERO, 0)
            return whole
        count = min(self.cluster - within, length, COPY)
        self._write_new(offset, count, [memoryview(bytes(count))])
        return count

    def discard(self, offset: int, length: int) -> None:
        self.check_writable()
        self.prepare()
        with self.ranges.alone(*self._span(offset, length)):
            while length > 0:
                with self.mutex:
                    kind, count, host = self.locate(offset, length)
                if kind == DATA:
                    self.file.discard(host, count)
                offset += count
                length -= count

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        try:
            if self.writable and self.ahead and self.file.size > self.end:
                self.flush()
                self.cut_off()
        finally:
            super().close()
