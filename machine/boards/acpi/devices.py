"""What the DSDTs of boards have in common: devices of the list, host bridges of PCI, CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.boards.acpi import aml
from dbt.machine.machine import PORTS
from dbt.machine.pci.bus import PINS, SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbt.machine.boards.board import BoardMachine, Placed


def described(
    machine: BoardMachine, interrupt: Callable[[int], bytes], wanted: Callable[[Placed], bool]
) -> Iterator[bytes]:
    """A device for each of the list that has a hardware identifier and is `wanted`; names are the list's."""
    for placed in machine.placed:
        if placed.acpi is None or not wanted(placed):
            continue
        identifier, number = placed.acpi
        device = machine.devices[placed.name]
        used = []
        for window, at in placed.at.items():
            size = (device.regions[window] if window else device.region).size
            used.append(aml.ports(at, size) if placed.space == PORTS else aml.memory(at, size))
        if placed.irq is not None:
            used.append(interrupt(placed.irq))
        yield aml.device(
            short(placed.name),
            aml.name("_HID", aml.hardware_id(identifier)),
            aml.name("_UID", number),
            aml.name("_CRS", aml.resources(*used)),
        )


def short(text: str) -> str:
    """A name of four characters: the first letters, and the number at the end."""
    letters = "".join(character for character in text.upper() if character.isalnum())
    digits = letters[len(letters.rstrip("0123456789")) :]
    return letters[: len(letters) - len(digits)][: 4 - len(digits)] + digits


def cpus(count: int) -> Iterator[bytes]:
    """Processor devices."""
    for number in range(count):
        yield aml.device(f"C{number:03X}", aml.name("_HID", "ACPI0007"), aml.name("_UID", number))


def routing(source: Callable[[int, int], tuple[aml.Term, int]]) -> bytes:
    """_PRT: for each slot and pin a link's name and index, or zero and a global interrupt (6.2.13)."""
    rows = [aml.package(slot << 16 | 0xFFFF, pin, *source(slot, pin)) for slot in range(SLOTS) for pin in range(PINS)]
    return aml.name("_PRT", aml.package(*rows))
