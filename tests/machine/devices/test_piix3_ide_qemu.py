"""A driver of PIIX3's IDE: every register compared with QEMU's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.ata import identify

from tests.machine.ata_driver import BLOCK, CONTROL, SECOND, Ata, fetch, reset
from tests.machine.ata_machines import AT, DATA, MASTER, OTHER, TABLE, pc, qemu_pc, start
from tests.machine.qtest import Bus, agree, qemu

if TYPE_CHECKING:
    from pathlib import Path


# Fields of IDENTIFY that QEMU has differently: standards, what only we have, and what nothing specifies.
OWN = {
    "capabilities 50", "features supported", "features enabled", "major version", "minor version", "command set 4",
    "command set 4 enabled", "additional support", "blocks of DATA SET MANAGEMENT", "data set management", "DMA cycle",
    "rotation rate", "transport version", "hardware reset result", "Ultra DMA", "multiword DMA", "valid fields",
    "PIO cycle", "capabilities",
}  # fmt: skip


def identify_as(bus: Bus, ata: Ata, opcode: int) -> None:
    """IDENTIFY, of which the specified fields are compared."""
    noted = len(bus.log)
    data = ata.pio_in(opcode, 1)
    del bus.log[noted:]
    for name, value in identify.parse(data).items():
        if name not in OWN:
            number = value if isinstance(value, int) else int.from_bytes(value.encode(), "big")
            bus.log.append((name, 0, 0, number))
    ata.registers()


def registers(bus: Bus) -> None:
    """Task files of both channels: patterns, previous contents, the drive that is not there, resets."""
    for block, control in ((BLOCK, CONTROL), SECOND):
        ata = Ata(bus, block, control)
        for device in (0, 1):
            ata.select(device)
            ata.registers()
            for pattern in ((0x12, 0x34, 0x56, 0x78, 0x9A), (0x21, 0x43, 0x65, 0x87, 0xA9)):
                for n, value in enumerate(pattern):
                    bus.out(block + 1 + n, value)
                ata.registers()
            bus.out(control, 0x80)
            for n in range(2, 7):
                bus.inp(block + n)
            bus.out(control, 0)
            ata.registers()
        ata.select(0)
        reset(bus, control)
        ata.registers()


def commands(bus: Bus) -> None:
    """Commands without data."""
    ata = Ata(bus)
    ata.select(0)
    files: tuple[dict[str, int], ...] = (
        {}, {"count": 16}, {"count": 8, "lba": 0xC24F00, "feature": 0xDA}, {"feature": 3, "count": 0x45},
        {"feature": 0x82}, {"feature": 2}, {"feature": 0xAA},
    )  # fmt: skip
    for opcode in (
        0x00, 0x08, 0x10, 0x27, 0x5A, 0x60, 0x90, 0x91, 0x94, 0x95, 0x98, 0xA0, 0xA1, 0xB0, 0xC6, 0xE0,
        0xE1, 0xE2, 0xE3, 0xE5, 0xE7, 0xEA, 0xEF, 0xF8,
    ):  # fmt: skip
        for file in files:
            seek = ~0x10 if opcode in {0x94, 0x95, 0xE0, 0xE1, 0xE2, 0xE3} else -1  # "seek complete" is obsolete
            ata.put(**file)  # type: ignore[arg-type]
            bus.out(BLOCK + 7, opcode)
            noted = len(bus.log)
            ata.wait()
            del bus.log[noted:]
            for n in range(1, 7):
                bus.inp(BLOCK + n)
            ata.status(seek)
            ata.select(0)
    for opcode in (0x40, 0x42):
        ata.command(opcode, count=16, lba=5, ext=opcode == 0x42)
        ata.registers()


def pio(bus: Bus) -> None:
    """Data by PIO: single and multiple blocks, 28 and 48 bits, words and double words, CHS."""
    ata = Ata(bus)
    ata.select(0)
    ata.command(0x91, count=63, lba=15 << 24)
    identify_as(bus, ata, 0xEC)
    for opcode in (0x20, 0x24, 0x21):
        for size in (2, 4):
            ata.pio_in(opcode, 2, count=2, lba=77, ext=opcode == 0x24, size=size)
            ata.registers()
    for opcode in (0xC4, 0x29):
        for multiple in (0, 2, 16):
            ata.command(0xC6, count=multiple)
            count = min(multiple, 3) or 1
            ata.pio_in(opcode, 2, length=512 * count, count=count, lba=11, ext=opcode == 0x29)
            ata.registers()
    for opcode in (0x30, 0x34):
        ata.pio_out(opcode, DATA[opcode : opcode + 1024], count=2, lba=200, ext=opcode == 0x34, size=4)
        ata.registers()
    ata.command(0xC6, count=4)
    for opcode in (0xC5, 0x39):
        ata.pio_out(opcode, DATA[opcode : opcode + 3072], length=2048, count=6, lba=210, ext=opcode == 0x39, size=4)
        ata.registers()
    ata.pio_in(0x20, 16, count=16, lba=200, size=4)
    ata.registers()
    ata.pio_in(0x20, 2, count=2, lba=0x00013F, chs=True, size=4)  # cylinder 1, head 0, sector 63 and the next
    ata.registers()


def dma(bus: Bus) -> None:
    """Data by the bus master: tables that fit, are longer, are too short; pieces that are no sectors."""
    ata = Ata(bus, master=MASTER)
    ata.select(0)
    bus.out(MASTER + 2, 6)
    for n in (0, 2, 4, 5, 6, 7):
        bus.inp(MASTER + n)
    bus.store(AT, bytes(0x1000))
    bus.store(OTHER, bytes(0x1000))
    for opcode in (0xC8, 0x25):
        for second in (0x1000, 0x2000, 0x200):
            ata.dma(opcode, TABLE, [(AT, 0x1000), (OTHER, second)], to_memory=True, count=16, lba=7, ext=opcode == 0x25)
            ata.registers()
            fetch(bus, AT, 0x1000)
            fetch(bus, OTHER, 0x1000)
        reset(bus, CONTROL)
        ata.select(0)
    bus.store(0x11_0000, DATA[:8192])
    for opcode in (0xCA, 0x35):
        pieces = [(0x11_0000, 0x1002), (0x11_1800, 0xFFE)]
        ata.dma(opcode, TABLE, pieces, to_memory=False, count=16, lba=300, ext=opcode == 0x35)
        ata.registers()
    ata.dma(0xC8, TABLE, [(0x12_0000, 0x2000)], to_memory=True, count=16, lba=300)
    ata.registers()
    fetch(bus, 0x12_0000, 8192)


PACKETS = (
    "120000002400", "00", "43000000000000 00ff", "43020000000000 00ff", "4300000000aa 00 00ff", "43020000000000 00ff80",
    "43000000000005 00ff", "4a0100001000 00 00ff", "4a0000001000 00 00ff", "4a0100000000 00 00ff", "5100000000000000ff",
    "bd00000000000000 00ff", "1e00000001", "1e00", "2b00000000ff", "2b00ffffffff", "25", "280000000005000003",
    "280000000400000001", "a80000000005 00000003", "be0000000005 000002 10", "be0000000005 000002 00", "bb",
    "1b00000000", "280000000005000000",
)  # fmt: skip


def atapi(bus: Bus) -> None:
    """Packets, with data in pieces of several sizes; sense data after errors; DMA."""
    ata = Ata(bus, *SECOND, master=MASTER + 8)
    ata.select(0)
    identify_as(bus, ata, 0xA1)
    noted = len(bus.log)
    ata.packet_in(bytes(12))  # the reset is reported here, and not by QEMU
    del bus.log[noted:]
    for packet in PACKETS:
        for limit in (0xFFFE, 0x800, 0x1FF):
            _, error = ata.packet_in(bytes.fromhex(packet), limit=limit)
            ata.registers()
            if error:
                noted = len(bus.log)
                data, _ = ata.packet_in(bytes.fromhex("030000001200"))
                del bus.log[noted:]
                bus.log.append(("sense", 0, 0, int.from_bytes(data[2:], "big")))
    for packet, length in (("280000000005000004", 8192), ("120000002400", 36)):
        ata.table(TABLE, [(0x12_0000, length)])
        ata.packet(bytes.fromhex(packet), dma=True)
        ata.run_dma(to_memory=True)
        ata.registers()
        fetch(bus, 0x12_0000, length)


def script(bus: Bus) -> None:
    start(bus)
    for control in (CONTROL, SECOND[1]):
        reset(bus, control)
    for part in (registers, commands, pio, dma, atapi):
        part(bus)


@pytest.mark.needs("qemu-system-x86_64")
def test_it_agrees_with_qemu(tmp_path: Path) -> None:
    machine, _, disk, _ = pc()
    with qemu(*qemu_pc(tmp_path)) as theirs:
        assert agree(script, machine, theirs) > 10_000
    assert disk.disk is not None
    disk.disk.drain()
    assert disk.disk.read(0, 1 << 20) == (tmp_path / "disk").read_bytes()[: 1 << 20]
