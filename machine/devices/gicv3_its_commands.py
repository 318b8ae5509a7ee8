"""The ITS's commands (IHI 0069, section 5.3.2): four words of 64 bits each, what they do to tables and pending LPIs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.devices.gicv3_its_tables import CommandError, Tables
from dbt.machine.devices.gicv3_lpi import ID_BITS, LPIS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.devices.gicv3 import GICv3
    from dbt.machine.devices.gicv3_redistributor import GICv3Redistributor
    from dbt.machine.memory import DmaPort

Words = tuple[int, int, int, int]
DEVICE_BITS = EVENT_BITS = COLLECTION_BITS = 16
VALID = 1 << 63
KNOWN_BUT_VIRTUAL = frozenset({0x21, 0x22, 0x23, 0x25, 0x29, 0x2A, 0x2B, 0x2D, 0x2E})  # GICv4's


class Commands:
    """What a command does. `run` raises CommandError, and DmaError if a table is not in memory."""

    def __init__(self, gic: GICv3, dma: DmaPort) -> None:
        self.gic = gic
        self.tables = Tables(dma)
        self._known: dict[tuple[int, int], tuple[int, int]] = {}  # (device, event): CPU and interrupt, as looked up
        self._table: dict[int, Callable[[Words], None]] = {
            0x01: self._movi,
            0x03: self._int,
            0x04: self._clear,
            0x05: self._sync,
            0x08: self._mapd,
            0x09: self._mapc,
            0x0A: self._mapti,
            0x0B: self._mapi,
            0x0C: self._inv,
            0x0D: self._invall,
            0x0E: self._movall,
            0x0F: self._discard,
        }

    def forget(self) -> None:
        """What was looked up may have changed."""
        self._known.clear()

    def run(self, words: Words) -> None:
        """Do what one command says."""
        opcode = words[0] & 0xFF
        command = self._table.get(opcode)
        if command is None:
            virtual = ", which is for virtual interrupts" if opcode in KNOWN_BUT_VIRTUAL else ""
            raise CommandError(f"there is no command {opcode:#04x}{virtual}")
        command(words)

    def waits(self, words: Words) -> bool:
        """Whether a SYNC has to wait for a redistributor that is still reading configurations."""
        cpu = words[2] >> 16 & 0xFFFF
        redistributors = self.gic.redistributors
        return words[0] & 0xFF == 0x05 and cpu < len(redistributors) and bool(redistributors[cpu].lpis.unread)

    # Events that come

    def deliver(self, device: int, event: int) -> None:
        """A message: an event of a device."""
        known = self._known.get((device, event))
        if known is None:
            if device >> DEVICE_BITS:
                raise CommandError(f"device {device:#x} is beyond the table")
            translation = self.tables.translation(device, event)
            known = self._redistributor_of(translation.collection).number, translation.interrupt
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[device, event] = known
        redistributor = self.gic.redistributors[known[0]]
        redistributor.lpis.set(known[1])
        redistributor.lpis_changed()

    # What commands name

    def _redistributor(self, number: int) -> GICv3Redistributor:
        if number >= len(self.gic.redistributors):
            raise CommandError(f"there is no redistributor {number}")
        return self.gic.redistributors[number]

    def _redistributor_of(self, collection: int) -> GICv3Redistributor:
        return self._redistributor(self.tables.cpu(collection))

    @staticmethod
    def _device(words: Words) -> int:
        device = words[0] >> 32
        if device >> DEVICE_BITS:
            raise CommandError(f"device {device:#x} is beyond the table")
        return device

    @staticmethod
    def _event(words: Words) -> int:
        return words[1] & 0xFFFF_FFFF

    @staticmethod
    def _collection(words: Words) -> int:
        return words[2] & 0xFFFF

    # The commands

    def _mapd(self, words: Words) -> None:
        bits, valid = (words[1] & 0x1F) + 1, bool(words[2] & VALID)
        if valid and bits > EVENT_BITS:
            raise CommandError(f"MAPD: {bits} bits of event IDs")
        self.tables.map_device(self._device(words), words[2], bits, valid=valid)
        self.forget()

    def _mapc(self, words: Words) -> None:
        cpu, valid = words[2] >> 16 & 0x7_FFFF_FFFF, bool(words[2] & VALID)
        if valid:
            self._redistributor(cpu)
        self.tables.map_collection(self._collection(words), cpu & 0xFFFF, valid=valid)
        self.forget()

    def _mapti(self, words: Words) -> None:
        self._map(words, words[1] >> 32)

    def _mapi(self, words: Words) -> None:
        self._map(words, self._event(words))

    def _map(self, words: Words, interrupt: int) -> None:
        if not LPIS <= interrupt < 1 << ID_BITS:
            raise CommandError(f"interrupt {interrupt} is no LPI")
        place = self.tables.place(self._device(words), self._event(words))
        self.tables.map_event(place, interrupt, self._collection(words))
        self.forget()

    def _movi(self, words: Words) -> None:
        translation = self.tables.translation(self._device(words), self._event(words))
        old = self._redistributor_of(translation.collection)
        new = self._redistributor_of(self._collection(words))
        self.tables.map_event(translation.place, translation.interrupt, self._collection(words))
        self.forget()
        if old is not new:
            old.lpis.move(translation.interrupt, new.lpis)
            old.lpis_changed()
            new.lpis_changed()

    def _movall(self, words: Words) -> None:
        old, new = (self._redistributor(word >> 16 & 0x7_FFFF_FFFF) for word in words[2:])
        old.lpis.move_all(new.lpis)
        old.lpis_changed()
        new.lpis_changed()

    def _int(self, words: Words) -> None:
        self.deliver(self._device(words), self._event(words))

    def _mapped(self, words: Words) -> tuple[int, int, GICv3Redistributor]:
        place, interrupt, collection = self.tables.translation(self._device(words), self._event(words))
        return place, interrupt, self._redistributor_of(collection)

    def _clear(self, words: Words) -> None:
        _, interrupt, redistributor = self._mapped(words)
        redistributor.lpis.clear(interrupt)
        redistributor.lpis_changed()

    def _discard(self, words: Words) -> None:
        place, interrupt, redistributor = self._mapped(words)
        self.tables.store(place, 0)
        self.forget()
        redistributor.lpis.clear(interrupt)
        redistributor.lpis_changed()

    def _inv(self, words: Words) -> None:
        _, interrupt, redistributor = self._mapped(words)
        redistributor.lpis.invalidate(interrupt)
        redistributor.lpis_changed()

    def _invall(self, words: Words) -> None:
        redistributor = self._redistributor_of(self._collection(words))
        redistributor.lpis.invalidate_all()
        redistributor.lpis_changed()

    def _sync(self, words: Words) -> None:
        self._redistributor(words[2] >> 16 & 0x7_FFFF_FFFF)  # all that was asked of it is done
