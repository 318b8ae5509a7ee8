"""Writing files of the cache: whole or not at all, for their owner only."""

from __future__ import annotations

import os
from contextlib import suppress


def write_aside(path: str, data: bytes, *, durable: bool = True) -> None:
    """Replace a file atomically: a reader sees the old one or the new one, whole.

    `durable`: it is on the disk when this returns. Files whose checksum would tell what a crash of the host has done
    to them, and that can be built again, need not be.
    """
    aside = f"{path}.{os.getpid()}.new"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
