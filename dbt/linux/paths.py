"""File names: -L ROOT in front of absolute ones, and the guest's own program for /proc/self/exe."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_LINKS = 40  # as many symbolic links in a row as the kernel follows


def translate(process: Process, name: bytes, *, follow: bool = True, create: bool = False) -> bytes:
    """The host's name for a guest's. Absolute names are looked up below ROOT first; relative ones are the host's.

    With `create` a name that is nowhere goes below ROOT if its folder is there and the host has no such folder.
    """
    if name[:1] != b"/":
        return name
    if name[:6] == b"/proc/":
        parts = own_parts(process, name)
        if parts == [b"exe"] and follow and process.exe:
            return os.fsencode(process.exe)
    if not process.root:
        return name
    below = _follow(process, name) if follow else process.root + name
    if os.path.lexists(below):
        return below
    folder = os.path.dirname(name)
    if create and not os.path.isdir(folder) and os.path.isdir(process.root + folder):
        return below
    return name


def _follow(process: Process, name: bytes) -> bytes:
    """A name below ROOT whose last part is no symbolic link to an absolute name: those count from ROOT, too."""
    below = process.root + name
    for _ in range(_LINKS):
        try:
            target = os.readlink(below)
        except OSError:
            return below
        if target[:1] != b"/":
            target = os.path.join(os.path.dirname(below), target)
            below = target
        elif os.path.lexists(process.root + target):
            below = process.root + target
        else:
            return target
    return below


def own_parts(process: Process, name: bytes) -> list[bytes] | None:
    """What follows /proc/self (or thread-self, or our own process number) in a name; None for other names."""
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if len(parts) < 2 or parts[0] != b"proc":
        return None
    if parts[1] in {b"self", b"thread-self"} or parts[1] == b"%d" % process.call(39):
        return parts[2:]
    return None


def is_descriptor_listing(name: bytes) -> bool:
    """Whether a name is that of a folder of descriptors in /proc."""
    parts = [part for part in name.split(b"/") if part]
    return len(parts) >= 3 and parts[-1] in {b"fd", b"fdinfo"}
