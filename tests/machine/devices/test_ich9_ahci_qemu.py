"""A driver of AHCI: every register compared with QEMU's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import pci
from tests.machine.ahci_driver import COMMAND_SLOT, GHC, HBA_IS, IS, TFD, Ahci
from tests.machine.ahci_machine import ABAR, ALL, AT, IDP, build, start
from tests.machine.ata_driver import fetch, settle
from tests.machine.ata_machines import DATA, DISC, DISK, image
from tests.machine.qtest import X86, Bus, agree, qemu

if TYPE_CHECKING:
    from pathlib import Path


def step(
    driver: Ahci, opcode: int, pieces: list[tuple[int, int]] | None = None, *, dhrs: bool = True, **more: object
) -> None:
    """A command: task file, causes, registers, FIS and data are compared. `dhrs`: also whether a register FIS came."""
    bus, pieces = driver.bus, pieces or []
    driver.put(0, opcode, pieces, **more)  # type: ignore[arg-type]
    driver.go()
    driver.read(TFD)
    driver.read(IS, -1 if dhrs else ~1)
    bus.read(ABAR + HBA_IS)
    driver.write(IS, ALL)
    bus.write(ABAR + HBA_IS, ALL)
    driver.registers()
    if dhrs:
        fetch(bus, driver.fis + 0x40, 20)
    fetch(bus, driver.list, 16)
    for address, length in pieces:
        fetch(bus, address, length)


def disk_script(bus: Bus) -> None:
    driver = start(bus)
    driver.registers(TFD=0)
    step(driver, 0xEA)
    step(driver, 0x00)
    driver.recover()
    two = [(AT, 1024), (AT + 0x2800, 0x1C00)]
    for opcode, count, pieces in ((0x24, 2, two[:1]), (0x25, 16, two), (0x29, 16, two), (0xC8, 2, two[:1])):
        step(driver, opcode, pieces, count=count, lba=5, dhrs=opcode in {0x25, 0xC8})
    bus.store(AT, DATA[:8192])
    for opcode, count in ((0x34, 2), (0x35, 4), (0xCA, 3)):
        step(driver, opcode, [(AT, 512 * count)], write=True, count=count, lba=500 + opcode)
    step(driver, 0x25, [(AT, 8192)], count=16, lba=500 + 0x34)
    for slot in (0, 1):
        driver.put(slot, 0x60, [(AT + 4096 * slot, 4096)], feature=8, count=slot << 3, lba=7 + 100 * slot)
    driver.go(3, queued=True)
    driver.registers(CMD=~COMMAND_SLOT)
    fetch(bus, AT, 8192)
    driver.write(IS, ALL)
    driver.reset()
    driver.registers(TFD=0, CMD=~COMMAND_SLOT)
    driver.soft_reset()
    driver.registers(TFD=0, IS=~1, CMD=~COMMAND_SLOT)
    driver.write(IS, ALL)
    bus.write(ABAR + HBA_IS, ALL)


def disc_script(bus: Bus) -> None:
    driver = start(bus, 1)
    noted = len(bus.log)
    driver.run(0xA0, packet=bytes(12))  # the reset is reported here, and not by QEMU
    driver.recover()
    del bus.log[noted:]
    step(driver, 0xA0, packet=bytes(12))
    step(driver, 0xA0, [(AT, 36)], packet=bytes.fromhex("120000002400000000000000"), feature=1)
    step(driver, 0xA0, [(AT, 8192)], packet=bytes.fromhex("280000000005000004000000"), feature=1)
    step(driver, 0xA0, packet=bytes.fromhex("28000fff0005000004000000"), feature=1, dhrs=False)


def registers_script(bus: Bus) -> None:
    function = pci.Function(pci.Config(bus), (0, 4, 0))
    function.place(memory=ABAR, ports=IDP)
    for offset in range(0, 0x100, 4):
        function.read(offset)
    for offset in (0x04, 0x08, 0x0C, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x28):
        bus.read(ABAR + offset)
    bus.write(ABAR + GHC, 1)
    settle(bus, lambda: bool(bus.read(ABAR + GHC) & 1))
    for offset in (0x04, 0x08, 0x0C):
        bus.read(ABAR + offset)
    for port in range(6):  # those with a drive, but for what the signature says: QEMU waits for FRE to see it
        driver = Ahci(bus, ABAR, port)
        driver.registers(IS=0, SERR=0, TFD=-1 if port > 1 else 0, SIG=-1 if port > 1 else 0)
        for register in (0x04, 0x0C, 0x10, 0x14, 0x30):
            driver.write(register, ALL)
        driver.registers(TFD=-1 if port > 1 else 0, SIG=-1 if port > 1 else 0)
    bus.out(IDP + 0x10, 0x228, 4)
    bus.inp(IDP + 0x10, 4)
    bus.inp(IDP + 0x14, 4)


def script(bus: Bus) -> None:
    registers_script(bus)
    bus.write(ABAR + GHC, 1)
    disk_script(bus)
    disc_script(bus)


@pytest.mark.needs("qemu-system-x86_64")
def test_it_agrees_with_qemu(tmp_path: Path) -> None:
    machine, _, _ = build()
    disk, disc = image(tmp_path / "disk", DISK), image(tmp_path / "disc", DISC)
    words = [
        *X86, "-device", "ich9-ahci,id=ahci,addr=4",
        "-drive", f"if=none,id=d,file={disk},format=raw", "-device", "ide-hd,drive=d,bus=ahci.0,serial=QM00001",
        "-drive", f"if=none,id=c,file={disc},format=raw,readonly=on",
        "-device", "ide-cd,drive=c,bus=ahci.1,serial=QM00003",
    ]  # fmt: skip
    with qemu(*words) as theirs:
        assert agree(script, machine, theirs) > 500
