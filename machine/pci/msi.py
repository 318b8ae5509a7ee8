"""MSI and MSI-X (PCI Local Bus 3.0, 6.8): interrupts of a function as messages, masked and pending for each vector."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.memory import MMIO, AccessSizes
from dbt.machine.pci.config import Capability
from dbt.machine.registers import RO, RW, Register

if TYPE_CHECKING:
    from dbt.machine.memory import Attributes
    from dbt.machine.pci.function import PciFunction

MSI_ID, MSIX_ID = 0x05, 0x11
MSI_VECTORS, MSIX_VECTORS = 32, 2048
ENTRY = struct.Struct("<4I")  # address, its high half, data, vector control
SIZES = AccessSizes((4, 8), (4, 4))
CONTROL_FIELDS: dict[str, int | tuple[int, int]] = {
    "ENABLE": 0,
    "CAPABLE": (3, 1),
    "ENABLED": (6, 4),
    "64BIT": 7,
    "MASKABLE": 8,
}


class MsiControl(Capability):
    """MSI: what all forms have (6.8.1)."""

    MESSAGE_CONTROL = Register(2, RW, "message control", size=2, mask=0x0071, fields=CONTROL_FIELDS)
    MESSAGE_ADDRESS = Register(4, RW, "where messages go", mask=0xFFFFFFFC)


class Msi32(MsiControl):
    """32 bits of address."""

    MESSAGE_DATA = Register(8, RW, "what they say", size=2)


class Msi32Masked(Msi32):
    """32 bits of address, with masks."""

    MASK_BITS = Register(12, RW, "vectors that are masked")
    PENDING_BITS = Register(16, RO, "vectors that wait")


class Msi64(MsiControl):
    """64 bits of address."""

    MESSAGE_UPPER_ADDRESS = Register(8, RW, "high half")
    MESSAGE_DATA = Register(12, RW, "what they say", size=2)


class Msi64Masked(Msi64):
    """64 bits of address, with masks."""

    MASK_BITS = Register(16, RW, "vectors that are masked")
    PENDING_BITS = Register(20, RO, "vectors that wait")


FORMS: dict[tuple[bool, bool], tuple[type[MsiControl], int]] = {
    (False, False): (Msi32, 10), (False, True): (Msi32Masked, 20),
    (True, False): (Msi64, 14), (True, True): (Msi64Masked, 24),
}  # fmt: skip


class Msi:
    """The MSI capability of a function."""

    def __init__(self, function: PciFunction, vectors: int, *, wide: bool, masking: bool, at: int = 0) -> None:
        if vectors not in {1, 2, 4, 8, 16, 32}:
            raise MapError(f"{function.name}: MSI has 1, 2, 4, 8, 16 or 32 vectors, not {vectors}")
        self.vectors = vectors
        self.wide, self.masking = wide, masking
        self._function = function
        self._config = function.config
        layout, size = FORMS[wide, masking]
        self._data = (Msi64 if wide else Msi32).MESSAGE_DATA
        self._masks = (Msi64Masked if wide else Msi32Masked).MASK_BITS
        self._pending = (Msi64Masked if wide else Msi32Masked).PENDING_BITS
        self.at = function.add_capability(
            MSI_ID, bytes(size - 2), layout=layout, prefix="MSI_", at=at, on_write=self._written
        )
        control = vectors.bit_length() - 1 << 1 | wide << 7 | masking << 8
        self._config.preset(MsiControl.MESSAGE_CONTROL, control, self.at)
        if masking:
            self._config.preset(self._masks, 0, self.at, mask=(1 << vectors) - 1)

    @property
    def enabled(self) -> bool:
        """Whether messages are sent."""
        return bool(self._config.get(MsiControl.MESSAGE_CONTROL, self.at) & 1)

    @property
    def allocated(self) -> int:
        """How many vectors software gave: not more than there are."""
        wanted = self._config.get(MsiControl.MESSAGE_CONTROL, self.at) >> 4 & 7
        return int(min(1 << wanted, self.vectors))

    def interrupt(self, vector: int) -> None:
        """Send the message of a vector, or keep it while it is masked."""
        vector %= self.allocated
        if self.masking and self._config.get(self._masks, self.at) >> vector & 1:
            pending = self._config.get(self._pending, self.at) | 1 << vector
            self._config.set(self._pending, pending, self.at)
            return
        address = self._config.get(MsiControl.MESSAGE_ADDRESS, self.at)
        if self.wide:
            address |= self._config.get(Msi64.MESSAGE_UPPER_ADDRESS, self.at) << 32
        data = self._config.get(self._data, self.at) & ~(self.allocated - 1) | vector
        self._function.send_message(address, data)

    def _written(self, offset: int, size: int) -> None:
        del offset, size
        if not (self.masking and self.enabled):
            return
        pending = self._config.get(self._pending, self.at)
        ready = pending & ~self._config.get(self._masks, self.at)
        self._config.set(self._pending, pending & ~ready, self.at)
        for vector in range(self.vectors):
            if ready >> vector & 1:
                self.interrupt(vector)


class MsixControl(Capability):
    """MSI-X (6.8.2)."""

    MESSAGE_CONTROL = Register(
        2, RW, "message control", size=2, mask=0xC000, fields={"SIZE": (10, 0), "MASK_ALL": 14, "ENABLE": 15}
    )
    TABLE = Register(4, RO, "offset of the table, and its BAR")
    PBA = Register(8, RO, "offset of the pending bits, and their BAR")


class Msix:
    """The MSI-X capability of a function; it is also the handler of its table."""

    def __init__(
        self, function: PciFunction, vectors: int, *, bar: int, table: int = 0, pba: int | None = None,
        pba_bar: int | None = None, at: int = 0,
    ) -> None:  # fmt: skip
        if not 1 <= vectors <= MSIX_VECTORS:
            raise MapError(f"{function.name}: MSI-X has 1 to {MSIX_VECTORS} vectors, not {vectors}")
        self.vectors = vectors
        self._function = function
        self._config = function.config
        self.table = bytearray(16 * vectors)
        self.pending = bytearray((vectors + 63) // 64 * 8)
        pba_bar = bar if pba_bar is None else pba_bar
        if pba is None:
            pba = max(0x800, -(-(table + len(self.table)) // 0x800) * 0x800)
        self.at = function.add_capability(
            MSIX_ID, bytes(10), layout=MsixControl, prefix="MSIX_", at=at, on_write=self._written
        )
        self._config.preset(MsixControl.MESSAGE_CONTROL, vectors - 1, self.at)
        self._config.preset(MsixControl.TABLE, table | bar, self.at)
        self._config.preset(MsixControl.PBA, pba | pba_bar, self.at)
        self._config.fix(self.at + 4, 8)
        self._region(bar, "msix-table", table, len(self.table), self)
        self._region(pba_bar, "msix-pba", pba, len(self.pending), Pending(self))
        self.reset()

    def _region(self, bar: int, name: str, at: int, size: int, handler: Msix | Pending) -> None:
        base = self._function.base_address(bar)
        if at % 8 or at + size > base.size:
            raise MapError(f"{self._function.name}: the {name} at {at:#x} does not fit into BAR {bar}")
        base.contents.place(MMIO(f"{self._function.name}.{name}", size, handler, SIZES), at, priority=1)

    @property
    def enabled(self) -> bool:
        """Whether messages are sent."""
        return bool(self._config.get(MsixControl.MESSAGE_CONTROL, self.at) & 0x8000)

    @property
    def all_masked(self) -> bool:
        """Function Mask."""
        return bool(self._config.get(MsixControl.MESSAGE_CONTROL, self.at) & 0x4000)

    def reset(self) -> None:
        """All vectors are masked, none waits."""
        self.table[:] = ENTRY.pack(0, 0, 0, 1) * self.vectors
        self.pending[:] = bytes(len(self.pending))

    def masked(self, vector: int) -> bool:
        """Whether messages of a vector wait."""
        return bool(self.table[16 * vector + 12] & 1) or self.all_masked

    def interrupt(self, vector: int) -> None:
        """Send the message of a vector, or keep it while it is masked."""
        if not 0 <= vector < self.vectors:
            self._function.guest_error("an MSI-X vector that is not there", f": {vector:#x}")
        elif self.masked(vector):
            self.pending[vector >> 3] |= 1 << (vector & 7)
        else:
            low, high, data, _ = ENTRY.unpack_from(self.table, 16 * vector)
            self._function.send_message(high << 32 | low, data)

    def _deliver(self, vector: int) -> None:
        if self.pending[vector >> 3] >> (vector & 7) & 1 and self.enabled and not self.masked(vector):
            self.pending[vector >> 3] &= ~(1 << (vector & 7))
            self.interrupt(vector)

    def _written(self, offset: int, size: int) -> None:
        del offset, size
        if self.enabled and not self.all_masked and any(self.pending):
            for vector in range(self.vectors):
                self._deliver(vector)

    # The table, as the bus reads and writes it

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A word of the table."""
        del attributes
        return int.from_bytes(self.table[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A word of the table; a vector that waits goes when it is unmasked."""
        del attributes
        mask = (0xFFFFFFFC, 0xFFFFFFFF, 0xFFFFFFFF, 1)[offset >> 2 & 3]
        self.table[offset : offset + size] = (value & mask).to_bytes(size, "little")
        self._deliver(offset >> 4)

    # Saved states

    def save(self) -> str:
        """Table and pending bits."""
        return (self.table + self.pending).hex()

    def check(self, saved: object) -> bytes:
        """The bytes of a saved state."""
        try:
            data = bytes.fromhex(saved) if isinstance(saved, str) else b""
        except ValueError:
            data = b""
        if len(data) != len(self.table) + len(self.pending):
            raise SnapshotError(f"{self._function.name}: the saved MSI-X table has not {self.vectors} vectors")
        return data

    def restore(self, data: bytes) -> None:
        """Be as when it was saved."""
        self.table[:] = data[: len(self.table)]
        self.pending[:] = data[len(self.table) :]


class Pending:
    """The pending bit array, as the bus reads it."""

    def __init__(self, msix: Msix) -> None:
        self._msix = msix

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A word of pending bits."""
        del attributes
        return int.from_bytes(self._msix.pending[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """Nothing: software shall not write there, and what it writes is undefined."""
