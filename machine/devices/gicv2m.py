"""GICv2m: messages become shared interrupts of a GICv2 (Arm's Server Base System Architecture, appendix E).

A frame has a range of interrupts of its own, which have to be edges; a message is the number of one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, WO, Register, View, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine

PRIVATE = 32
SETSPI = 0x40


class GICv2m(Device):
    """Frame of message-signalled interrupts for a GICv2, GICv2m (Arm SBSA)."""

    WINDOW = Window(0x1000, AccessSizes((2, 4), (2, 4)))
    MSI_TYPER = View(0x008, RO, "the first interrupt, and how many", fields={"BaseSPI": (25, 16), "NumSPI": (9, 0)})
    MSI_SETSPI_NS = View(SETSPI, WO, "make an interrupt pending", mask=0x3FF, partial=True)
    MSI_IIDR = Register(0xFCC, RO, "implementer: as QEMU's", reset=0x0510_0000)

    def __init__(self, name: str, machine: Machine, spi: Callable[[int], Line], *, first: int, count: int) -> None:
        super().__init__(name, machine)
        self.first = first  # as shared interrupts are counted
        self.spis = [spi(first + number) for number in range(count)]

    def message(self, offset: int, data: int, requester: int) -> None:
        """A message to MSI_SETSPI_NS."""
        del offset, requester
        self._set(data)

    @MSI_TYPER.on_read
    def _type(self) -> int:
        return PRIVATE + self.first << 16 | len(self.spis)

    @MSI_SETSPI_NS.on_write
    def _set(self, value: int) -> None:
        number = (value & 0x3FF) - PRIVATE - self.first
        if 0 <= number < len(self.spis):
            self.spis[number].pulse()
        else:
            self.guest_error("a message is for an interrupt that is not of this frame", f": {value & 0x3FF}")
