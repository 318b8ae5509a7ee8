"""Growing and shrinking, and preallocation. The range of everything is held alone, and the mutex."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import HostError, ImageUnsupported, RequestRefused
from dbt.machine.block.formats.qcow2 import bitmaps, writing
from dbt.machine.block.formats.qcow2.layout import COPIED, MAX_L1, OFFSET
from dbt.machine.block.formats.qcow2.tables import store, zeroes
from dbt.machine.block.protocols.file import File, allocate

if TYPE_CHECKING:
    from array import array

    from dbt.machine.block.formats.qcow2 import Qcow2


def resize(node: Qcow2, size: int, preallocation: str) -> None:
    """Make the disk `size` bytes large."""
    bitmaps.refuse_any(node, "be resized")
    if size < node.size:
        if node.header.nb_snapshots:
            raise ImageUnsupported(node.name, "an image with internal snapshots cannot be shrunk")
        if preallocation != "off":
            raise RequestRefused(node.name, "preallocation is for growing")
        _shrink(node, size)
        return
    old = node.size
    entries = node.geometry.l1_entries(size)
    if entries * 8 > MAX_L1:
        raise RequestRefused(node.name, f"{size} bytes need an L1 table of {entries * 8} bytes, at most {MAX_L1}")
    if entries > len(node.meta.l1):
        grown = zeroes(entries)
        grown[: len(node.meta.l1)] = node.meta.l1
        install_l1(node, grown)
    if node.backing is not None and node.backing.size > old:
        end = min(size, node.backing.size)
        node.size = size  # what the backing has there is not to be seen
        try:
            writing.write_zeroes(node, old, end - old, 0)
        finally:
            node.size = old
    if node.external and node.data_file.size < size:
        node.data_file.resize(size)
    node.meta.flush()
    node.update_header(size=size)
    node.file.flush()
    node.size = size
    if preallocation != "off":
        start = old + node.geometry.cluster_size - 1 & -node.geometry.cluster_size
        if start < size:
            preallocate(node, start, size, preallocation)
            node.meta.flush()


def install_l1(node: Qcow2, entries: array[int], *, size: int | None = None) -> None:
    """Another L1 table, at another place: written first, then the header names it, then the old one is free."""
    meta = node.meta
    bits = node.geometry.cluster_bits
    clusters = max(-(-len(entries) * 8 >> bits), 1)
    offset = meta.refcounts.contiguous(clusters)
    meta.flush()
    store(node.file, offset, entries)
    rest = (clusters << bits) - len(entries) * 8
    node.file.pwrite(offset + len(entries) * 8, bytes(rest))
    node.file.flush()
    old_offset, old_size = meta.l1_offset, meta.l1_size
    fields = {"l1_table_offset": offset, "l1_size": len(entries)}
    if size is not None:
        fields["size"] = size
    node.update_header(**fields)
    node.file.flush()
    meta.l1_offset, meta.l1_size = offset, len(entries)
    meta.l1 = entries
    meta.l2.clear()
    if old_size:
        meta.refcounts.release(old_offset >> bits, -(-old_size * 8 >> bits))


def _shrink(node: Qcow2, size: int) -> None:
    meta, geometry = node.meta, node.geometry
    old, cluster = node.size, geometry.cluster_size
    edge = min(size + cluster - 1 & -cluster, old)
    if size < edge:  # what is behind the new end is zero when the disk grows again
        writing.write_zeroes(node, size, edge - size, 0)
    meta.flush()
    node.update_header(size=size)
    node.file.flush()
    if edge < old:
        writing.discard(node, edge, old - edge, full=True)
    node.size = size
    bits = geometry.cluster_bits
    for index in range(geometry.l1_entries(size), len(meta.l1)):
        if meta.l1[index]:
            meta.refcounts.release((meta.l1[index] & OFFSET) >> bits)
            meta.l2.pop(index, None)
            meta.set_l1(index, 0)
    meta.flush()
    meta.write_out(all_refcounts=True)
    if node.external and node.raw_external:
        node.data_file.resize(size)
    last = node.file.size - 1 >> bits
    while last > 0 and not meta.refcounts.get(last):
        last -= 1
    if last + 1 << bits < node.file.size:
        node.file.resize(last + 1 << bits)
    meta.refcounts.hint = 0


def preallocate(node: Qcow2, start: int, end: int, mode: str) -> None:
    """Allocate the clusters of [start, end), which are not allocated, one after the other."""
    meta, geometry = node.meta, node.geometry
    cluster = geometry.cluster_size
    node.prepare()
    last = 0
    first = -1
    at = start
    while at < end:
        index = at >> geometry.l1_shift
        stop = min(end, index + 1 << geometry.l1_shift)
        count = -(-(stop - at) // cluster)
        table = meta.table_for_write(index)
        host = at if node.external else meta.refcounts.contiguous(count, fresh=True)
        i = (at >> geometry.cluster_bits) & geometry.l2_entries - 1
        for k in range(count):
            table.words[(i + k) * geometry.words] = host + k * cluster | COPIED
            if geometry.words == 2:
                table.words[2 * (i + k) + 1] = 0  # not stored yet: what is below, or zeroes
        table.touch(i * geometry.words, (i + count) * geometry.words)
        first = host if first < 0 else first
        last = max(last, host + count * cluster)
        meta.changed()
        at = stop
    target = node.data_file
    end_of_data = end if node.external else last
    if 0 <= first < target.size and not node.external:
        target.write_zeroes(first, min(target.size, end_of_data) - first)  # a device: what was there is not zero
    if target.size < end_of_data:
        target.resize(end_of_data)
    if mode in {"falloc", "full"} and first >= 0:
        if isinstance(target, File):
            try:
                allocate(target.fd, first, end_of_data, mode)
            except OSError as error:
                raise HostError(node.name, error, doing=f"preallocation={mode}", offset=first) from None
        else:
            target.write_zeroes(first, end_of_data - first)
