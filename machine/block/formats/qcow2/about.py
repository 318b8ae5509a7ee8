"""What is known of an open image, for people and for the fuzzer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.block.formats.qcow2 import bitmaps, snapshots
from dbt.machine.block.formats.qcow2.layout import (
    BITMAPS,
    CORRUPT,
    DIRTY,
    EXT_DATA_FILE,
    EXTENDED_L2,
    LAZY_REFCOUNTS,
    HeaderRest,
    HeaderV3,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.structure import Structure


def info(node: Qcow2) -> dict[str, Any]:
    """What `info` shows of the header."""
    found: dict[str, Any] = {
        "compat": "1.1" if node.header.version >= 3 else "0.10", "cluster-size": node.geometry.cluster_size,
        "compression-type": node.compression_type, "lazy-refcounts": bool(node.compatible & LAZY_REFCOUNTS),
        "refcount-bits": 1 << node.refcount_order, "corrupt": bool(node.incompatible & CORRUPT),
        "dirty": bool(node.incompatible & DIRTY), "extended-l2": bool(node.incompatible & EXTENDED_L2),
    }  # fmt: skip
    if node.backing_name:
        found["backing-filename"] = node.backing_name
        if node.backing_format:
            found["backing-format"] = node.backing_format
    if node.external:
        found["data-file"] = node.extension(EXT_DATA_FILE).decode(errors="replace")
        found["data-file-raw"] = node.raw_external
    if node.autoclear & BITMAPS and (listed := bitmaps.describe(node)):
        found["bitmaps"] = listed
    return found


def structures(node: Qcow2) -> Iterator[tuple[str, int, Structure]]:
    """What `info --verbose` shows, and the fuzzer changes."""
    yield "header", 0, node.header
    if len(node.rest) >= HeaderRest.SIZE:
        yield "additional fields", HeaderV3.SIZE, HeaderRest.parse(node.rest, node.name, HeaderV3.SIZE)
    yield from snapshots.structures(node)
    if node.autoclear & BITMAPS:
        yield from bitmaps.structures(node)
