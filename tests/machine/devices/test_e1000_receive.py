"""What a driver of the 82540EM gets."""

from __future__ import annotations

import struct
import zlib
from random import Random

from tests.machine.e1000 import (
    BAM,
    EN,
    LPE,
    MPE,
    RXDMT0,
    RXO,
    RXT0,
    SECRC,
    TX_BUFFERS,
    build,
)
from tests.machine.frames import MAC, OTHER, checksum, ethernet, ip4, ip6, summed, tcp, udp

MILLISECOND = 1_000_000
VME, RST, PHY_RST, RFCE = 1 << 30, 1 << 26, 1 << 31, 1 << 27


def test_receive_and_filters() -> None:
    driver, _, net = build()
    driver.start(rx=16)
    driver.set("IMS", RXT0)
    plain = ethernet(0x0800, b"to you")
    assert net.give(plain)
    assert driver.pin()
    assert driver.get("ICR") == RXT0
    ((back, data),) = driver.received()
    assert (data, back[4]) == (plain.ljust(60, b"\0"), 7)

    def passes(target: bytes) -> bool:
        before = driver.get("RDH")
        net.give(ethernet(0x1234, b"", target))
        if driver.get("RDH") == before:
            return False
        driver.received()
        return True

    group, other = b"\1\0\x5e\1\2\3", b"\2\0\0\0\0\7"
    assert [passes(target) for target in (MAC, other, group, b"\xff" * 6)] == [True, False, False, True]
    driver.set("RAL", 2, 15)
    driver.set("RAH", 0x8000_0700, 15)
    assert passes(other)
    driver.set("RAH", 0x0700, 15)
    for offset, shift in ((0, 4), (1, 3), (2, 2), (3, 0)):
        driver.set("RCTL", EN | SECRC | offset << 12)
        hashed = (group[5] << 8 | group[4]) >> shift & 0xFFF
        assert not passes(group)
        driver.set("MTA", 1 << (hashed & 31), hashed >> 5)
        assert (passes(group), passes(b"\xff" * 6)) == (True, False)
        driver.set("MTA", 0, hashed >> 5)
    driver.set("RCTL", EN | SECRC | 8)
    assert [passes(target) for target in (other, group)] == [True, False]
    driver.set("RCTL", EN | SECRC | MPE)
    assert [passes(target) for target in (other, group)] == [False, True]
    driver.set("RCTL", 0)
    assert not passes(MAC)
    assert driver.get("BPRC") == 1
    assert driver.get("MPRC") == 5


def test_buffers_of_all_sizes() -> None:
    driver, _, net = build()
    sizes = {0: 2048, 1 << 16: 1024, 2 << 16: 512, 3 << 16: 256, 1 << 16 | 1 << 25: 16384, 2 << 16 | 1 << 25: 8192,
             3 << 16 | 1 << 25: 4096}  # fmt: skip
    for bits, size in sizes.items():
        driver.start(rx=64, control=SECRC | LPE | bits, buffers=size)
        for length in (min(size, 16380), size + 1 if size < 16384 else 300, 9000):
            frame = Random(length).randbytes(length)
            assert net.give(MAC + frame[6:])
            parts = driver.received(-(-length // size))
            assert b"".join(data for _, data in parts) == MAC + frame[6:]
            assert [back[4] & 3 for back, _ in parts] == [1] * (len(parts) - 1) + [3]
    # Too long without LPE; the check sequence; a descriptor of no buffer
    driver.start(rx=64, control=BAM)
    assert net.give(ethernet(0x800, bytes(1505)))
    assert driver.get("ROC") == 1
    driver.provide(0, 1, 0)
    frame = ethernet(0x800, b"x" * 50)
    assert net.give(frame)
    (empty, _), (_, data) = driver.received(2)
    assert empty[:6] == b"\0\0" + empty[2:4] + b"\1\0"
    assert data == frame + zlib.crc32(frame).to_bytes(4, "little")


def test_overrun_and_what_waits() -> None:
    driver, _, net = build()
    driver.start(rx=8, control=SECRC | LPE | 3 << 16, buffers=256)
    for number in range(9):
        assert net.give(ethernet(0x800, bytes([number]) * 50)) == (number < 7)
    assert driver.get("RDH") == 7
    assert [data[14] for _, data in driver.received(7)] == list(range(7))
    assert [data[14] for _, data in driver.received(2)] == [7, 8]
    driver.get("ICR")
    assert net.give(ethernet(0x800, bytes(2000)))  # never fits
    assert driver.get("ICR") == RXO
    assert (driver.get("MPC"), driver.get("RNBC"), driver.get("RDH")) == (1, 1, 1)
    net.give(ethernet(0x800, bytes(1600)))
    assert driver.get("RDH") == 0


def test_a_flood_is_taken_in_turns() -> None:
    driver, _, net = build()
    driver.start(rx=256)
    driver.set("RDT", 0)
    for number in range(300):
        assert not net.give(ethernet(0x800, number.to_bytes(4, "big")))
    driver.set("RDT", 255)
    assert driver.get("RDH") == 64
    driver.step(0)
    driver.step(0)
    driver.step(0)
    assert (driver.get("RDH"), len(net.waiting)) == (255, 45)


def test_tags_are_stripped_and_filtered() -> None:
    driver, _, net = build()
    driver.start(rx=16)
    frame = ethernet(0x1234, bytes(60), tag=0x6025)
    net.give(frame)
    assert driver.received()[0][1] == frame
    driver.set("CTRL", driver.get("CTRL") | VME)
    net.give(frame)
    ((back, data),) = driver.received()
    assert (data, back[4] & 8, back[6:]) == (ethernet(0x1234, bytes(60)), 8, b"\x25\x60")
    driver.set("RCTL", EN | SECRC | 1 << 18)
    net.give(frame)
    assert driver.get("RDH") == 2
    driver.set("VFTA", 1 << 5, 1)
    net.give(frame)
    assert driver.get("RDH") == 3
    driver.set("RCTL", EN | SECRC | 3 << 18)
    net.give(ethernet(0x1234, bytes(60), tag=0x1025))
    assert driver.get("RDH") == 3


def test_receive_checksums() -> None:
    driver, _, net = build()
    driver.start(rx=16)
    driver.set("RXCSUM", 0x300 | 14)
    packet4, packet6 = ip4(tcp(b"abc"), 6), ip6(udp(b"abcd"), 17)
    wrong = packet4[:8] + b"\x3f" + packet4[9:]
    fragment = ip4(b"x" * 30, 17)
    fragment = fragment[:6] + b"\x20\0" + fragment[8:10] + b"\0\0" + fragment[12:]
    fragment = fragment[:10] + struct.pack(">H", checksum(fragment[:20])) + fragment[12:]
    for kind, packet, status, errors_ in (
        (0x0800, summed(packet4), 0x60, 0), (0x0800, summed(packet4, good=False), 0x60, 0x20),
        (0x0800, summed(wrong), 0x60, 0x40), (0x0800, fragment, 0x40, 0), (0x0800, ip4(udp(b"none"), 17), 0x40, 0),
        (0x86DD, summed(packet6), 0x20, 0), (0x86DD, summed(packet6, good=False), 0x20, 0x20),
        (0x0806, bytes(28), 4, 0), (0x0800, ip4(b"", 6, length=2000), 4, 0), (0x0800, b"\x45", 4, 0),
    ):  # fmt: skip
        frame = ethernet(kind, packet)
        net.give(frame)
        ((back, data),) = driver.received()
        assert (back[4] & 0x64, back[5]) == (status, errors_), frame.hex()
        assert int.from_bytes(back[2:4], "big") == checksum(data[14:])
    snap = MAC + OTHER + struct.pack(">H", 8 + len(packet4)) + b"\xaa\xaa\3\0\0\0\x08\0" + summed(packet4)
    net.give(snap)
    assert driver.received()[0][0][4] & 0x64 == 0x60
    driver.set("RXCSUM", 0x100)
    net.give(ethernet(0x0800, summed(packet4)))
    assert driver.received()[0][0][4] & 0x64 == 0x40


def test_thresholds_and_small_packets() -> None:
    driver, _, net = build()
    for bits, least in ((0, 8), (1, 4), (2, 2)):
        driver.start(rx=16, control=SECRC | bits << 8)
        for number in range(15):
            net.give(ethernet(0x1234, b""))
            assert bool(driver.get("ICR") & RXDMT0) == (14 - number <= least)
    driver.set("RSRPD", 64)
    driver.start(rx=16)
    net.give(ethernet(0x1234, b""))
    assert driver.get("ICR") & 1 << 16
    driver.start(tx=64)
    driver.set("TXDCTL", 2 << 25)
    driver.set("TCTL", 0)
    driver.queue(*[(TX_BUFFERS, 60 | 0x03 << 24, 0)] * 20)
    driver.kick()
    driver.set("TCTL", EN)
    assert driver.get("ICR") & 1 << 15


def test_pause_frames() -> None:
    driver, _, net = build()
    driver.start()
    pause = b"\x01\x80\xc2\0\0\1" + OTHER + b"\x88\x08\0\1"
    driver.set("CTRL", driver.get("CTRL") | RFCE)
    net.give(pause + b"\1\0")
    assert driver.get("STATUS") & 0x10
    driver.send(bytes(60))
    assert net.sent == []
    driver.step(256 * 512)
    assert len(driver.sent()) == 1
    net.give(pause + b"\xff\xff")
    driver.send(bytes(60))
    net.give(pause + b"\0\0")
    assert len(driver.sent()) == 1
    assert (driver.get("XOFFRXC"), driver.get("XONRXC"), driver.get("RDH")) == (2, 1, 0)
    net.give(pause[:14] + b"\0\2")
    assert driver.get("FCRUC") == 1
