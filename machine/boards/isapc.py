"""`isapc`: a PC without PCI, as QEMU's board of that name: serial ports, timer, clock, keyboard, 8259 pair, IDE.

Not there yet: display, DMA controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.ata import AtaDisk, AtapiDrive
from dbt.machine.boards.board import MIB, Board, BoardMachine, Inputs, Placed, load_firmware
from dbt.machine.devices.i8259 import PicPair
from dbt.machine.devices.ide import IdeChannel
from dbt.machine.devices.mc146818 import MC146818
from dbt.machine.machine import PORTS, Machine
from dbt.machine.memory import RAM, ROM, Alias, Unassigned

from dbt.errors import UsageError

if TYPE_CHECKING:
    from dbt.machine.ata import Drive

IDE_DRIVES = 4
BIOS, LOW, HIGH = 128 << 10, 640 << 10, 1 << 20
BIOS_END = 1 << 32


def pic_pair(machine: Machine) -> PicPair:
    """The pair of 8259 with its ELCR, where PCs have it."""
    pair = PicPair(machine)
    for number, (chip, at) in enumerate(((pair.master, 0x20), (pair.slave, 0xA0))):
        machine.place(chip, at, PORTS, "WINDOW")
        machine.place(chip, 0x4D0 + number, PORTS, "ELCR_WINDOW")
    return pair


def keep_memory_size(clock: MC146818, ram: int) -> None:
    """How much memory there is, in KiB below and above 1 MiB, in the clock's memory."""
    above = min(max(ram - HIGH, 0) >> 10, 0xFFFF)
    for offset, kibibytes in ((0x15, LOW >> 10), (0x17, above), (0x30, above)):
        clock.store(offset, kibibytes & 0xFF)
        clock.store(offset + 1, kibibytes >> 8)


def ide_drives(machine: BoardMachine) -> list[Drive | None]:
    """Disks from the first master on, CD-ROM drives from the second one on, where there is room."""
    options = machine.options
    if len(options.disks) + len(options.cds) > IDE_DRIVES:
        raise UsageError(f"{machine.name} has room for {IDE_DRIVES} drives on IDE")
    drives: list[Drive | None] = [AtaDisk(f"hd{n}", machine, disk) for n, disk in enumerate(options.disks)]
    drives += [None] * (IDE_DRIVES - len(drives))
    for number, disk in enumerate(options.cds):
        place = next(place for place in (2, 3, 0, 1) if drives[place] is None)
        drives[place] = AtapiDrive(f"cd{number}", machine, disk)
    return drives


class IsaPc(Board):
    """A PC with nothing but an ISA bus."""

    NAME = "isapc"
    ABOUT = "a PC without PCI: 8259 pair, 8254, MC146818, i8042, two 16550, IDE, fw_cfg, room for a BIOS"
    RAM = (MIB, 3584 * MIB)
    UNASSIGNED = Unassigned.ONES
    DEVICES = (
        Placed("pit", "i8254", {"WINDOW": 0x40, "PORTB": 0x61}, irq=0, space=PORTS),
        Placed("rtc", "mc146818", {"": 0x70}, irq=8, space=PORTS),
        Placed("com1", "ns16550", {"": 0x3F8}, irq=4, space=PORTS, console=True),
        Placed("com2", "ns16550", {"": 0x2F8}, irq=3, space=PORTS, console=True),
        Placed(
            "keyboard", "i8042", {"DATA_PORT": 0x60, "COMMAND_PORT": 0x64}, irq=1, irqs={"mouse_irq": 12}, space=PORTS
        ),
        Placed("port92", "port92", {"": 0x92}, space=PORTS),
        Placed("ide0", "ide", {"BLOCK": 0x1F0, "CONTROL_BLOCK": 0x3F6}, irq=14, space=PORTS),
        Placed("ide1", "ide", {"BLOCK": 0x170, "CONTROL_BLOCK": 0x376}, irq=15, space=PORTS),
        Placed("fw_cfg", "fw_cfg", {"IO": 0x510, "IO_DMA": 0x514}, space=PORTS),
    )

    def controller(self, machine: BoardMachine) -> Inputs:
        """The sixteen inputs of the pair."""
        return pic_pair(machine).inputs.__getitem__

    def memory(self, machine: BoardMachine) -> None:
        """RAM around the hole from 640 KiB to 1 MiB, and the BIOS at the end of 4 GiB and of 1 MiB."""
        ram, bios = RAM("ram", machine.options.ram), ROM("bios", BIOS)
        machine.place(Alias("ram-low", ram, 0, LOW), 0)
        if machine.options.ram > HIGH:
            machine.place(Alias("ram-high", ram, HIGH), HIGH)
        load_firmware(bios, machine.options.firmware, top=True)
        machine.place(bios, BIOS_END - BIOS)
        machine.place(Alias("bios-low", bios), HIGH - BIOS)

    def connect(self, machine: BoardMachine) -> None:
        """Drives, and nothing else."""
        super().connect(machine)
        for number, drive in enumerate(ide_drives(machine)):
            channel = machine.devices[f"ide{number // 2}"]
            assert isinstance(channel, IdeChannel)
            if drive is not None:
                channel.attach(number % 2, drive)

    def finish(self, machine: BoardMachine) -> None:
        """A BIOS looks in the clock's memory for how much there is."""
        clock = machine.devices["rtc"]
        assert isinstance(clock, MC146818)
        keep_memory_size(clock, machine.options.ram)


BOARD = IsaPc
