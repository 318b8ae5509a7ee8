"""The ITS's tables in memory (IHI 0069, section 5.3): devices, their interrupt translations, collections.

What an entry looks like is ours; guests give the memory and leave it alone. All entries are of 8 bytes:

    device       bit 0 valid, bits 5:1 how many bits of event IDs - 1, bits 51:8 the address of its translation table
    translation  bit 63 valid, bits 15:0 the interrupt, bits 31:16 the collection
    collection   bit 0 valid, bits 31:16 the CPU's number
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dbt.machine.memory import DmaPort

ENTRY = 8
VALID, INDIRECT = 1 << 63, 1 << 62
PAGES = (0x1000, 0x4000, 0x1_0000, 0x1_0000)  # by GITS_BASER.Page_Size
ADDRESS = 0xF_FFFF_FFFF_F000
PRESENT = 1
ITT = 0xF_FFFF_FFFF_FF00


class CommandError(Exception):
    """A command, or a message, is about what is not there. It does not leave the ITS."""


class Translation(NamedTuple):
    """`place`: the address of the entry."""

    place: int
    interrupt: int
    collection: int


class Tables:
    """The tables that two values of GITS_BASER say where they are."""

    def __init__(self, dma: DmaPort) -> None:
        self.dma = dma
        self.devices = 0
        self.collections = 0

    def _load(self, address: int) -> int:
        return int.from_bytes(self.dma.dma_read(address, ENTRY), "little")

    def store(self, address: int, entry: int) -> None:
        """Write an entry."""
        self.dma.dma_write(address, entry.to_bytes(ENTRY, "little"))

    def _locate(self, baser: int, index: int, what: str) -> int:
        """The address of an entry, through a level above if the table has two."""
        page = PAGES[baser >> 8 & 3]
        size = page * ((baser & 0xFF) + 1)
        base = baser & 0xFFFF_FFFF_F000
        if page == PAGES[2]:  # with 64 KiB pages, bits 15:12 are bits 51:48 of the address
            base = base & 0xFFFF_FFFF_0000 | (base >> 12 & 0xF) << 48
        above, within = divmod(index, page // ENTRY) if baser & INDIRECT else (index, 0)
        if not baser & VALID or (above + 1) * ENTRY > size:
            raise CommandError(f"{what} {index:#x} is beyond the table")
        place = base + above * ENTRY
        if not baser & INDIRECT:
            return place
        below = self._load(place)
        if not below & VALID:
            raise CommandError(f"{what} {index:#x} has no page in the table")
        return (below & ADDRESS & -page) + within * ENTRY

    # Devices

    def device_place(self, device: int) -> int:
        """Where a device's entry is."""
        return self._locate(self.devices, device, "device")

    def map_device(self, device: int, itt: int, bits: int, *, valid: bool) -> None:
        """A device has a translation table of 2 to the power of `bits` entries, or none any more."""
        self.store(self.device_place(device), itt & ITT | bits - 1 << 1 | PRESENT if valid else 0)

    def place(self, device: int, event: int) -> int:
        """Where the translation of an event is."""
        entry = self._load(self.device_place(device))
        if not entry & PRESENT:
            raise CommandError(f"device {device:#x} is not mapped")
        if event >> (entry >> 1 & 0x1F) + 1:
            raise CommandError(f"device {device:#x} has no event {event:#x}")
        return (entry & ITT) + event * ENTRY

    # Translations

    def map_event(self, place: int, interrupt: int, collection: int) -> None:
        """An event is an interrupt of a collection."""
        self.store(place, VALID | collection << 16 | interrupt)

    def translation(self, device: int, event: int) -> Translation:
        """What an event is."""
        place = self.place(device, event)
        entry = self._load(place)
        if not entry & VALID:
            raise CommandError(f"event {event:#x} of device {device:#x} is not mapped")
        return Translation(place, entry & 0xFFFF, entry >> 16 & 0xFFFF)

    # Collections

    def map_collection(self, collection: int, cpu: int, *, valid: bool) -> None:
        """A collection's interrupts go to a CPU, or nowhere any more."""
        self.store(self._locate(self.collections, collection, "collection"), cpu << 16 | PRESENT if valid else 0)

    def cpu(self, collection: int) -> int:
        """The number of the CPU that a collection's interrupts go to."""
        entry = self._load(self._locate(self.collections, collection, "collection"))
        if not entry & PRESENT:
            raise CommandError(f"collection {collection:#x} is not mapped")
        return entry >> 16 & 0xFFFF
