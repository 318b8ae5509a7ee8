"""The `cache` command: what is in the cache of compiled code, clearing it, checking it, filling it."""

from __future__ import annotations

import os
import shutil
import sys
import time
import zlib
from typing import Final, TextIO

from dbt.engine.cache import Store, cache_root, check_private
from dbt.engine.formats import (
    ENDS_DIRECT,
    HANDLERS_MAGIC,
    PACK_MAGIC,
    SUPER_MAGIC,
    TABLES_MAGIC,
    PackHead,
    SuperHead,
    TablesHead,
)
from dbt.engine.image import ImageError, load_image
from dbt.engine.layout import CONDITIONS, FUSED_STENCIL, FUSED_VARIANTS, NO_FLAGS, POLL, POLL_FUSED, VARIANTS
from dbt.wording import counted

GUEST: Final = "aarch64"
HEADS: Final = (
    (".tables", TablesHead, TABLES_MAGIC),
    (".pack", PackHead, PACK_MAGIC),
    (".handlers", PackHead, HANDLERS_MAGIC),
    (".superinstructions", SuperHead, SUPER_MAGIC),
)
CHECKED: Final = (".image", ".tables", ".pack", ".handlers", ".superinstructions")
PAIRED: Final = ("ADD_imm", "ADD_reg", "AND_imm", "AND_reg")  # rows of CMP, CMN, TST and their like, plain operands
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
    out.write(f"size: {_size_text(total)} in {counted(len(builds), 'build')}\n")
    return 0


def clear(out: TextIO) -> int:
    """Remove every build; running programs keep what they have mapped."""
    builds = _builds(cache_root())
    for folder in builds:
        shutil.rmtree(folder)
    out.write(f"removed {counted(len(builds), 'build')}\n")
    return 0


def build(out: TextIO, *, interpreter: bool = False) -> int:
    """Compile everything that programs and machines ordinarily meet, so that nothing is left to compile then.

    `interpreter`: its handlers as well, which then need no memory to be made executable and no compiler.
    """
    from dbt.machine import native

    store = Store()
    start = time.perf_counter()
    native.prepare(store)
    out.write(f"native parts of machines in {time.perf_counter() - start:.1f} s\n")
    for job in ("stencils", "handlers") if interpreter else ("stencils",):
        start = time.perf_counter()
        store.prepare(GUEST, job)
        wanted = every_stencil(GUEST)
        failed = store.compile(GUEST, wanted, job)
        out.write(f"{len(wanted) - len(failed):,} {job} of {GUEST} in {time.perf_counter() - start:.1f} s\n")
        if failed:
            number, why = min(failed.items())
            sys.stderr.write(f"dragoman: {len(failed)} {job} cannot be compiled; number {number}: {why}\n")
    return 0


def every_stencil(guest_name: str) -> list[int]:
    """The numbers (as in EXIT_STENCIL) of all forms, and of the fused pairs that compilers make.

    The variants for wide immediates and other pairs are rare, and are left for when they are met.
    """
    from dbt.frontends.guest import load_guest

    tables = load_guest(guest_name).tables
    numbers = []
    conditions = set()
    for form in tables.forms[1:]:
        facts = tables.metadata(form)
        variants = [0, NO_FLAGS] if facts.flags_written else [0]
        if facts.ends & ENDS_DIRECT:
            variants += [variant | POLL for variant in variants]
        numbers += [form.id * VARIANTS + variant for variant in variants]
        if facts.fuse_second is not None:
            conditions.add(facts.fuse_second)
    for place, form in enumerate(tables.fusable()):
        for condition in conditions if form.group in PAIRED else ():
            pair = (place * CONDITIONS + condition) * FUSED_VARIANTS
            numbers += [FUSED_STENCIL | pair, FUSED_STENCIL | pair | POLL_FUSED]
    return numbers


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


def _problem_of(data: bytes, head: type[TablesHead | PackHead | SuperHead], magic: int, stamp: str) -> str | None:
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
