"""Writing: in place where that can be, else into new clusters, with the rest of them copied; zeroes and discards.

All of this runs with the range held alone (ranges.py), so what is mapped there stays as it is; the mutex is held while
tables are looked at or changed, not while data moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.buffers import ZEROES, cut
from dbt.machine.block.formats.qcow2.layout import ALL_ALLOCATED, COMPRESSED, COPIED, OFFSET, SUBCLUSTERS, ZERO
from dbt.machine.block.formats.qcow2.mapping import (
    NORMAL,
    PACKED,
    UNALLOCATED,
    ZERO_ALLOCATED,
    ZERO_PLAIN,
    kind_of,
    locate,
    stored,
)  # fmt: skip
from dbt.machine.block.request import MAY_UNMAP

if TYPE_CHECKING:
    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.formats.qcow2.tables import Table
    from dbt.machine.block.request import Vectors

ZERO_BUFFER = memoryview(bytes(2 << 20))


def in_place(node: Qcow2, offset: int, length: int) -> list[tuple[int, int]] | None:
    """(host, bytes) pieces if all of the range is allocated and ours alone; None if not. The mutex is held."""
    pieces: list[tuple[int, int]] = []
    while length:
        kind, count, host, copied = locate(node, offset, length)
        if kind != NORMAL or not copied:
            return None
        if not node.external:
            node.meta.guard(host, count)
        pieces.append((host, count))
        offset += count
        length -= count
    return pieces


def write(node: Qcow2, offset: int, length: int, vectors: Vectors) -> None:
    """Store the data, wherever it has to go."""
    step = _write_sub if node.geometry.words == 2 else _write_run
    done = 0
    while done < length:
        at, rest = offset + done, length - done
        with node.meta.mutex:
            kind, count, host, copied = locate(node, at, rest)
            if kind == NORMAL and copied and not node.external:
                node.meta.guard(host, count)
        if kind == NORMAL and copied:
            node.data_file.write(host, count, cut(vectors, done, count))
        else:
            node.prepare()
            count = step(node, at, rest, vectors, done)
        done += count


def _write_run(node: Qcow2, at: int, rest: int, vectors: Vectors, done: int) -> int:
    """Clusters from the one at `at` on that need a new place, as many as get one in a row; the bytes of data stored."""
    geometry, meta, size = node.geometry, node.meta, node.geometry.cluster_size
    start = at & -size
    index = at >> geometry.l1_shift
    first = (at >> geometry.cluster_bits) & geometry.l2_entries - 1
    wanted = min(-(-(at + rest - start) >> geometry.cluster_bits), geometry.l2_entries - first)
    reused = False
    with meta.mutex:
        table = meta.table_for_write(index)
        entry = table.words[first]
        if kind_of(node, table, first) == ZERO_ALLOCATED and entry & COPIED:
            host, clusters, reused = entry & OFFSET, 1, True
        else:
            clusters = 1
            while clusters < wanted and _needs_place(node, table, first + clusters):
                clusters += 1
            host, clusters = (start, clusters) if node.external else meta.refcounts.run(clusters)
    end = min(start + clusters * size, at + rest)
    try:
        head = _old(node, start, at - start)
        tail = _old(node, end, -end % size)
        node.store(host, [*head, *cut(vectors, done, end - at), *tail])
        with meta.mutex:
            table = meta.table_for_write(index)
            for k in range(clusters):
                old = table.words[first + k]
                if old and not reused:
                    release_entry(node, table, first + k)
                table.words[first + k] = host + k * size | COPIED
            table.touch(first, first + clusters)
            meta.changed()
    except BaseException:
        if not reused:
            _give_back(node, index, first, host, clusters)
        raise
    return end - at


def _give_back(node: Qcow2, index: int, first: int, host: int, clusters: int) -> None:
    """Free what was allocated and is not referred to, after a failure."""
    with node.meta.mutex:
        table = node.meta.l2.get(index)
        linked = table is not None and table.words[first * node.geometry.words] & OFFSET == host
        if not linked and not node.external:
            node.meta.refcounts.release(host >> node.geometry.cluster_bits, clusters)


def _needs_place(node: Qcow2, table: Table, i: int) -> bool:
    kind = kind_of(node, table, i)
    return not (kind in {NORMAL, ZERO_ALLOCATED} and table.words[i] & COPIED)


def _old(node: Qcow2, offset: int, length: int) -> list[memoryview]:
    """What the part of a cluster that is not written holds: vectors to be written with the rest."""
    if length <= 0:
        return []
    inside = min(length, max(node.size - offset, 0))
    if node.reads_zero(offset, inside):
        return [memoryview(ZEROES)[: min(len(ZEROES), length - at)] for at in range(0, length, len(ZEROES))]
    data = memoryview(bytearray(length))
    node.read_mapped(offset, inside, [data[:inside]])
    return [data]


def release_entry(node: Qcow2, table: Table, i: int, *, punch: bool = False) -> None:
    """Entry i is about to be overwritten: its clusters lose a reference."""
    offset, length = stored(node, table, i)
    if length:
        bits = node.geometry.cluster_bits
        first = offset >> bits
        node.meta.refcounts.release(first, (offset + length - 1 >> bits) - first + 1, punch=punch)
        node.forget_unpacked()


def _write_sub(node: Qcow2, at: int, rest: int, vectors: Vectors, done: int) -> int:
    """The same for one cluster with subclusters: only those that are touched are stored."""
    geometry, meta = node.geometry, node.meta
    size, granule = geometry.cluster_size, geometry.granule
    start = at & -size
    index = at >> geometry.l1_shift
    i = (at >> geometry.cluster_bits) & geometry.l2_entries - 1
    end = min(start + size, at + rest)
    low, high = at & -granule, end + granule - 1 & -granule
    with meta.mutex:
        table = meta.table_for_write(index)
        entry, bitmap = table.words[2 * i], table.words[2 * i + 1]
        reused = bool(entry & COPIED and not entry & COMPRESSED and (entry & OFFSET or node.external))
        if not reused and (entry & COMPRESSED or bitmap & ALL_ALLOCATED):
            low, high, bitmap = start, start + size, 0  # all of it moves
        host = entry & OFFSET if reused else start if node.external else meta.refcounts.run(1)[0]
    mask = (1 << (high - low) // granule) - 1 << (low - start) // granule
    try:
        head, tail = _old(node, low, at - low), _old(node, end, high - end)
        node.store(host + low - start, [*head, *cut(vectors, done, end - at), *tail])
        with meta.mutex:
            table = meta.table_for_write(index)
            if not reused:
                release_entry(node, table, i)
            table.words[2 * i] = host | COPIED
            table.words[2 * i + 1] = (bitmap | mask) & ~(mask << SUBCLUSTERS)
            table.touch(2 * i, 2 * i + 2)
            meta.changed()
    except BaseException:
        if not reused:
            _give_back(node, index, i, host, 1)
        raise
    return end - at


def write_zeroes(node: Qcow2, offset: int, length: int, flags: int) -> None:
    """The range reads as zeroes: by flags for whole clusters (subclusters), by data at the ends."""
    granule = node.geometry.granule
    end = offset + length
    if end == node.size:
        end = end + granule - 1 & -granule  # what is behind the disk's end may be zero as well
    first, last = -(-offset // granule) * granule, end & -granule
    if first >= last:
        _write_zero_data(node, offset, length)
        return
    _write_zero_data(node, offset, first - offset)
    _write_zero_data(node, last, min(end, node.size) - last)
    node.prepare()
    if node.raw_external:
        node.data_file.write_zeroes(first, min(last, node.size) - first, flags)
    at = first
    size = node.geometry.cluster_size
    while at < last:
        stop = min(last, (at & -size) + size)
        at = _zero_cluster(node, at, stop, flags) if stop <= last else last


def _write_zero_data(node: Qcow2, offset: int, length: int) -> None:
    while length > 0:
        count = min(length, len(ZERO_BUFFER))
        if not node.reads_zero(offset, count):
            write(node, offset, count, [ZERO_BUFFER[:count]])
        offset += count
        length -= count


def _zero_cluster(node: Qcow2, at: int, stop: int, flags: int) -> int:
    """Make [at, stop), within a cluster, zero by its L2 entry; where to go on."""
    geometry, meta = node.geometry, node.meta
    index = at >> geometry.l1_shift
    i = (at >> geometry.cluster_bits) & geometry.l2_entries - 1
    whole = stop - at == geometry.cluster_size
    with meta.mutex:
        if node.backing is None and meta.table(index) is None:
            return index + 1 << geometry.l1_shift  # nothing there, and nothing below
        kind, count, _, copied = locate(node, at, stop - at)
        if count == stop - at and (kind == ZERO_PLAIN or (kind == UNALLOCATED and node.backing is None)):
            return stop
        keep = copied and not flags & MAY_UNMAP
        if node.header.version < 3:
            if node.backing is None:
                table = meta.table_for_write(index)
                release_entry(node, table, i, punch=True)
                _put(table, i, 0)
                meta.changed()
                return stop
        elif geometry.words == 1:
            table = meta.table_for_write(index)
            entry = table.words[i]
            stays = kind in {NORMAL, ZERO_ALLOCATED} and (keep or node.external)
            if not stays:
                release_entry(node, table, i, punch=bool(flags & MAY_UNMAP))
            _put(table, i, entry | ZERO if stays else ZERO)
            meta.changed()
            return stop
        elif whole or kind != PACKED:
            table = meta.table_for_write(index)
            granule = geometry.granule
            mask = (1 << (stop - at) // granule) - 1 << (at & geometry.cluster_size - 1) // granule
            if whole and not ((keep or node.external) and kind != PACKED):
                release_entry(node, table, i, punch=bool(flags & MAY_UNMAP))
                table.words[2 * i] = 0
                table.words[2 * i + 1] = mask << SUBCLUSTERS
            else:
                table.words[2 * i + 1] = table.words[2 * i + 1] & ~mask | mask << SUBCLUSTERS
            table.touch(2 * i, 2 * i + 2)
            meta.changed()
            return stop
    _write_zero_data(node, at, min(stop, node.size) - at)
    return stop


def _put(table: Table, i: int, entry: int) -> None:
    table.words[i] = entry
    table.touch(i, i + 1)


def discard(node: Qcow2, offset: int, length: int, *, full: bool = False) -> None:
    """Give whole clusters back. What was there reads as zeroes, or, `full`, as what is below."""
    geometry, meta = node.geometry, node.meta
    size = geometry.cluster_size
    end = offset + length
    if end == node.size or full:
        end = end + size - 1 & -size
    at, last = -(-offset // size) * size, end & -size
    if at < last:
        node.prepare()
    if node.external and at < last and not full:
        node.data_file.write_zeroes(at, min(last, node.data_file.size) - at, MAY_UNMAP)
    while at < last:
        index = at >> geometry.l1_shift
        with meta.mutex:
            if meta.table(index) is None:
                at = index + 1 << geometry.l1_shift
                continue
            i = (at >> geometry.cluster_bits) & geometry.l2_entries - 1
            kind, count, _, _ = locate(node, at, size)
            zero = node.header.version >= 3 and not full
            below = node.backing is not None
            done = count == size and (kind == UNALLOCATED or (zero and kind == ZERO_PLAIN))
            if not done and (zero or full or not below):  # version 2 could not say "zero" above a backing file
                table = meta.table_for_write(index)
                entry = table.words[i * geometry.words]
                stays = node.external and not full and kind not in {UNALLOCATED, ZERO_PLAIN}
                if not stays:
                    release_entry(node, table, i, punch=True)
                if geometry.words == 2:
                    table.words[2 * i] = entry if stays else 0
                    table.words[2 * i + 1] = ALL_ALLOCATED << SUBCLUSTERS if zero else 0
                    table.touch(2 * i, 2 * i + 2)
                else:
                    _put(table, i, (entry if stays else 0) | (ZERO if zero else 0))
                meta.changed()
        at += size
