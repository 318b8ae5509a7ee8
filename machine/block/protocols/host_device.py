"""Block devices of the host: a file whose size does not change, with ioctls for discards and zeroes.

The size is the kernel's (BLKGETSIZE64), blocks are its logical ones (BLKSSZGET), which is what O_DIRECT needs. A
regular file does as well: then what only devices have falls back to what files have, and the tests need no device.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from dbt.machine.block import host
from dbt.machine.block.errors import HostError, ImageUnsupported, RequestRefused
from dbt.machine.block.node import Extent, Node
from dbt.machine.block.protocols.file import File
from dbt.machine.block.request import MAY_UNMAP, NO_FALLBACK

if TYPE_CHECKING:
    from dbt.machine.block.request import Vectors


class HostDevice(File):
    """One open device. It can be made neither, nor larger: `create` is for what is there and large enough."""

    driver = "host-device"
    OPTIONS = File.OPTIONS
    CREATE_OPTIONS = ()
    NEW_IS_ZERO = False

    def _settle(self) -> None:
        found = os.fstat(self.fd)
        self.device = host.is_block_device(self.fd)
        if self.device:
            self.size = host.device_size(self.fd)
            self._block = host.sector_size(self.fd) if self._direct else 1
            self.identity = ("device", found.st_rdev)
        else:
            super()._settle()
        self.alignment = self._block

    def write(self, offset: int, length: int, vectors: Vectors, flags: int = 0) -> None:
        self._inside(offset, length)
        super().write(offset, length, vectors, flags)

    def _inside(self, offset: int, length: int) -> None:
        if offset + length > self.size:
            raise HostError(self.name, OSError(errno.ENOSPC, ""), doing="write behind the device's end", offset=offset)

    def _range(self, request: int, offset: int, length: int) -> bool:
        """Whether the device did `request` on the range, which has to be of whole sectors."""
        if not self.device or request in self._fails or (offset | length) % host.sector_size(self.fd):
            return False
        try:
            host.device_range(self.fd, request, offset, length)
        except OSError as error:
            if error.errno not in host.UNSUPPORTED:
                raise HostError(self.name, error, doing="ioctl", offset=offset) from None
            self._fails.add(request)
            return False
        return True

    def discard(self, offset: int, length: int) -> None:
        length = min(length, self.size - offset)
        if length > 0 and not self._range(host.BLKDISCARD, offset, length) and not self.device:
            super().discard(offset, length)

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        self._inside(offset, length)
        if not self.device:
            super().write_zeroes(offset, length, flags)
            return
        mode = (host.PUNCH_HOLE if flags & MAY_UNMAP else host.ZERO_RANGE) | host.KEEP_SIZE
        if length <= 0 or self._fallocate(mode, offset, length) or self._range(host.BLKZEROOUT, offset, length):
            return
        if flags & NO_FALLBACK:
            raise ImageUnsupported(self.name, "the device cannot zero a range", offset=offset)
        Node.write_zeroes(self, offset, length, flags)

    def status(self, offset: int, length: int) -> Extent:
        if self.device:
            return Extent(length, data=True, zero=False, offset=offset)
        return super().status(offset, length)

    def resize(self, size: int, *, preallocation: str = "off") -> None:
        """A device keeps its size. What fits is taken as it is."""
        if self.device and (size > self.size or preallocation != "off"):
            raise RequestRefused(self.name, f"the device has {self.size} bytes, not {size}")
        if not self.device:
            super().resize(size, preallocation=preallocation)

    def allocated_size(self) -> int | None:
        return None if self.device else super().allocated_size()

    @classmethod
    def create(cls, options: dict[str, Any], size: int, name: str) -> None:
        """Nothing to make: it is there, and large enough."""
        try:
            fd = os.open(options["filename"], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(name, error, doing="cannot be opened") from None
        try:
            have = host.device_size(fd) if host.is_block_device(fd) else os.fstat(fd).st_size
        finally:
            os.close(fd)
        if have < size:
            raise RequestRefused(name, f"has {have} bytes, {size} are needed")


DRIVER = HostDevice
