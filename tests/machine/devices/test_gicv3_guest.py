"""The GICv3's CPU interface against QEMU's, which a small guest drives there: system registers, lines, LPIs."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.machine import icc
from tests.machine.gic_inputs import lines
from tests.machine.gicv3 import GICD, GICR, GITS, SGI, Cpu, build
from tests.machine.its import CLEAR, INT, INV, ITTS, LPIS, MAPTI, Its, event, mapc, mapd, sync
from tests.machine.script_guest import ISR, MRS, Recorder, compare, on_qemu

if TYPE_CHECKING:
    from pathlib import Path

PRIORITIES = (0x00, 0x20, 0x40, 0x41, 0x43, 0x48, 0x80, 0xA0, 0xF8)
PRIVATE, SHARED = (0, 3, 15, 20, 27), (33, 34, 39, 50, 64)


def begin(bus: Recorder) -> None:
    bus.write(GICD, 3)
    bus.write(GICR + 0x14, 0)
    bus.write(GICR + SGI + 0x80, 0xFFFF_FFFE)
    bus.write(GICR + SGI + 0x100, 0xFFFF_FFFF)
    for word in (1, 2):
        bus.write(GICD + 0x80 + 4 * word, 0xFFFF_FFFB)
        bus.write(GICD + 0x100 + 4 * word, 0xFFFF_FFFF)
    for register in (
        icc.SRE, icc.BPR0, icc.BPR1, icc.PMR, icc.AP0R + 3, icc.AP1R, icc.IGRPEN0, icc.IGRPEN1, icc.RPR, icc.HPPIR0,
        icc.HPPIR1, ISR,
    ):  # fmt: skip
        assert bus[register] >= 0
    bus[icc.SRE] = 7
    bus[icc.PMR] = 0xFF
    bus[icc.IGRPEN0] = bus[icc.IGRPEN1] = 1


def play(seed: int, steps: int, bus: Recorder) -> None:
    """What is acknowledged is ended, in the order that nesting has, which is what the architecture asks for."""
    random = Random(seed)
    begin(bus)
    its = Its(bus, 1)
    its.start()
    for number in range(6):
        its.configure(LPIS + number, random.choice(PRIORITIES[:-1]) & 0xFC)
    its.do(mapc(0, 0), mapd(0, ITTS), *(event(MAPTI, 0, n, 0, LPIS + n) for n in range(6)), sync(0))
    for number in PRIVATE + SHARED:
        at = GICR + SGI if number < 32 else GICD
        bus.write(at + 0x400 + number, random.choice(PRIORITIES[1:]), 1)
    taken: list[tuple[int, int, bool]] = []
    for _ in range(steps):
        number = random.choice(PRIVATE + SHARED)
        at = GICR + SGI if number < 32 else GICD
        word, bit = 4 * (number // 32) if number >= 32 else 0, 1 << number % 32
        match random.randrange(23):
            case 0 | 1:
                lines(bus, random.randrange(3), random.randrange(2))
            case 2:
                bus.write(at + random.choice((0x100, 0x100, 0x100, 0x180)) + word, bit)
            case 3 if not taken:
                bus.write(at + 0x400 + number, random.choice(PRIORITIES), 1)
            case 4 | 5 | 6:
                bus.write(at + random.choice((0x200, 0x200, 0x200, 0x280)) + word, bit)
            case 7:
                sgi = random.choice((0, 3, 15)) << 24 | random.randrange(4)
                bus[random.choice((icc.SGI1R, icc.SGI1R, icc.SGI0R, icc.ASGI1R))] = sgi
            case 8 if not taken:
                bus[icc.PMR] = random.choice((0xFF, 0xFF, 0xFF, 0xA0, 0x48))
            case 9 if not taken:
                bus[random.choice((icc.BPR0, icc.BPR1))] = random.choice((0, 0, 1, 2, 5, 7))
                bus[icc.CTLR] = random.choice((0, 0, 1, 2, 3))
                assert bus[icc.BPR0] + bus[icc.BPR1] >= 0
            case 10 if not taken:
                # A group that is disabled in QEMU's CPU interface hides the other, if it has what is more urgent.
                bus[icc.IGRPEN0] = bus[icc.IGRPEN1] = random.random() < 0.95
                bus.write(GICD, random.choice((3, 3, 3, 3, 3, 3, 2, 1)))
            case 11:
                bus.write(GITS + 0x1_0040, random.randrange(7))
            case 12:
                one = random.randrange(6)
                if random.random() < 0.5:
                    its.configure(LPIS + one, random.choice(PRIORITIES) & 0xFC, enabled=random.random() < 0.8)
                    its.do(event(INV, 0, one), sync(0))
                else:
                    its.do(event(random.choice((INT, CLEAR)), 0, one), sync(0))
            case 13 | 14 | 15 | 16 if random.random() < 0.1 or any(bus.cpu.lines):
                _, fiq = bus.cpu.lines
                group = fiq if random.random() < 0.1 else not fiq
                got = bus[icc.IAR1 if group else icc.IAR0]
                if got != 1023:
                    taken.append((got, group, bool(bus.cpu.interface.ICC_CTLR_EL1 & 2)))
            case 17 | 18 | 19 | 20 | 21 | 22 if taken and random.random() < 0.3 + 0.2 * len(taken):
                got, whose, split = taken.pop()
                bus[icc.EOIR1 if whose else icc.EOIR0] = got
                if split and got < LPIS:
                    bus[icc.DIR] = got
        for register in (
            ISR, icc.RPR, icc.HPPIR0, icc.HPPIR1, *(icc.AP0R + n for n in range(4)),
            *(icc.AP1R + n for n in range(4)),
        ):  # fmt: skip
            assert bus[register] >= 0
        for offset in (0x304, 0x308):
            bus.read(GICD + offset)
        bus.read(GICR + SGI + 0x300)


@pytest.mark.needs("qemu-system-aarch64", "aarch64-linux-gnu-gcc")
@pytest.mark.parametrize("seed", range(3))
def test_a_guest_sees_what_it_sees_on_qemu(seed: int, tmp_path: Path) -> None:
    machine, gic = build(1)
    recorder = Recorder(machine, Cpu(gic.interfaces[0]))
    play(seed, 1000, recorder)
    words = ("-machine", "virt,gic-version=3", "-cpu", "cortex-a57", "-global", "arm-gicv3.force-8-bit-prio=on")
    clock = ("-rtc", "base=2020-01-01T00:00:00,clock=vm")
    theirs = on_qemu(tmp_path, recorder, "qemu-system-aarch64", *words, "-nodefaults", "-serial", "null", *clock)
    compare(recorder, theirs)
    acknowledged = [
        result
        for (kind, _, where, _), result in zip(recorder.reads, recorder.results, strict=True)
        if kind == MRS and where in (icc.IAR0, icc.IAR1) and result != 1023
    ]
    assert len(acknowledged) > 50
    assert any(number >= LPIS for number in acknowledged)
