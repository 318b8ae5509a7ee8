"""The same driver on our 82540EM and on QEMU's: registers, descriptors, buffers and frames have to be the same.

QEMU's differs from the manual, and is left out: CTRL.RST does nothing; interrupts are throttled always; TXDW comes at
once also with IDE; the receiver looks at no checksums, the transmitter not at IC of legacy descriptors and PSP;
segmentation ends with an empty frame if the data is a multiple of MSS, IPv6's length includes its header then, and only
packets of several segments are counted; the check sequence is not stored; I/O space does nothing.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.e1000 import E1000
from dbt.machine.devices.e1000_registers import Counter, E1000Registers
from dbt.machine.net.backend import MemoryNet

from tests.machine.e1000 import (
    BAM,
    EN,
    EOP,
    IFCS,
    LPE,
    MPE,
    RS,
    SECRC,
    TSE,
    UPE,
    VLE,
    Driver,
    QemuWire,
    Wire,
)
from tests.machine.frames import MAC, ethernet, half_summed, ip4, ip6, summed, tcp, udp
from tests.machine.pci import machine
from tests.machine.qtest import Bus, Ours, qemu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dbt.machine.machine import Machine

PC = ("qemu-system-x86_64", "-machine", "pc", "-nodefaults", "-m", "2G")
BACK = b"\xff\xff\0\0\x0b\0\xff\xff"  # of a write-back, without checksums: see above
STORED = [
    "RDBAL",
    "RDBAH",
    "RDLEN",
    "TDBAL",
    "TDBAH",
    "TDLEN",
    "VET",
    "TADV",
    "RADV",
    "ITR",
    "WUFC",
    "TXDCTL",
    "RDFH",
    "TDFT",
]
OCTETS = ("GORCL", "GORCH", "GOTCL", "GOTCH", "TORL", "TORH", "TOTL", "TOTH")
COUNTERS = [name for name, register in vars(E1000Registers).items() if isinstance(register, Counter)]


def ours() -> tuple[Machine, MemoryNet]:
    made, bus = machine()
    net = MemoryNet()
    E1000("nic", made, bus=bus, slot=2, net=net)
    made.reset()
    return made, net


def identity(driver: Driver) -> None:
    function = driver.function
    for offset in (0x00, 0x08, 0x2C):
        function.read(offset)
    function.read(0x3D, 1)
    for index in (0, 1):
        driver.note("bar", function.size(index)[0].to_bytes(4, "big"))
    for name in ("PBA", "STATUS", "CTRL", "ICR", "RCTL", "TCTL", "RDT", "VET", "WUC"):
        driver.get(name)
    driver.get("RAL")
    driver.get("RAH")


def registers(driver: Driver) -> None:
    random = Random(1)
    for name in STORED:
        register = vars(E1000Registers)[name]
        for _ in range(4):
            driver.set(name, random.getrandbits(32) & register.mask)
            driver.get(name)
    for name in ("MTA", "VFTA", "RAL", "RAH"):
        register = vars(E1000Registers)[name]
        for index in (0, 1, register.count - 1):
            driver.set(name, random.getrandbits(32) & register.mask, index)
            driver.get(name, index)


def eeprom_and_phy(driver: Driver) -> None:
    driver.note("mac", repr(driver.eeprom_read(0, 3)).encode())
    for word in range(3):
        driver.eerd(word)
    driver.note("ids", repr((driver.eeprom_read(0x0D), driver.eeprom_read(0x0E))).encode())
    driver.note("sum", (sum(driver.eeprom_read(0, 64)) & 0xFFFF).to_bytes(2, "big"))
    for register in (0, 2, 3, 4, 9, 10, 16, 17, 20):
        driver.phy_read(register)
    driver.phy_read(0, phy=2)
    for register, value in ((4, 0x1E1), (9, 0x300), (16, 0x68), (20, 0xC60)):
        driver.phy_write(register, value)
        driver.phy_read(register)
    driver.set("IMS", 1 << 9)
    driver.set("MDIC", 2 << 26 | 1 << 29 | 1 << 21 | 2 << 16)
    driver.get("MDIC")
    driver.step(1_000_000)
    driver.pin()
    driver.get("ICR")
    driver.pin()


def link(driver: Driver) -> None:
    driver.set("IMS", 4)
    driver.phy_write(0, 0x1340)
    driver.get("STATUS")
    driver.phy_read(1)
    driver.step(400_000_000)
    driver.get("STATUS")
    assert driver.get("ICR", noted=False) in {0, 4}  # QEMU's only says that it is up again
    driver.step(200_000_000)
    driver.get("STATUS")
    driver.get("ICR")
    driver.phy_read(1)
    driver.phy_read(1)
    driver.phy_read(17)


def interrupts(driver: Driver) -> None:
    random = Random(2)
    for _ in range(60):
        value = random.choice((1, 4, 0x80, 0x90, 0x10000, 0xFF))
        driver.set(random.choice(("ICS", "IMS", "IMC", "ICR")), value & 0x1F2D7)
        driver.step(1_000_000)
        driver.pin()
        driver.get("IMS")
        if not random.randrange(3):
            driver.get("ICR")
            driver.step(1_000_000)
            driver.pin()


def look(driver: Driver, *, octets: bool = True) -> None:
    for name in ("ICR", "TDH", "RDH", *COUNTERS):
        driver.get(name)
    for name in OCTETS:
        driver.get(name, noted=octets)


def look_received(driver: Driver, *, sizes: bool = False) -> None:
    """QEMU's counts sizes without the check sequence if that is stripped."""
    for name in ("ICR", "RDH", "TPR", "GPRC", "MPC", "RNBC"):
        driver.get(name)
    for name in ("PRC64", "PRC127", "PRC255", "PRC511", "PRC1023", "PRC1522", *OCTETS):
        driver.get(name, noted=sizes)


def counting(driver: Driver) -> None:
    driver.start(rx=16, control=BAM)
    for number, length in enumerate((60, 61, 123, 124, 251, 252, 507, 508, 1019, 1020, 1514)):
        driver.wire.give(ethernet(0x1234, bytes(length - 14)))
        driver.wait(number + 1)
    look_received(driver, sizes=True)


def sending(driver: Driver) -> None:
    driver.start(tx=16)
    frame = ethernet(0x0800, summed(ip4(udp(b"hello" * 20), 17)))
    for command in (EOP | IFCS | RS, EOP | IFCS):
        driver.send(frame, command)
        driver.sent()
        look(driver)
    for length in (60, 61, 124, 251, 252, 508, 1020, 1514):
        driver.send(frame.ljust(length, b"x")[:length])
        driver.sent()
    look(driver)
    # Pieces, a checksum, a tag
    pieces = [(driver.put(frame[:20]), 20 | RS << 24, 0), (driver.put(frame[20:], 4096), len(frame) - 20 | 3 << 24, 0)]
    driver.queue(*pieces)
    driver.kick()
    driver.sent()
    driver.set("CTRL", driver.get("CTRL") | 1 << 30)
    driver.send(frame, EOP | IFCS | VLE | RS, special=0x6064)
    driver.sent()
    for target in (b"\xff" * 6, b"\1\0\x5e\0\0\1"):
        driver.send(target + frame[6:])
        driver.sent()
    look(driver, octets=False)  # QEMU's does not count the tag
    # Checksums by context
    for packet, size in ((ip4(tcp(b"x" * 333), 6, summed=False), 20), (ip6(udp(b"yz" * 100), 17), 40)):
        plain = half_summed(packet, whole=True)
        field = 16 if size == 20 else 6
        driver.context((14, 24, 14 + size - 1), (14 + size, 14 + size + field, 0), command=3 if size == 20 else 0)
        frame = ethernet(0x0800 if size == 20 else 0x86DD, plain)
        driver.data([frame[:50], frame[50:]], IFCS | RS | VLE, 3 if size == 20 else 2, special=77)
        driver.kick()
        driver.sent()
    look(driver, octets=False)


def segmentation(driver: Driver) -> None:
    driver.start(tx=32)
    random = Random(3)
    for kind, total, mss in (
        ("tcp4", 4000, 1460), ("tcp4", 2921, 1460), ("tcp4", 100, 1460), ("udp4", 3000, 900),
        ("tcp4", 4500, 536),
    ):  # fmt: skip
        payload = random.randbytes(total)
        command = {"tcp4": 3, "udp4": 2}[kind]
        layer = tcp(payload) if command & 1 else udp(payload, length=0)
        size = 20 if command & 2 else 40
        packet = (
            ip4(layer, 6 if command & 1 else 17, length=0, summed=False) if command & 2 else ip6(layer, 6, length=0)
        )
        frame = ethernet(0x0800 if command & 2 else 0x86DD, half_summed(packet, whole=False))
        header = 14 + size + (20 if command & 1 else 8)
        field = 14 + size + (16 if command & 1 else 6)
        driver.context((14, 24, 14 + size - 1), (14 + size, field, 0), command=command | TSE | RS,
                       payload=total, header=header, mss=mss)  # fmt: skip
        cuts = sorted(random.sample(range(header, len(frame)), 4)) if total > 1000 else [header]
        pieces = [frame[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]
        driver.data(pieces, IFCS | RS | TSE, 3 if command & 2 else 2)
        driver.kick()
        driver.sent()
        driver.get("TDH")
        driver.get("ICR")
    for name in ("TPT", "GPTC", "TOTL", "TOTH", "TSCTFC"):
        driver.get(name)


def receiving(driver: Driver) -> None:
    driver.set("RXCSUM", 0)
    driver.start(rx=16)
    frame = ethernet(0x0800, summed(ip4(udp(b"to you" * 10), 17)))
    for length in (60, 61, 124, 252, 508, 1020, 1514, 42):
        driver.wire.give(frame.ljust(length, b"x")[:length])
        driver.received(mask=BACK)
        driver.get("RDH")
        driver.get("ICR")
    look_received(driver)
    # Filters: each frame is followed by one that passes
    group = b"\1\0\x5e\1\2\3"
    hashed = (group[5] << 8 | group[4]) >> 4 & 0xFFF
    driver.set("RAL", 0x0403_0206, 3)
    driver.set("RAH", 0x8000_0605, 3)
    driver.set("MTA", 1 << (hashed & 31), hashed >> 5)
    for control in (0, BAM | UPE, MPE):
        driver.set("RCTL", control | SECRC | EN)
        for target in (MAC, b"\2\0\0\0\0\x09", group, b"\1\0\0\0\0\1", b"\xff" * 6, b"\6\2\3\4\5\6"):
            driver.wire.give(ethernet(0x1234, target.ljust(60), target))
        driver.wire.give(ethernet(0x1234, b"the last one".ljust(60)))
        for _ in range(7):
            if driver.received(mask=BACK)[0][1][14:18] == b"the ":
                break
        driver.get("ICR")
    driver.start(rx=16, control=BAM | SECRC | LPE | 2 << 16, buffers=512)
    for length in (512, 513, 3 * 512 - 7, 700):
        driver.wire.give(frame.ljust(length, b"y"))
        driver.received(-(-length // 512), BACK)
        driver.get("RDH")
    look_received(driver)


def tags(driver: Driver) -> None:
    driver.set("CTRL", driver.get("CTRL") | 1 << 30)
    driver.start(rx=16, control=BAM | SECRC | 1 << 18)
    driver.set("VFTA", 1 << 5, 1)
    for tag in (0x6025, 0x0026, 0xE025):
        driver.wire.give(ethernet(0x1234, b"tagged".ljust(60), tag=tag))
    driver.wire.give(ethernet(0x1234, b"the last one".ljust(60)))
    driver.received(3, BACK)
    driver.get("ICR")


def thresholds(driver: Driver) -> None:
    driver.start(rx=16, control=BAM | SECRC | 1 << 8)
    driver.get("ICR")
    for _ in range(15):
        driver.wire.give(ethernet(0x1234, bytes(60)))
        driver.wait(1)
        driver.next += 1
        driver.get("ICR")
        driver.get("RDH")


def anything(driver: Driver) -> None:
    """Frames in both directions, tags, interrupts and looks at registers, in any order."""
    random = Random(4)
    driver.start(tx=16, rx=16)
    driver.set("CTRL", driver.get("CTRL") | 1 << 30)
    driver.set("IMS", 0x84)
    for _ in range(120):
        payload = random.randbytes(random.choice((46, 47, 100, 300, 1000, 1400)))
        target = random.choice((MAC, b"\xff" * 6, b"\1\0\x5e\0\0\1"))
        match random.randrange(6):
            case 0:
                tagged = VLE if random.randrange(2) else 0
                driver.send(ethernet(0x1234, payload, target), EOP | IFCS | RS | tagged, special=random.getrandbits(16))
                driver.sent()
            case 1:
                packet = random.choice((ip4(tcp(payload), 6, summed=False), ip4(udp(payload), 17, summed=False)))
                field = 50 if packet[9] == 6 else 40
                driver.context((14, 24, 33), (34, field, 0))
                frame = ethernet(0x0800, half_summed(packet, whole=True), target)
                cut = random.randrange(1, len(frame))
                driver.data([frame[:cut], frame[cut:]], IFCS | RS, random.randrange(1, 4))
                driver.kick()
                driver.sent()
            case 2:
                tag = random.choice((None, random.getrandbits(16)))
                driver.wire.give(ethernet(0x1234, payload, random.choice((MAC, b"\xff" * 6)), tag=tag))
                driver.received(mask=BACK)
            case 3:
                driver.set(random.choice(("ICS", "IMC", "IMS")), random.choice((1, 4, 0x80, 0x10)))
                driver.step(200_000)
                driver.pin()
            case 4:
                for name in ("TDH", "RDH", "TPT", "TPR", "GPTC", "BPTC", "MPTC", "PTC64", "PTC1522", "IMS"):
                    driver.get(name, noted=name not in {"PTC64", "PTC1522"})
            case 5:
                driver.get("ICR")
                driver.step(200_000)
                driver.pin()


SCRIPTS = (
    identity,
    registers,
    eeprom_and_phy,
    link,
    interrupts,
    sending,
    segmentation,
    counting,
    receiving,
    tags,
    thresholds,
    anything,
)


@pytest.mark.needs("qemu-system-x86_64")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_it_agrees_with_qemu(script: Callable[[Driver], None], tmp_path: Path) -> None:
    made, net = ours()
    wire = QemuWire(str(tmp_path))
    with qemu(*PC, *wire.option, guest=True) as theirs:
        logs = []
        both: tuple[tuple[Bus, Wire], ...] = (Ours(made), net), (theirs, wire)
        for bus, peer in both:
            driver = Driver(bus, peer)
            bus.log.clear()
            script(driver)
            logs.append(list(bus.log))
    wire.close()
    for number, (mine, other) in enumerate(zip(*logs, strict=False)):
        assert mine == other, f"{number}: {mine[0]} {mine[1]:#x} {mine[2]}: {mine[3]:#x}, qemu {other[3]:#x}"
    assert len(logs[0]) == len(logs[1])
