"""What a driver of the 82540EM sends."""

from __future__ import annotations

import json
from random import Random

import pytest
from dbt.machine.net.offload import CSUM, TSO4, Offload

from tests.machine.e1000 import (
    EOP,
    IFCS,
    RS,
    TSE,
    TX_BUFFERS,
    TX_RING,
    TXDW,
    TXQE,
    VLE,
    build,
    check_segments,
    errors,
    segments,
)
from tests.machine.frames import checksum, ethernet, half_summed, ip4, ip6, pseudo, summed, tcp, udp

MILLISECOND = 1_000_000
VME, RST, PHY_RST, RFCE = 1 << 30, 1 << 26, 1 << 31, 1 << 27


def test_send_and_what_is_written_back() -> None:
    driver, _, _ = build()
    driver.start(tx=8)
    frame = ethernet(0x0800, b"a frame")
    for turn in range(20):  # round and round
        driver.send(frame + bytes([turn]), EOP | IFCS | (RS if turn & 1 else 0))
        assert driver.sent() == [(frame + bytes([turn])).ljust(60, b"\0")]
        assert driver.bus.load(TX_RING + 16 * (turn % 8) + 12, 1)[0] == turn & 1
        assert driver.get("ICR") | TXQE == (TXDW | TXQE if turn & 1 else TXQE)
        assert driver.get("TDH") == (turn + 1) % 8
    assert (driver.get("TPT"), driver.get("TPT"), driver.get("TOTL")) == (20, 0, 1280)
    assert driver.get("TOTH") == driver.get("TOTL") == 0
    # In pieces, without the check sequence inserted, with a checksum
    whole = ethernet(0x0800, half_summed(ip4(udp(b"x" * 64), 17), whole=True))
    driver.queue(
        (driver.put(whole[:3]), 3, 0), (driver.put(whole[3:], 4096), len(whole) - 3 | 0x07 << 24 | 40 << 16, 34 << 8)
    )
    driver.kick()
    assert driver.sent() == [ethernet(0x0800, summed(ip4(udp(b"x" * 64), 17)))]
    driver.send(whole + b"CRCC", EOP)
    assert driver.sent() == [whole]
    driver.set("TCTL", 2)
    driver.send(b"tiny" * 8)
    assert driver.sent() == [b"tiny" * 8]
    driver.set("TCTL", 0)
    driver.send(whole)
    assert driver.sent() == []
    driver.set("TCTL", 2)
    assert driver.sent() == [whole]


def test_many_frames_leave_in_turns() -> None:
    driver, nic, net = build()
    driver.start(tx=256)
    frame = driver.put(bytes(100))
    driver.queue(*[(frame, 100 | 0x0B << 24, 0)] * 255)
    driver.kick()
    assert 10 < len(net.sent) < 100
    saved = json.loads(json.dumps(nic.machine.save()))
    driver.step(0)
    nic.machine.restore(saved)
    driver.step(0)
    driver.step(0)
    assert driver.get("TDH") == 255
    assert len(net.take()) > 255


def test_a_full_network_holds_the_ring() -> None:
    driver, _, net = build(limit=2)
    driver.start(tx=8)
    piece = driver.put(bytes(50))
    driver.queue(*[(piece, 50 | command << 24, 0) for command in (RS, 0x0B)] * 3)
    driver.kick()
    assert (driver.get("TDH"), len(net.take())) == (5, 2)
    assert driver.get("TDH") == 6
    assert [len(frame) for frame in net.take()] == [100]


@pytest.mark.parametrize("offers", [0, CSUM])
def test_checksums_and_tags(offers: int) -> None:
    driver, _, net = build(offers)
    driver.start()
    driver.set("CTRL", driver.get("CTRL") | VME)
    for packet, size in ((ip4(tcp(b"x" * 333), 6, summed=False), 20), (ip6(udp(b"yz" * 100), 17), 40)):
        field = 14 + size + (16 if size == 20 else 6)
        driver.context((14, 24, 13 + size), (14 + size, field, 0))
        frame = ethernet(0x0800 if size == 20 else 0x86DD, half_summed(packet, whole=True))
        driver.data([frame[:50], frame[50:]], IFCS | RS | VLE, 3 if size == 20 else 2, special=77)
        driver.kick()
        good = summed(ip4(tcp(b"x" * 333), 6) if size == 20 else packet)
        offloads = list(net.offloads)
        (sent,) = driver.sent()
        if offers:
            assert offloads == [Offload(needs_csum=True, csum_start=18 + size, csum_offset=field - 14 - size)]
            assert sent[18 : 18 + size] == good[:size]
        else:
            assert sent == ethernet(int.from_bytes(frame[12:14], "big"), good, tag=77)
    # Checksums that are out of the frame are not inserted; one that ends before the frame
    driver.context((200, 24, 0), (14, 250, 0))
    driver.data([bytes(100)], IFCS, 3)
    driver.context((14, 24, 33), (40, 58, 79))
    driver.data([bytes(60) + bytes(range(40))], IFCS, 2, at=4096)
    driver.kick()
    first, second = driver.sent()
    assert first == bytes(100)
    assert checksum(second[40:80]) == 0


@pytest.mark.parametrize(
    ("kind", "total", "mss"),
    [("tcp4", 4000, 1460), ("tcp4", 2920, 1460), ("tcp4", 5, 1460), ("tcp6", 9000, 1200), ("udp4", 3000, 900),
     ("tcp4", 200_000, 1448), ("tcp4", 3000, 20)],
)  # fmt: skip
def test_segmentation(kind: str, total: int, mss: int) -> None:
    driver, _, _ = build()
    driver.start(tx=64)
    driver.set("CTRL", driver.get("CTRL") | VME)
    random = Random(total)
    payload = random.randbytes(total)
    cuts = sorted(random.sample(range(total), 4))
    tagged = total != 4000
    header, start = segments(driver, kind, payload, mss, cuts, tagged)
    driver.kick()
    frames = driver.sent()
    check_segments(frames, header, start, payload, mss, tagged)
    assert len(frames) == -(-total // mss) == driver.get("TPT")
    assert driver.get("TOTL") == sum(len(frame) + 4 for frame in frames)
    assert (driver.get("TSCTC"), driver.get("TSCTFC"), errors(driver)) == (1, 0, 0)


def test_segmentation_that_the_network_does() -> None:
    driver, _, net = build(offers=CSUM | TSO4, limit=2)
    driver.start(tx=64)
    payload = Random(1).randbytes(200_000)
    header, start = segments(driver, "tcp4", payload, 1448, [70_000])
    driver.kick()
    whole: list[tuple[bytes, Offload | None]] = []
    while driver.get("TDH") != driver.tail or net.sent:
        whole += zip(net.sent, net.offloads, strict=True)
        driver.step(0)
        net.take()
        driver.step(0)
    assert len(whole) == 4
    at = 0
    for frame, offload in whole:
        assert offload == Offload(needs_csum=True, csum_start=34, csum_offset=16, gso_type=1, gso_size=1448, hdr_len=54)
        assert checksum(frame[14:34]) == 0
        assert int.from_bytes(frame[16:18], "big") == len(frame) - 14
        assert int.from_bytes(frame[50:52], "big") ^ 0xFFFF == checksum(pseudo(frame[14:], 6, len(frame) - start))
        at += len(frame) - len(header)
    assert at == 200_000


def test_contexts_that_make_no_sense() -> None:
    driver, _, net = build()
    driver.start(tx=64)
    for header, mss, start in (
        (54, 0, 34),
        (20, 100, 34),
        (54, 0xFFFF, 34),
        (54, 100, 50),
        (90, 100, 34),
        (255, 100, 0),
    ):
        driver.context((14, 24, 33), (start, start + 16, 0), command=3 | TSE, payload=80, header=header, mss=mss)
        driver.data([bytes(80)], IFCS | RS | TSE, 3)
    driver.kick()
    assert driver.sent() == []
    assert errors(driver) == 6
    driver.queue((TX_BUFFERS, 0x20 << 24 | 7 << 20, 0))  # a type that is none
    driver.queue(*[(TX_BUFFERS, 0xFFFF, 0)] * 3, (TX_BUFFERS, 100 | 1 << 24, 0))  # too long
    driver.queue((0xFFFF_FFFF_0000, 100 | 0x0B << 24, 0), (TX_BUFFERS, 0x0B << 24, 0))
    driver.kick()
    assert driver.sent() == []
    assert errors(driver) == 9
    driver.set("TDT", 64)
    driver.set("TDT", 0xFFFF)
    assert (errors(driver), net.sent) == (11, [])


def test_frames_and_headers_that_are_too_short() -> None:
    driver, _, _ = build()
    driver.start()
    driver.set("TCTL", 2)  # no padding
    for frame in (b"a", b"four"):
        driver.send(frame, EOP | RS)  # nothing is left without a check sequence
    assert (driver.sent(), errors(driver)) == ([], 0)
    driver.context((14, 24, 33), (34, 40, 0), command=TSE, payload=0, header=42, mss=100)  # IPv6 in 20 bytes
    driver.data([bytes(42)], IFCS | RS | TSE, 2)
    driver.send(bytes(60))
    assert (driver.sent(), errors(driver)) == ([bytes(60)], 1)
