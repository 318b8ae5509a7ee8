"""The header of an image that is opened, its extensions, and which of its features are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported
from dbt.machine.block.formats.qcow2.layout import (
    COMPRESSION,
    COMPRESSION_TYPES,
    CORRUPT,
    CRYPT_METHODS,
    DATA_FILE,
    EXT_BACKING_FORMAT,
    EXT_CRYPTO,
    EXT_DATA_FILE,
    EXT_FEATURES,
    EXTENDED_L2,
    INCOMPATIBLE,
    MAX_REFCOUNT_TABLE,
    FeatureName,
    HeaderRest,
    HeaderV2,
    HeaderV3,
    parse_extensions,
)  # fmt: skip

if TYPE_CHECKING:
    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.graph import Opening


def read(node: Qcow2) -> None:
    """Set `header` and what follows from it: features, extensions, the backing file's name."""
    head = bytes(node.file.pread(0, min(node.file.size, 1 << 16)))
    node.header = HeaderV2.parse(head, node.name)
    node.incompatible = node.compatible = node.autoclear = 0
    node.refcount_order = 4
    node.compression_type = "zlib"
    length = HeaderV2.SIZE
    node.rest = b""
    if node.header.version >= 3:
        header = node.header = HeaderV3.parse(head, node.name)
        node.incompatible, node.compatible = header.incompatible_features, header.compatible_features
        node.autoclear, node.refcount_order = header.autoclear_features, header.refcount_order
        length = header.header_length
        if length % 8 or length > 1 << header.cluster_bits:
            at = 100
            raise ImageCorrupt(node.name, f"HeaderV3.header_length is {length}", offset=at)
        if length > HeaderV3.SIZE:
            kind = HeaderRest.parse(head.ljust(112, b"\0"), node.name, 104, start=104).compression_type
            if kind >= len(COMPRESSION_TYPES):
                raise ImageUnsupported(node.name, f"compression type {kind} is not known", offset=104)
            node.compression_type = COMPRESSION_TYPES[kind]
            if bool(kind) != bool(node.incompatible & COMPRESSION):
                what = f"compression type {node.compression_type} contradicts its incompatible bit"
                raise ImageCorrupt(node.name, what, offset=104)
        elif node.incompatible & COMPRESSION:
            raise ImageCorrupt(node.name, "the compression type bit is set, and the header too short", offset=72)
        node.rest = head[HeaderV3.SIZE : length]
    size = 1 << node.header.cluster_bits
    name_at, name_size = node.header.backing_file_offset, node.header.backing_file_size
    end = min(size, len(head))
    if name_at:
        if name_at + name_size > size:
            raise ImageCorrupt(node.name, "the backing file's name lies outside of the first cluster", offset=8)
        end = min(end, name_at) if name_at >= length else end
    name = head[name_at : name_at + name_size] if name_at else b""
    node.backing_name = name.decode(errors="surrogateescape")
    node.extensions = parse_extensions(head, length, max(end, length), node.name)
    node.backing_format = node.extension(EXT_BACKING_FORMAT).decode(errors="replace")


def check_features(node: Qcow2, opening: Opening) -> None:
    """Refuse, by name, what is not implemented."""
    header = node.header
    if header.crypt_method or node.extension(EXT_CRYPTO):
        method = CRYPT_METHODS.get(header.crypt_method, "unknown")
        raise ImageUnsupported(node.name, f"encrypted with {method}: encryption is not implemented", offset=32)
    unknown = node.incompatible & ~sum(1 << bit for bit in INCOMPATIBLE)
    if unknown:
        names = ", ".join(_feature_name(node, bit) for bit in range(64) if unknown >> bit & 1)
        raise ImageUnsupported(node.name, f"incompatible features that are not known: {names}", offset=72)
    if node.incompatible & CORRUPT and node.writable and not opening.repair:
        raise ImageCorrupt(node.name, "is marked corrupt: repair it, or open it for reading", offset=72)
    if node.incompatible & EXTENDED_L2 and header.cluster_bits < 14:
        raise ImageCorrupt(node.name, "extended L2 entries need clusters of 16 KiB or more", offset=20)
    if node.incompatible & DATA_FILE and not node.extension(EXT_DATA_FILE) and not opening.has("data-file"):
        raise ImageCorrupt(node.name, "has an external data file and does not name it", offset=72)


def _feature_name(node: Qcow2, bit: int) -> str:
    table = node.extension(EXT_FEATURES)
    for at in range(0, len(table) - FeatureName.SIZE + 1, FeatureName.SIZE):
        row = FeatureName.parse(table, node.name, start=at)
        if (row.type, row.bit) == (0, bit):
            return f"{row.name.rstrip(bytes(1)).decode(errors='replace')!r} (bit {bit})"
    return f"bit {bit}"


def check_tables(node: Qcow2) -> None:
    """Tables that the header names: aligned, of a size that can be, and not on top of each other."""
    header, size = node.header, node.geometry.cluster_size
    if header.l1_size < node.geometry.l1_entries(header.size):
        what = f"the L1 table has {header.l1_size} entries, {node.geometry.l1_entries(header.size)} are needed"
        raise ImageCorrupt(node.name, what, offset=36)
    clusters = header.refcount_table_clusters
    if not clusters or clusters * size > MAX_REFCOUNT_TABLE:
        raise ImageCorrupt(node.name, f"the refcount table has {clusters} clusters", offset=56)
    tables = [
        ("header", 0, size, 0),
        ("L1 table", header.l1_table_offset, header.l1_size * 8, 40),
        ("refcount table", header.refcount_table_offset, clusters * size, 48),
    ]
    if header.nb_snapshots:
        tables.append(("snapshot table", header.snapshots_offset, 1, 64))
    for k, (name, offset, length, at) in enumerate(tables):
        if offset & size - 1 or offset >= 1 << 56:
            raise ImageCorrupt(node.name, f"the {name} is at {offset:#x}: not aligned", offset=at)
        for other, start, count, _ in tables[:k]:
            if offset < start + count and start < offset + length:
                raise ImageCorrupt(node.name, f"the {name} and the {other} overlap", offset=at)
