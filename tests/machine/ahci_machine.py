"""A machine with AHCI, a disk and a disc, and a driver that has started a port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.devices.ich9_ahci import Ich9Ahci
from dbt.machine.memory import RAM

from tests.machine import pci
from tests.machine.ahci_driver import GHC, Ahci
from tests.machine.ata_machines import DISC, RAM_AT, FaultyDisk, cd_rom, hard_disk, memory_disk

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

    from tests.machine.qtest import Bus


ABAR, IDP = 0xE000_0000, 0xC000
AT = 0x12_0000  # data in guest memory
ALL = 0xFFFF_FFFF


def build() -> tuple[Machine, Ich9Ahci, FaultyDisk]:
    machine, bus = pci.machine()
    machine.system.place(RAM("low", 3 << 20), RAM_AT, 2)
    disk = memory_disk()
    drives = (hard_disk(machine, disk), cd_rom(machine, memory_disk(DISC, writable=False)))
    ahci = Ich9Ahci("ahci", machine, bus=bus, slot=4, drives=drives)
    machine.reset()
    return machine, ahci, disk


def start(bus: Bus, port: int = 0) -> Ahci:
    """Place the BARs, enable interrupts and the port."""
    pci.Function(pci.Config(bus), (0, 4, 0)).place(memory=ABAR, ports=IDP)
    bus.write(ABAR + GHC, 0x8000_0002)
    driver = Ahci(bus, ABAR, port)
    driver.start()
    return driver
