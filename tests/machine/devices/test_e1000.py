"""Drivers of the 82540EM, from Intel's manual, through memory map, ports and the pin only."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.devices.e1000 import E1000
from dbt.machine.errors import MapError
from dbt.machine.memory import RAM
from dbt.machine.net.backend import MemoryNet
from dbt.machine.pci import PciBus

from tests.machine.e1000 import (
    EN,
    EOP,
    IDE,
    IFCS,
    LSC,
    RS,
    RXT0,
    SECRC,
    TXDW,
    TXQE,
    build,
    check_segments,
    errors,
    segments,
)
from tests.machine.frames import MAC, ethernet
from tests.machine.fuzzing import fuzz
from tests.machine.pci import RAM_AT, machine, poke

if TYPE_CHECKING:
    from dbt.machine.device import Device
    from dbt.machine.machine import Machine

MILLISECOND = 1_000_000
VME, RST, PHY_RST, RFCE = 1 << 30, 1 << 26, 1 << 31, 1 << 27


def test_probe_and_io_space() -> None:
    driver, _, _ = build()
    function = driver.function
    assert {index: size for index, (_, size) in function.bars.items()} == {0: 0x20000, 1: 0x40}
    assert (function.read(8) >> 8, function.read(0x3D, 1), function.read(0x2C)) == (0x020000, 1, 0x1100_1AF4)
    ports = function.bars[1][0]
    driver.bus.out(ports, 0x5400, 4)
    assert driver.bus.inp(ports + 4, 4) == driver.get("RAL") == int.from_bytes(MAC[:4], "little")
    driver.bus.out(ports, 0x38, 4)
    driver.bus.out(ports + 4, 0x88A8, 4)
    assert driver.get("VET") == 0x88A8
    driver.bus.out(ports, 0x20000, 4)
    assert driver.bus.inp(ports + 4, 4) == 0
    driver.bus.out(ports + 4, 1, 4)
    assert errors(driver) == 2
    assert driver.bus.read(driver.base + 0x5400, 8) == int.from_bytes(MAC, "little") | 1 << 63


def test_eeprom() -> None:
    driver, _, _ = build()
    words = driver.eeprom_read(0, 64)
    assert b"".join(word.to_bytes(2, "little") for word in words[:3]) == MAC
    assert (words[0x0D], words[0x0E], sum(words) & 0xFFFF) == (0x100E, 0x8086, 0xBABA)
    assert [driver.eerd(word) for word in range(64)] == words
    driver.set("EERD", 64 << 8 | 1)
    assert driver.get("EERD") >> 16 == 0xFFFF
    driver.eeprom_command(0b101_000001 << 16 | 0xABCD, 25)  # before EWEN
    driver.set("EECD", 0)
    assert driver.eerd(1) == words[1]
    for command, bits in ((0b100_110000, 9), (0b101_000001 << 16 | 0xABCD, 25), (0b111_000010, 9)):
        driver.eeprom_command(command, bits)
        driver.set("EECD", 0)
    assert [driver.eerd(word) for word in (1, 2)] == [0xABCD, 0xFFFF]
    driver.set("CTRL_EXT", 1 << 13)
    assert driver.get("RAL") >> 16 == 0xABCD
    driver.eeprom_command(0b100_010000 << 16 | 0x1111, 25)
    driver.set("EECD", 0)
    assert driver.eeprom_read(63) == [0x1111]
    driver.eeprom_command(0b100_100000)
    driver.set("EECD", 0)
    driver.eeprom_command(0b100_000000)
    driver.set("EECD", 0)
    driver.eeprom_command(0b101_000001 << 16 | 0xABCD, 25)
    driver.set("EECD", 0)
    assert driver.eerd(1) == 0xFFFF


def test_phy_and_link() -> None:
    driver, nic, net = build()
    assert (driver.phy_read(2), driver.phy_read(3)) == (0x0141, 0x0C20)
    assert driver.phy_read(1) & 0x24 == 0x24
    assert driver.get("STATUS") & 0xC3 == 0x83
    assert driver.phy_read(2, phy=2) == driver.phy_read(31) == 1 << 30
    assert driver.phy_write(2, 0) == 1
    driver.set("IMS", LSC)
    net.set_link(up=False)
    assert driver.pin()
    assert driver.get("ICR") == LSC
    assert not driver.get("STATUS") & 2
    net.set_link(up=True)
    driver.step(499 * MILLISECOND)
    assert not driver.get("STATUS") & 2
    driver.step(2 * MILLISECOND)
    assert driver.get("STATUS") & 2
    assert driver.get("ICR") == LSC
    assert [driver.phy_read(1) & 4 for _ in range(2)] == [0, 4]
    # No gigabit: 100 Mb/s; then forced
    driver.phy_write(18, 0x0400)
    driver.set("IMS", 1 << 12)
    driver.phy_write(9, 0)
    driver.phy_write(0, 0x1340)
    driver.step(501 * MILLISECOND)
    assert driver.get("STATUS") & 0xC3 == 0x43
    assert driver.get("ICR") == LSC | 1 << 12
    assert driver.phy_read(17) & 0xFC00 == 0x6C00
    assert driver.phy_read(19) & 0x400
    driver.phy_write(0, 0x0000)
    assert driver.get("STATUS") & 0xC1 == 0
    for power in (0x0800, 0x0000):
        driver.phy_write(0, power)
        assert driver.get("STATUS") & 2 == (0 if power else 2)
    driver.set("CTRL", driver.get("CTRL") | PHY_RST)
    assert not nic.link
    driver.set("CTRL", driver.get("CTRL", noted=False) & ~PHY_RST)
    driver.step(501 * MILLISECOND)
    assert driver.get("STATUS") & 0xC3 == 0x83
    driver.phy_write(0, 0x9140)
    assert (driver.phy_read(0), nic.link) == (0x1140, 0)
    driver.set("CTRL", driver.get("CTRL") & ~0x40)
    driver.step(501 * MILLISECOND)
    assert not driver.get("STATUS") & 2


def test_moderation() -> None:
    driver, _, net = build()
    driver.start(rx=64)
    frame = ethernet(0x1234, b"")
    driver.set("IMS", RXT0 | TXDW)
    driver.set("ITR", 1000)  # 256 us
    net.give(frame)
    assert driver.pin()
    assert driver.get("ICR") == RXT0
    net.give(frame)
    assert not driver.pin()
    driver.step(255_000)
    assert not driver.pin()
    driver.step(2000)
    assert driver.pin()
    driver.get("ICR")
    driver.set("ITR", 0)
    # Packet delay 100, absolute 300, in 1.024 us
    driver.set("RDTR", 100)
    driver.set("RADV", 300)
    for _ in range(3):
        net.give(frame)
        driver.step(90_000)
        assert not driver.get("ICR")
    net.give(frame)
    driver.step(36_000)
    assert not driver.get("ICR")
    driver.step(2000)
    assert driver.get("ICR") == RXT0  # absolute
    net.give(frame)
    driver.step(103_000)
    assert driver.get("ICR") == RXT0
    net.give(frame)
    driver.set("RDTR", 1 << 31 | 100)
    assert driver.get("ICR") == RXT0
    # Transmit: IDE
    driver.set("TIDV", 100)
    driver.set("TADV", 150)
    driver.send(frame, EOP | IFCS | RS | IDE)
    assert driver.get("ICR") == TXQE
    driver.step(90_000)
    driver.send(frame, EOP | IFCS | RS | IDE)
    driver.step(65_000)
    assert driver.get("ICR") == TXDW | TXQE
    driver.send(frame, EOP | IFCS | RS | IDE)
    driver.send(frame, EOP | IFCS | RS)
    assert driver.get("ICR") & TXDW
    driver.step(MILLISECOND)
    assert not driver.get("ICR")
    driver.send(frame, EOP | IFCS | RS | IDE)
    driver.set("TIDV", 1 << 31 | 1)
    assert driver.get("ICR") & TXDW


def test_loop_back() -> None:
    driver, _, net = build()
    driver.start()
    driver.phy_write(0, 0x4140)
    frame = ethernet(0x1234, b"to myself".ljust(50))
    driver.send(frame)
    assert driver.sent() == []
    assert driver.received()[0][1] == frame
    header, start = segments(driver, "tcp4", bytes(3000), 1460, [])
    driver.kick()
    check_segments([data for _, data in driver.received(3)], header, start, bytes(3000), 1460, False)
    driver.phy_write(0, 0x1140)
    driver.set("RCTL", EN | 1 << 6 | SECRC)
    driver.send(frame)
    assert driver.received()[0][1] == frame
    assert net.sent == []


def test_reset_in_the_middle() -> None:
    driver, nic, net = build(limit=1)
    driver.start(tx=16)
    driver.set("PBA", 0x20)
    driver.set("IMS", 0xFF)
    segments(driver, "tcp4", bytes(3000), 1460, [])
    driver.send(bytes(60), RS)
    driver.send(bytes(60))
    driver.send(bytes(60))
    assert driver.pin()
    driver.set("CTRL", driver.get("CTRL") | RST)
    assert not driver.pin()
    assert (driver.get("TDT"), driver.get("RCTL"), driver.get("IMS"), driver.get("PBA") & 0xFFFF) == (0, 0, 0, 0x20)
    assert (driver.get("STATUS") & 2, driver.get("RAH"), bytes(nic.gathered)) == (2, 0x8000_5634, b"")
    net.limit = 100
    while net.take():
        pass
    driver.start()
    driver.send(ethernet(0x1234, bytes(50)))
    assert driver.sent() == [ethernet(0x1234, bytes(50))]
    net.give(ethernet(0x1234, bytes(50)))
    assert driver.received()[0][1] == ethernet(0x1234, bytes(50))


def test_no_bus_master_no_transfer() -> None:
    driver, _, net = build()
    driver.start()
    driver.function.enable(master=False)
    driver.send(bytes(60))
    assert (net.give(ethernet(0x1234, b"")), driver.get("TDH")) == (False, 0)
    driver.function.enable()
    assert len(driver.sent()) == 1
    assert driver.received()


@pytest.mark.parametrize("when", range(4))
def test_saved_and_restored_in_the_middle(when: int) -> None:
    """Of a segmented packet, of a packet in pieces, of delays: what comes then is the same."""
    results = []
    for restored in (False, True):
        driver, nic, net = build(limit=3 if when == 0 else 100)
        driver.start(tx=64)
        driver.set("IMS", 0xFF)
        driver.set("RDTR", 100)
        driver.set("ITR", 1000)
        payload = Random(5).randbytes(150_000)
        segments(driver, "tcp4", payload, 1448, [100, 66_000])
        if when == 1:
            driver.tail -= 1
        driver.kick()
        net.give(ethernet(0x1234, b"waiting"))
        if when == 2:
            driver.phy_write(0, 0x1340)
        if when == 3:
            driver.eeprom_command(0b11000, 5)
        before = net.take() if when else []
        if restored:
            saved = json.loads(json.dumps(nic.machine.save()))
            ram = driver.bus.load(RAM_AT, 16 << 20)
            leaving = net
            driver, nic, net = build()
            driver.bus.store(RAM_AT, ram)
            net.sent = leaving.sent
            net.offloads = leaving.offloads
            net._leaving = leaving._leaving  # the network is not the card's
            nic.machine.restore(saved)
            assert nic.save() == saved["devices"]["nic"]
        net.limit = 1000
        if when == 1:
            driver.set("TDT", 4)
        if when == 3:
            driver.eeprom_bits(0b0010, 4)
            driver.set("EECD", 0x43)
            driver.get("EECD")
        net.room()
        for _ in range(200):
            driver.step(10_000)
        driver.step(600 * MILLISECOND)
        frames = before + net.take()
        registers = [driver.get(name) for name in ("ICR", "RDH", "STATUS", "TPT", "EECD")]
        results.append((b"".join(frame[54:] for frame in frames), registers, driver.pin()))
        assert len(results[-1][0]) == 150_000 or when == 2
    assert results[0] == results[1]


def test_impossible_ones() -> None:
    made, bus = machine()
    with pytest.raises(MapError, match="no address"):
        E1000("nic", made, bus=bus, slot=2, mac=b"\1\2\3\4\5\6")


def test_random_traffic() -> None:
    net = MemoryNet(limit=50)

    def build_one(made: Machine) -> E1000:
        nonlocal net
        up, net = net.up, MemoryNet(limit=50)
        net.up = up
        made.place(RAM("ram", 1 << 20), RAM_AT << 8)
        return E1000("nic", made, bus=PciBus("pci", made), slot=1, net=net)

    def also(device: Device, random: Random) -> None:
        assert isinstance(device, E1000)
        choice = random.randrange(12)
        ram = RAM_AT << 8
        if choice < 2:
            poke(device, random)
        elif choice < 4:
            net.give(random.choice((MAC, b"\xff" * 6)) + random.randbytes(random.choice((54, 54, 200, 1500, 5000))))
            net.waiting.clear()
        elif choice < 6:
            net.take()
        elif choice < 7:
            net.set_link(up=bool(random.randrange(4)))
        elif choice < 9:
            for ring in ("T", "R"):
                values = {"DBAL": ram & 0xFFFF_FFFF, "DBAH": ram >> 32, "DLEN": random.choice((128, 512, 0x1000))}
                for name, value in values.items():
                    device.__dict__[ring + name] = value
                for name in ("DH", "DT"):
                    device.__dict__[ring + name] = random.randrange(40)
            device.fetched.clear()
            device.RCTL |= EN
            device.TCTL |= EN
        else:
            memory = device.machine.memory
            for _ in range(8):
                at = ram + 16 * random.randrange(64)
                memory.write(at, 8, ram + random.randrange(1 << 20) if random.randrange(8) else random.getrandbits(64))
                memory.write(at + 8, 8, descriptor(random))
            device.transmit()

    def descriptor(random: Random) -> int:
        """Mostly one that means something."""
        if not random.randrange(4):
            return random.getrandbits(64)
        lower = random.choice((20, 54, 60, 1500, 9000, 0xFFFF)) | random.randrange(256) << 24
        if lower >> 29 & 1:
            lower = lower & ~0xF0_0000 | random.randrange(3) << 20
        return lower | random.choice((0, 0x300, 54 << 8, 42 << 8)) << 32 | random.choice((0, 1, 100, 1448)) << 48

    made = fuzz(build_one, 500, also=also)
    assert made.devices["nic"].__dict__["gathered"] is not None
