"""What can go wrong with a disk image: every error names the file, the offset in it where one is known, and the reason.

    UserError (dbt/errors.py)
    └── BlockError               `file`, `offset`, `reason`, `hint`, and an `errno` for whoever has to answer a guest
        ├── BadOption            an option that is not known, or has no such value
        ├── ImageCorrupt         the image contradicts itself or its specification
        ├── ImageUnsupported     a feature of the image that we do not do, by its name in the specification
        ├── ImageLocked          somebody else uses the file
        ├── AccessRefused        a name inside an image points out of its folder
        ├── RequestRefused       beyond the end, or a write to what was opened for reading
        └── HostError            the host said no: an OSError with the file and offset

Nodes turn every OSError into a HostError; nothing else of the host's comes out of the graph.
"""

from __future__ import annotations

import errno as codes
import os

from dbt.errors import UserError


class BlockError(UserError):
    """The root of what the block layer raises on purpose."""

    errno = codes.EIO

    def __init__(self, file: str, reason: str, *, offset: int | None = None, hint: str = "") -> None:
        super().__init__(f"{file}: {reason}" if offset is None else f"{file}: at offset {offset:#x}: {reason}", hint)
        self.file = file
        self.offset = offset
        self.reason = reason


class BadOption(BlockError):
    """An option of a driver is unknown, missing, or has a value that it cannot have."""

    errno = codes.EINVAL


class ImageCorrupt(BlockError):
    """The image's own words contradict each other, the file's length, or the specification."""


class ImageUnsupported(BlockError):
    """The image uses a feature that is known by name and not implemented, or not known at all."""

    errno = codes.ENOTSUP


class ImageLocked(BlockError):
    """The file is in use by somebody with whom we cannot share it."""

    errno = codes.EBUSY


class AccessRefused(BlockError):
    """A name found inside an image is not opened, because nobody allowed it."""

    errno = codes.EACCES


class RequestRefused(BlockError):
    """A request that the node cannot take: beyond its end, or a write while it is open for reading."""

    errno = codes.EINVAL


class HostError(BlockError):
    """The host refused: `errno` is what it said."""

    def __init__(self, file: str, error: OSError, *, doing: str = "", offset: int | None = None) -> None:
        number = max(error.errno or 0, 0)  # names of hosts have errors below 0
        reason = os.strerror(number) if number else error.strerror or str(error)
        super().__init__(file, f"{doing}: {reason}" if doing else reason, offset=offset)
        self.errno = number or codes.EIO
