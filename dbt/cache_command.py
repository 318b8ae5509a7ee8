"""The `cache` command: what is in the cache of compiled code, clearing it, checking it, filling it."""

from __future__ import annotations

import os
import shutil
import sys
import time
import zlib
from typing import Final, TextIO

from dbt.engine.cache import Store, cache_root, check_private
from dbt.engine.image import ImageError, load_image
from dbt.engine.layout import PACK_MAGIC, TABLES_MAGIC, PackHead, TablesHead

HEADS: Final = ((".tables", TablesHead, TABLES_MAGIC), (".pack", PackHead, PACK_MAGIC))
CHECKED: Final = (".image", ".tables", ".pack")
UNITS: Final = ("bytes", "KiB", "MiB", "GiB")


def _size_text(size: float) -> str:
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{size:.0f} {UNITS[0]}"


def _builds(root: str) -> list[str]:
    """The folders of all builds in the cache, none if there is no cache yet. Raises CacheUnusable."""
    if not os.path.lexists(root):
        return []
    check_private(root)
    return sorted(entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))


def _files(folder: str) -> list[os.DirEntry[str]]:
    return sorted((entry for entry in os.scandir(folder) if entry.is_file()), key=lambda entry: entry.name)


def info(out: TextIO) -> int:
    """Where the cache is, and what is in it."""
    root = cache_root()
    builds = _builds(root)
    out.write(f"folder: {root}\n")
    current = Store(quiet=True).folder if builds else ""
    total = 0
    for folder in builds:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.stat(folder).st_mtime))
        mark = ", this build" if folder == current else ""
        out.write(f"build {os.path.basename(folder)} (changed {used}{mark})\n")
        for entry in _files(folder):
            size = entry.stat().st_size
            total += size
            out.write(f"  {entry.name:24} {_size_text(size):>12}\n")
    out.write(f"size: {_size_text(total)} in {len(builds)} builds\n")
    return 0


def clear(out: TextIO) -> int:
    """Remove every build; running programs keep what they have mapped."""
    builds = _builds(cache_root())
    for folder in builds:
        shutil.rmtree(folder)
    out.write(f"removed {len(builds)} builds\n")
    return 0


def build(out: TextIO) -> int:
    """Compile everything that this build has."""
    start = time.perf_counter()
    Store().build(["image", "tables aarch64", "all aarch64"])
    out.write(f"everything is compiled ({time.perf_counter() - start:.1f} s)\n")
    return 0


def problem(path: str, stamp: str) -> str | None:
    """What is wrong with a CHECKED file of the cache, None if nothing is."""
    if path.endswith(".image"):
        try:
            load_image(path, stamp)
        except ImageError as error:
            return str(error)
        return None
    for suffix, head, magic in HEADS:
        if path.endswith(suffix):
            with open(path, "rb") as file:
                return _problem_of(file.read(), head, magic, stamp)
    return None


def _problem_of(data: bytes, head: type[TablesHead | PackHead], magic: int, stamp: str) -> str | None:
    def word(name: str, size: int) -> int:
        at = head.offset(name)
        return int.from_bytes(data[at : at + size], "little")

    if word("magic", 8) != magic:
        return "not a file of this kind"
    if word("size", 8) != len(data):
        return f"{len(data)} bytes, but {word('size', 8)} when it was written"
    if word("checksum", 8) != zlib.crc32(memoryview(data)[head.size :]):
        return "damaged: the checksum differs"
    start = word("stamp", 4)
    if data[start : start + word("stamp_size", 4)] != stamp.encode():
        return "belongs to another build"
    return None


def verify(out: TextIO) -> int:
    """Check every file of this build; 1 if one is damaged."""
    builds = _builds(cache_root())
    damaged = 0
    if builds:
        store = Store(quiet=True)
        for entry in _files(store.folder):
            if not entry.name.endswith(CHECKED):
                continue
            trouble = problem(entry.path, store.stamp)
            damaged += trouble is not None
            out.write(f"{entry.name}: {trouble or 'good'}\n")
    if damaged:
        sys.stderr.write("dragoman: `dragoman cache clear` removes the cache; it is made anew when it is needed\n")
    return int(bool(damaged))
