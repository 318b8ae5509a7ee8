"""Making images: header, L1 table and refcounts for exactly those; preallocation goes through an open image."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import BadOption, ImageUnsupported
from dbt.machine.block.formats.qcow2.layout import (
    COMPRESSION,
    COMPRESSION_TYPES,
    DATA_FILE,
    EXT_BACKING_FORMAT,
    EXT_DATA_FILE,
    EXT_FEATURES,
    EXTENDED_L2,
    LAZY_REFCOUNTS,
    MAX_BACKING_NAME,
    MAX_L1,
    MAX_REFCOUNT_TABLE,
    RAW_DATA_FILE,
    Geometry,
    HeaderRest,
    HeaderV2,
    HeaderV3,
    feature_names,
    pack_extensions,
)  # fmt: skip
from dbt.machine.block.formats.qcow2.tables import CODES, store
from dbt.machine.block.node import Measure
from dbt.machine.block.options import SIZE, Option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.node import Node

OPTIONS = (
    Option("compat", ("1.1", "0.10", "v3", "v2"), "1.1", help="version 3 (1.1) or 2 (0.10)"),
    Option("backing_file", str, None, help="name of the backing file, as the image is to say it"),
    Option("backing_fmt", str, None, help="format of the backing file"),
    Option("cluster_size", SIZE, 65536, help="512 to 2M"),
    Option("preallocation", ("off", "metadata", "falloc", "full"), "off", help="what is allocated at once"),
    Option("lazy_refcounts", bool, False, help="write refcounts when the image is closed"),
    Option("refcount_bits", int, 16, help="width of refcounts: 1, 2, 4, 8, 16, 32, 64"),
    Option("compression_type", COMPRESSION_TYPES, "zlib", help="of compressed clusters"),
    Option("data_file", str, None, help="name of an external data file, as the image is to say it"),
    Option("data_file_raw", bool, False, help="keep the data file readable as a raw image"),
    Option("extended_l2", bool, False, help="subclusters, 32 for each cluster"),
)


def header_cluster(
    header: HeaderV2, rest: bytes, extensions: list[tuple[int, bytes]], backing: str, name: str
) -> bytes:
    """The first cluster: header, extensions, the backing file's name; the feature names only if there is room."""
    size = 1 << header.cluster_bits
    text = backing.encode(errors="surrogateescape")
    if len(text) > MAX_BACKING_NAME:
        raise BadOption(name, f"the backing file's name has {len(text)} bytes, at most {MAX_BACKING_NAME} fit")
    data = b""
    for kept in (extensions, [pair for pair in extensions if pair[0] != EXT_FEATURES]):
        start = header.SIZE + len(rest)
        tail = pack_extensions(kept)
        header.backing_file_offset = start + len(tail) if text else 0
        header.backing_file_size = len(text)
        data = header.pack() + rest + tail + text
        if len(data) <= size:
            return data.ljust(size, b"\0")
    raise BadOption(name, f"header and backing file's name need {len(data)} bytes, a cluster has {size}")


def _check(options: dict[str, Any], name: str) -> tuple[int, int, int]:
    """(version, cluster bits, refcount order), after options that cannot go together are refused."""
    size, width = options["cluster_size"], options["refcount_bits"]
    version = 3 if options["compat"] in {"1.1", "v3"} else 2
    if size & size - 1 or not 512 <= size <= 2 << 20:
        raise BadOption(name, f"cluster_size {size} is no power of two between 512 and 2M")
    if width not in {1, 2, 4, 8, 16, 32, 64}:
        raise BadOption(name, f"refcount_bits {width} is none of 1, 2, 4, 8, 16, 32, 64")
    if version == 2:
        new = {"lazy_refcounts": False, "refcount_bits": 16, "compression_type": "zlib", "data_file": None,
               "extended_l2": False}  # fmt: skip
        for option, value in new.items():
            if options[option] != value:
                raise BadOption(name, f"{option} needs compat=1.1")
    if options["extended_l2"] and size < 16384:
        raise BadOption(name, "extended_l2 needs clusters of 16K or more")
    if options["data_file_raw"] and not options["data_file"]:
        raise BadOption(name, "data_file_raw needs data_file")
    if options["data_file_raw"] and options["backing_file"]:
        raise BadOption(name, "data_file_raw and backing_file contradict each other")
    if options["backing_fmt"] and not options["backing_file"]:
        raise BadOption(name, "backing_fmt needs backing_file")
    if options["backing_file"] and options["preallocation"] != "off" and not options["extended_l2"]:
        raise BadOption(name, "with a backing file only extended_l2 images can be preallocated")
    return version, size.bit_length() - 1, width.bit_length() - 1


def refcount_layout(geometry: Geometry, order: int, used: int) -> tuple[int, int]:
    """(clusters of the refcount table, blocks) for `used` clusters, table and blocks themselves."""
    per_block = geometry.cluster_size * 8 >> order
    table = blocks = 1
    while True:
        total = used + table + blocks
        need = -(-total // per_block)
        need_table = -(-need * 8 // geometry.cluster_size)
        if (need, need_table) == (blocks, table):
            return table, blocks
        blocks, table = max(need, blocks), max(need_table, table)


def create(driver: type[Qcow2], file: Node, size: int, options: dict[str, Any]) -> None:
    """An empty image in `file`."""
    version, cluster_bits, order = _check(options, file.name)
    geometry = Geometry.of(cluster_bits, extended=options["extended_l2"])
    entries = geometry.l1_entries(size)
    if entries * 8 > MAX_L1:
        what = f"{size} bytes need an L1 table of {entries * 8} bytes, at most {MAX_L1}"
        raise BadOption(file.name, what, hint="larger clusters need smaller tables")
    l1_clusters = -(-entries * 8 // geometry.cluster_size)
    table_clusters, blocks = refcount_layout(geometry, order, 1 + l1_clusters)
    if table_clusters * geometry.cluster_size > MAX_REFCOUNT_TABLE:
        raise BadOption(file.name, "the refcount table would be too large")
    table_at = geometry.cluster_size
    blocks_at = table_at + table_clusters * geometry.cluster_size
    l1_at = blocks_at + blocks * geometry.cluster_size
    fields = {
        "version": version, "cluster_bits": cluster_bits, "size": size, "l1_size": entries,
        "l1_table_offset": l1_at, "refcount_table_offset": table_at, "refcount_table_clusters": table_clusters,
    }  # fmt: skip
    extensions: list[tuple[int, bytes]] = []
    if options["backing_fmt"]:
        extensions.append((EXT_BACKING_FORMAT, options["backing_fmt"].encode()))
    rest = b""
    header: HeaderV2 = HeaderV2(**fields)
    if version >= 3:
        zstd = options["compression_type"] == "zstd"
        incompatible = (COMPRESSION if zstd else 0) | (EXTENDED_L2 if options["extended_l2"] else 0)
        if options["data_file"]:
            incompatible |= DATA_FILE
            extensions.append((EXT_DATA_FILE, options["data_file"].encode()))
        extensions.append((EXT_FEATURES, feature_names()))
        rest = HeaderRest(compression_type=int(zstd)).pack()
        header = HeaderV3(
            **fields, incompatible_features=incompatible, refcount_order=order,
            compatible_features=LAZY_REFCOUNTS if options["lazy_refcounts"] else 0,
            autoclear_features=RAW_DATA_FILE if options["data_file_raw"] else 0,
        )  # fmt: skip
    first = header_cluster(header, rest, extensions, options["backing_file"] or "", file.name)
    if options["data_file"]:
        from dbt.machine.block.graph import make_beside

        make_beside(file.name, options["data_file"], size)
    used = 1 + table_clusters + blocks + l1_clusters
    end, before = used * geometry.cluster_size, file.size
    if before < end:
        file.resize(end)
    if before:
        file.write_zeroes(0, min(before, end))  # a device is not empty
    store(file, table_at, array("Q", [blocks_at + k * geometry.cluster_size for k in range(blocks)]))
    _store_ones(file, blocks_at, used, order)
    file.pwrite(0, first)
    mode = options["preallocation"]
    if options["data_file_raw"] and mode == "off":
        mode = "metadata"  # that the data file is valid without the image is what raw promises
    if mode != "off":
        _preallocate(driver, file, size, mode)
    file.flush()


def _store_ones(file: Node, at: int, count: int, order: int) -> None:
    """Refcounts of one for the first `count` clusters."""
    if order >= 3:
        store(file, at, array(CODES[1 << order], [1]) * count)
        return
    per_byte = 8 >> order
    ones = sum(1 << (k << order) for k in range(per_byte))
    whole, rest = divmod(count, per_byte)
    last = sum(1 << (k << order) for k in range(rest))
    file.pwrite(at, bytes([ones]) * whole + (bytes([last]) if rest else b""))


def _preallocate(driver: type[Qcow2], file: Node, size: int, mode: str) -> None:
    from dbt.machine.block.formats.qcow2.resize import preallocate
    from dbt.machine.block.graph import Opening
    from dbt.machine.block.spec import Spec

    opening = Opening(Spec("qcow2", {}, {"backing": None}), writable=True, name=file.name)
    opening.children["file"] = file
    node = driver(opening)
    try:
        with node.ranges.alone(), node.meta.mutex:
            preallocate(node, 0, size, mode)
        node.set_clean()
    finally:
        if node.data_file is not file:
            node.data_file.close()


def measure(size: int, options: dict[str, Any], data: Iterable[tuple[int, int]]) -> Measure:
    """Bytes of an image with `data` in it, tables as if it were full, and of one with everything allocated."""
    _, cluster_bits, order = _check(options, "measure")
    geometry = Geometry.of(cluster_bits, extended=options["extended_l2"])
    cluster = geometry.cluster_size
    if geometry.l1_entries(size) * 8 > MAX_L1:
        raise ImageUnsupported("measure", f"{size} bytes need a larger L1 table than clusters of {cluster} allow")
    last, stored = -1, 0
    for offset, length in data:
        first = max(offset >> cluster_bits, last + 1)
        end = offset + length + cluster - 1 >> cluster_bits
        if end > first:
            stored += end - first
            last = end - 1
    entries = geometry.l1_entries(size)
    tables = 1 + -(-entries * 8 // cluster) + entries

    def total(clusters: int) -> int:
        used = tables + (0 if options["data_file"] else clusters)
        table, blocks = refcount_layout(geometry, order, used)
        return (used + table + blocks) * cluster

    everything = -(-size >> cluster_bits)
    full = total(everything)
    if options["preallocation"] in {"falloc", "full"}:
        stored = everything
    return Measure(full - (0 if options["data_file"] else everything - stored) * cluster, full)
