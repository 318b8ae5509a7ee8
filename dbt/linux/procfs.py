"""The guest's view of /proc/self where the host's would show the translator (proc(5))."""

from __future__ import annotations

import os

from . import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process


def content(process: Process, name: bytes) -> bytes | None:
    """What reading a file of /proc/self gives; None if the host's own file will do."""
    parts = paths.own_parts(process, name)
    if parts is None or len(parts) != 1:
        return None
    if parts[0] == b"maps":
        return _maps(process)
    if parts[0] == b"cmdline":
        return b"".join(argument + b"\0" for argument in process.argv)
    if parts[0] == b"environ":
        return b"".join(variable + b"\0" for variable in process.environment)
    if parts[0] == b"auxv":
        return process.auxv
    return None


def link(process: Process, name: bytes) -> bytes | None:
    """Where a symbolic link of /proc/self leads for the guest; None: ask the host."""
    if paths.own_parts(process, name) == [b"exe"] and process.exe:
        return os.fsencode(process.exe)
    return None


def _maps(process: Process) -> bytes:
    """The lines of /proc/self/maps."""
    files: dict[str, tuple[int, int, int]] = {}
    lines = []
    for area in process.memory.areas:
        device, inode = (0, 0), 0
        if area.name[:1] == "/":
            if area.name not in files:
                try:
                    found = os.stat(area.name)
                    files[area.name] = (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
                except OSError:
                    files[area.name] = (0, 0, 0)
            *_, inode = files[area.name]
            device = files[area.name][:2]
        prot = area.prot
        rights = "".join(letter if prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        rights += "s" if area.shared else "p"
        line = f"{area.start:08x}-{area.end:08x} {rights} {area.offset if inode else 0:08x}"
        line += f" {device[0]:02x}:{device[1]:02x} {inode} "
        lines.append(f"{line:<73}{area.name}".rstrip(" ") + " " * (not area.name))
    return os.fsencode("".join(line + "\n" for line in lines))
