"""What can go wrong in a machine, by who did it: see dbt/errors.py for the four kinds.

    UserError
    ├── MapError         regions that cannot be put together so: the board's author has to change it
    └── SnapshotError    a saved state that is not this device's, or not of this version, or damaged
        └── RestoreFailed    the host failed in the middle of a restore; also what a machine says that is broken by that
    GuestError
    ├── BusError         an access that the bus answers with an error: an external abort, a machine check
    ├── DmaError         a device was told to reach what is no memory; the device reports it as its data sheet says
    └── RingError        a queue in guest memory that breaks its rules; the device stops and says so

No guest's error leaves the device layer: AddressSpace.perform makes a result of a BusError, devices catch a DmaError.
"""

from __future__ import annotations

from dbt.errors import GuestError, UserError


class MapError(UserError):
    """Regions that cannot be put together in the way that was asked for."""


class SnapshotError(UserError):
    """A saved state that cannot be restored; nothing has been changed."""


class RestoreFailed(SnapshotError):
    """Something of the host failed in the middle of a restore: it says whether the old state is back."""


class BusError(GuestError):
    """An access that the bus answers with an error: `reason` says why, for the log."""

    def __init__(self, address: int, size: int, *, write: bool, reason: str) -> None:
        super().__init__(address, size, write, reason)
        self.address = address
        self.size = size
        self.write = write
        self.reason = reason

    def __str__(self) -> str:
        return f"{'write' if self.write else 'read'} of {self.size} bytes at {self.address:#x}: {self.reason}"


class DmaError(GuestError):
    """A transfer of a device that the map does not allow; `address` is the first byte that cannot be reached."""

    def __init__(self, device: str, address: int, reason: str) -> None:
        super().__init__(device, address, reason)
        self.device = device
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.device}: DMA at {self.address:#x}: {self.reason}"


class RingError(GuestError):
    """A virtqueue whose driver has broken the specification's rules."""
