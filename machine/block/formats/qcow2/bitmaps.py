"""Bitmaps (sections "Bitmaps extension" and "Bitmaps"): kept as they are, counted by check, shown by info.

Writes are not recorded in them. So an image with a bitmap that wants them recorded (auto) is not opened for writing;
one that is switched off stays valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.machine.block.errors import ImageCorrupt, ImageUnsupported
from dbt.machine.block.formats.qcow2.layout import BITMAPS, EXT_BITMAPS, OFFSET, BitmapEntry, BitmapsExtension
from dbt.machine.block.formats.qcow2.tables import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.block.formats.qcow2 import Qcow2
    from dbt.machine.block.structure import Structure

IN_USE, AUTO = 1, 2


def entries(node: Qcow2) -> list[tuple[int, BitmapEntry, str]]:
    """(offset, entry, name) of the directory."""
    data = node.extension(EXT_BITMAPS)
    if not data or not node.autoclear & BITMAPS:
        return []
    head = BitmapsExtension.parse(data, node.name)
    at, size = head.bitmap_directory_offset, head.bitmap_directory_size
    if at & node.geometry.cluster_size - 1:
        raise ImageCorrupt(node.name, f"the bitmap directory is at {at:#x}: not aligned")
    directory = bytes(node.file.pread(at, size))
    found: list[tuple[int, BitmapEntry, str]] = []
    start = 0
    for _ in range(head.nb_bitmaps):
        entry = BitmapEntry.parse(directory, node.name, at + start, start=start)
        name_at = start + BitmapEntry.SIZE + entry.extra_data_size
        name = directory[name_at : name_at + entry.name_size].decode(errors="replace")
        found.append((at + start, entry, name))
        start = name_at + entry.name_size + 7 & -8
    return found


def refuse_recording(node: Qcow2) -> None:
    """ImageUnsupported if a bitmap wants writes recorded."""
    for at, entry, name in entries(node):
        if entry.flags & AUTO and not entry.flags & IN_USE:
            what = f"bitmap {name!r} records writes, which is not implemented"
            hint = "open it for reading, or disable the bitmap (qemu-img bitmap --disable)"
            raise ImageUnsupported(node.name, what, offset=at, hint=hint)


def refuse_any(node: Qcow2, what: str) -> None:
    """ImageUnsupported if there are bitmaps."""
    if entries(node):
        raise ImageUnsupported(node.name, f"an image with bitmaps cannot {what}")


def describe(node: Qcow2) -> list[dict[str, Any]]:
    """The list for info."""
    flags = {IN_USE: "in-use", AUTO: "auto"}
    return [
        {"name": name, "granularity": 1 << entry.granularity_bits,
         "flags": [word for bit, word in flags.items() if entry.flags & bit]}
        for _, entry, name in entries(node)
    ]  # fmt: skip


def structures(node: Qcow2) -> Iterator[tuple[str, int, Structure]]:
    """The entries for `info --verbose`."""
    for at, entry, name in entries(node):
        yield f"bitmap {name}", at, entry


def clusters(node: Qcow2) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of everything that bitmaps refer to."""
    found = entries(node)
    if not found:
        return
    head = BitmapsExtension.parse(node.extension(EXT_BITMAPS), node.name)
    yield head.bitmap_directory_offset, head.bitmap_directory_size
    for _, entry, _name in found:
        yield entry.bitmap_table_offset, entry.bitmap_table_size * 8
        for word in load(node.file, entry.bitmap_table_offset, entry.bitmap_table_size * 8):
            if word & OFFSET:
                yield word & OFFSET, node.geometry.cluster_size
