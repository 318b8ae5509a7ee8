"""Three devices whose lines go to a GIC, at the places that they have on QEMU's virt, and how they are driven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.devices.pl011 import PL011
from dbt.machine.devices.pl031 import PL031
from dbt.machine.devices.pl061 import PL061

if TYPE_CHECKING:
    from dbt.machine.devices.gicv2 import GICv2
    from dbt.machine.devices.gicv3 import GICv3
    from dbt.machine.machine import Machine

    from tests.machine.qtest import Bus

UART, RTC, GPIO = 0x0900_0000, 0x0901_0000, 0x0903_0000


def place_inputs(machine: Machine, gic: GICv2 | GICv3) -> None:
    """Shared interrupts 33, 34 and 39."""
    machine.place(PL011("uart", machine, gic.spi(1)), UART)
    machine.place(PL031("rtc", machine, gic.spi(2)), RTC)
    machine.place(PL061("gpio", machine, gic.spi(7)), GPIO)


def lines(bus: Bus, which: int, level: int) -> None:
    """Interrupts of three devices, up or down."""
    if which == 0:
        bus.write(UART, 0x41)
        bus.write(UART + 0x38, 0x20 * level)
    elif which == 1:
        bus.write(RTC + 8, 5)
        bus.write(RTC + 4, 5)
        bus.write(RTC + 0x10, level)
    else:
        bus.write(GPIO + 0x404, 0xFF)
        bus.write(GPIO + 0x410, level)
