"""Writing compressed clusters: packed before anything is held, stored behind each other, then linked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import HostError, ImageUnsupported, RequestRefused
from dbt.machine.block.formats.qcow2 import writing
from dbt.machine.block.formats.qcow2.mapping import PACKED, UNALLOCATED, ZERO_PLAIN, locate

if TYPE_CHECKING:
    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.request import Vectors


def write(node: Qcow2, offset: int, length: int, vectors: Vectors) -> None:
    """Store whole clusters, compressed where that makes them smaller and nothing was written before."""
    size = node.geometry.cluster_size
    if offset % size or (length % size and offset + length != node.size):
        raise RequestRefused(node.name, "compressed writes are of whole clusters", offset=offset)
    if node.external:
        raise ImageUnsupported(node.name, "an external data file cannot hold compressed clusters")
    data = memoryview(b"".join(vectors)) if len(vectors) > 1 else vectors[0]
    pieces: list[bytes | None] = []
    for at in range(0, length, size):
        piece: memoryview | bytes = data[at : at + size]
        pieces.append(node.compressor.pack(piece if len(piece) == size else bytes(piece).ljust(size, b"\0")))
    with node.ranges.alone(*node.span(offset, length)):
        k = 0
        while k < len(pieces):
            at = offset + k * size
            run: list[bytes] = []
            while k < len(pieces) and (packed := pieces[k]) is not None and _never_written(node, offset + k * size):
                run.append(packed)
                k += 1
            if run:
                _store(node, at, run)
            else:
                rest = min(size, length - k * size)
                writing.write(node, at, rest, [data[k * size : k * size + rest]])
                k += 1


def _never_written(node: Qcow2, offset: int) -> bool:
    with node.meta.mutex:
        kind, count, _, _ = locate(node, offset, node.geometry.cluster_size)
    return kind in {UNALLOCATED, ZERO_PLAIN} and count >= min(node.geometry.cluster_size, node.size - offset)


def _store(node: Qcow2, offset: int, packed: list[bytes]) -> None:
    """Store compressed clusters, which follow each other from `offset` on and were never written."""
    meta, geometry = node.meta, node.geometry
    node.prepare()
    places: list[int] = []
    with meta.mutex:
        try:
            for data in packed:
                places.append(meta.refcounts.bytes(len(data)))  # noqa: PERF401 - the places so far, if one fails
        except BaseException:
            _free_bytes(node, places, packed)
            raise
    try:
        k = 0
        while k < len(packed):
            run = k + 1
            while run < len(packed) and places[run] == places[run - 1] + len(packed[run - 1]):
                run += 1
            data = b"".join(packed[k:run])
            node.file.write(places[k], len(data), [memoryview(data)])
            k = run
        with meta.mutex:
            for k, data in enumerate(packed):
                at = offset + k * geometry.cluster_size
                table = meta.table_for_write(at >> geometry.l1_shift)
                i = ((at >> geometry.cluster_bits) & geometry.l2_entries - 1) * geometry.words
                writing.release_entry(node, table, i // geometry.words)  # a cluster that was only reserved
                table.words[i] = geometry.compressed_entry(places[k], len(data))
                if geometry.words == 2:
                    table.words[i + 1] = 0
                table.touch(i, i + geometry.words)
            meta.changed()
    except HostError:
        with meta.mutex:
            if locate(node, offset, 1)[0] != PACKED:
                _free_bytes(node, places, packed)
        raise


def _free_bytes(node: Qcow2, places: list[int], packed: list[bytes]) -> None:
    bits = node.geometry.cluster_bits
    for at, data in zip(places, packed, strict=False):
        node.meta.refcounts.release(at >> bits, (at + len(data) - 1 >> bits) - (at >> bits) + 1)
    node.meta.refcounts.byte_hint = 0
