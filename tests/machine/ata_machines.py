"""Machines with drives, ours and QEMU's, and images for them."""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING

from dbt.machine.ata import AtaDisk, AtapiDrive
from dbt.machine.block import READ, WRITE, Disk, HostError, open_image
from dbt.machine.devices.ide import IdeChannel
from dbt.machine.devices.piix3_ide import Piix3Ide
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM

from tests.machine import pci
from tests.machine.qtest import X86, Ours

if TYPE_CHECKING:
    from pathlib import Path

    from dbt.machine.ata import Drive
    from dbt.machine.block import Request
    from dbt.machine.log import Log

    from tests.machine.qtest import Bus

RAM_AT = 0x10_0000  # as a PC has it; 3 MiB of it are ours
MASTER = 0xC000
TABLE, AT, OTHER = 0x10_0000, 0x10_1800, 0x10_8000  # in guest memory; AT crosses pages
DISK, DISC = 8 << 20, 2 << 20
DATA = Random(1).randbytes(1 << 20)  # what images start with


class FaultyDisk(Disk):
    """A disk with bad sectors: requests that touch one fail as the host's do."""

    bad: frozenset[tuple[int, int]] = frozenset()  # (operation, sector)

    def perform(self, request: Request) -> None:
        first, last = request.offset // 512, (request.offset + max(request.length, 1) - 1) // 512
        if any(operation == request.operation and first <= sector <= last for operation, sector in self.bad):
            request.error = HostError("disk", OSError(errno.EIO, ""), doing="test", offset=request.offset)
            request.done = True
        else:
            super().perform(request)

    def submit(self, request: Request) -> bool:
        if self.bad and request.operation in {READ, WRITE}:
            self.perform(request)
            return True
        return super().submit(request)


def memory_disk(size: int = DISK, data: bytes = DATA, *, writable: bool = True) -> FaultyDisk:
    """A disk that starts with `data`."""
    disk = FaultyDisk(open_image({"driver": "memory", "size": size}, "raw", writable=True))
    disk.write(0, data[:size])
    if not writable:
        disk.node.writable = False
    return disk


def image(path: Path, size: int) -> Path:
    """The same in a file."""
    with path.open("wb") as file:
        file.write(DATA[:size])
        file.truncate(size)
    return path


def hard_disk(machine: Machine, disk: Disk, name: str = "hd") -> AtaDisk:
    return AtaDisk(name, machine, disk, serial="QM00001", model="QEMU HARDDISK", firmware="2.5+")


def cd_rom(machine: Machine, disk: Disk | None, name: str = "cd") -> AtapiDrive:
    return AtapiDrive(
        name, machine, disk, serial="QM00003", model="QEMU DVD-ROM", vendor="QEMU", product="QEMU DVD-ROM",
        firmware="2.5+",
    )  # fmt: skip


def pc(log: Log | None = None) -> tuple[Machine, Piix3Ide, AtaDisk, AtapiDrive]:
    """A PIIX3 where QEMU's `pc` has it, with a disk on the first channel and a disc in a drive on the second."""
    machine, bus = pci.machine(log=log)
    machine.system.place(RAM("low", 3 << 20), RAM_AT, 2)
    disk, cd = hard_disk(machine, memory_disk()), cd_rom(machine, memory_disk(DISC, writable=False))
    ide = Piix3Ide("ide", machine, bus=bus, slot=1, function=1, drives=(disk, None, cd))
    machine.reset()
    return machine, ide, disk, cd


def isa(drive: Drive, machine: Machine) -> IdeChannel:
    """A channel without a bus master, as an ISA card has it."""
    channel = IdeChannel("ide", machine, drives=(drive,))
    machine.place(channel, 0x1F0, PORTS, "BLOCK")
    machine.place(channel, 0x3F6, PORTS, "CONTROL_BLOCK")
    machine.reset()
    return channel


def start(bus: Bus) -> pci.Function:
    """What firmware does: ports, the bus master's registers."""
    function = pci.Function(pci.Config(bus), (0, 1, 1))
    function.write(0x40, 0x8000_8000)
    function.write(0x20, MASTER | 1)
    function.enable(memory=False)
    return function


def qemu_pc(folder: Path) -> list[str]:
    """QEMU with the same."""
    disk, disc = image(folder / "disk", DISK), image(folder / "disc", DISC)
    return [
        *X86, "-drive", f"if=none,id=d,file={disk},format=raw",
        "-device", "ide-hd,drive=d,bus=ide.0,unit=0,serial=QM00001",
        "-drive", f"if=none,id=c,file={disc},format=raw,readonly=on",
        "-device", "ide-cd,drive=c,bus=ide.1,unit=0,serial=QM00003",
    ]  # fmt: skip


def drained(machine: Machine, *disks: Disk) -> None:
    """Let everything land: requests, and what waits for the next timers."""
    for _ in range(64):
        for disk in disks:
            disk.drain()
        machine.advance(0)


def ours(machine: Machine) -> Ours:
    return Ours(machine)
