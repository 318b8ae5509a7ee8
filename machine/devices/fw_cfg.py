"""QEMU's firmware configuration device (docs/specs/fw_cfg in QEMU): items that firmware reads, by key or by file name.

Two faces of one device: memory-mapped, as Arm boards have it (REGISTERS), and the PC's ports (IO and IO_DMA). Items are
bytes; the directory of files is made from their names. Writing items is not there: such transfers end in an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.errors import DmaError, MapError
from dbt.machine.memory import AccessSizes, DmaPort
from dbt.machine.registers import RO, RW, WO, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

SIGNATURE_KEY, ID_KEY, DIRECTORY_KEY, FIRST_FILE = 0x0000, 0x0001, 0x0019, 0x0020
FILES, NAME_BYTES = 256, 56
TRADITIONAL, DMA = 1, 2
ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DMA_SIGNATURE = b"QEMU CFG"


def _swapped(value: int, size: int) -> int:
    return int.from_bytes(value.to_bytes(size, "little"), "big")


class FwCfg(Device):
    """QEMU's firmware configuration device (fw_cfg), by memory and by ports, with DMA."""

    REGISTERS_WINDOW = Window(0x18, AccessSizes((1, 8)))
    IO = Window(2, AccessSizes((1, 2), (1, 2)))
    IO_DMA = Window(8, AccessSizes((4, 8)))
    DATA = View(0x00, RO, "the next bytes of the item", count=8, size=1)
    SELECTOR = View(0x08, WO, "key of the item, big-endian", size=2)
    ADDRESS_HIGH = View(0x10, RW, "high half of the DMA address, big-endian")
    ADDRESS_LOW = View(0x14, RW, "low half; writing starts the transfer")
    IO_SELECTOR = View(0, WO, "key of the item", size=2, window=IO)
    IO_DATA = View(1, RO, "the next byte of the item", size=1, window=IO)
    IO_ADDRESS_HIGH = View(0, RW, "high half of the DMA address, big-endian", window=IO_DMA)
    IO_ADDRESS_LOW = View(4, RW, "low half; writing starts the transfer", window=IO_DMA)

    key = State(bits=16)
    position = State(bits=64)
    high = State(bits=32)

    def __init__(self, name: str, machine: Machine, dma: DmaPort | None = None) -> None:
        super().__init__(name, machine)
        self.dma = dma or DmaPort(name, machine.memory)
        self.items: dict[int, bytes] = {
            SIGNATURE_KEY: b"QEMU",
            ID_KEY: (TRADITIONAL | DMA).to_bytes(4, "little"),
            DIRECTORY_KEY: bytes(4),
        }
        self.files: dict[str, int] = {}

    def add(self, key: int, data: bytes) -> None:
        """An item under a key below those of files."""
        if not ID_KEY < key < DIRECTORY_KEY:
            raise MapError(f"{self.name}: key {key:#x} is not one of 0x2 to 0x18")
        self.items[key] = data

    def add_file(self, name: str, data: bytes) -> None:
        """An item under a name, as `opt/org.example/thing`; a name that is there gets the new content."""
        raw = name.encode("ascii", "strict")
        if not 0 < len(raw) < NAME_BYTES:
            raise MapError(f"{self.name}: a file's name has 1 to {NAME_BYTES - 1} characters: {name!r}")
        if name not in self.files and len(self.files) == FILES:
            raise MapError(f"{self.name}: there is no room for {name}: {FILES} files are the limit")
        key = self.files.setdefault(name, FIRST_FILE + len(self.files))
        self.items[key] = data
        entries = [
            len(self.items[number]).to_bytes(4, "big") + number.to_bytes(2, "big") + bytes(2)
            + path.encode().ljust(NAME_BYTES, b"\0")
            for path, number in sorted(self.files.items())
        ]  # fmt: skip
        self.items[DIRECTORY_KEY] = len(entries).to_bytes(4, "big") + b"".join(entries)

    def _take(self, count: int) -> bytes:
        """The next bytes, fewer at the item's end, behind which are zeroes."""
        item = self.items.get(self.key, b"")
        data = item[self.position : self.position + count]
        self.position = min(self.position + count, (1 << 64) - 1)
        return data

    def _select(self, key: int) -> None:
        self.key, self.position = key, 0
        if key not in self.items:
            self.guest_error(f"there is no item {key:#x}")

    @DATA.on_read
    def _data(self, index: int) -> int:
        del index  # wide reads are this, byte by byte, in the order of addresses
        return int.from_bytes(self._take(1), "little")

    @IO_DATA.on_read
    def _io_data(self) -> int:
        return int.from_bytes(self._take(1), "little")

    @SELECTOR.on_write
    def _select_swapped(self, value: int) -> None:
        self._select(_swapped(value, 2))

    @IO_SELECTOR.on_write
    def _select_io(self, value: int) -> None:
        self._select(value)

    # DMA

    @ADDRESS_HIGH.on_read
    @IO_ADDRESS_HIGH.on_read
    def _signature_high(self) -> int:
        return int.from_bytes(DMA_SIGNATURE[:4], "little")

    @ADDRESS_LOW.on_read
    @IO_ADDRESS_LOW.on_read
    def _signature_low(self) -> int:
        return int.from_bytes(DMA_SIGNATURE[4:], "little")

    @ADDRESS_HIGH.on_write
    @IO_ADDRESS_HIGH.on_write
    def _set_high(self, value: int) -> None:
        self.high = _swapped(value, 4)

    @ADDRESS_LOW.on_write
    @IO_ADDRESS_LOW.on_write
    def _start(self, value: int) -> None:
        address, self.high = self.high << 32 | _swapped(value, 4), 0
        try:
            descriptor = self.dma.dma_read(address, 16)
        except DmaError:
            return  # there is nowhere to say so, but the log
        control = int.from_bytes(descriptor[:4], "big")
        length, target = int.from_bytes(descriptor[4:8], "big"), int.from_bytes(descriptor[8:], "big")
        try:
            self._transfer(control, length, target)
            result = 0
        except DmaError:
            result = ERROR
        try:
            self.dma.dma_write(address, result.to_bytes(4, "big"))
        except DmaError:
            return

    def _transfer(self, control: int, length: int, target: int) -> None:
        if control & SELECT:
            self._select(control >> 16)
        if control & READ:
            for memory, at, count in self.dma.pieces(target, length, writable=True):
                data = self._take(count)
                memory.view[at : at + len(data)] = data
                memory.written(at, len(data))
                if len(data) < count:  # what is behind the item's end costs no time
                    memory.clear(at + len(data), count - len(data))
        elif control & WRITE:
            self.unimplemented("an item is written")
            raise DmaError(self.name, target, "items are not written")
        elif control & SKIP:
            self._take(0)
            self.position = min(self.position + length, (1 << 64) - 1)
