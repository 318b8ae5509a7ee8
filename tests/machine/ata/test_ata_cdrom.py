"""CD-ROM drives: what comparing with QEMU's does not show. Media that change, locks, errors, raw sectors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dbt.machine.ata import AtapiDrive, raw
from dbt.machine.block import READ
from dbt.machine.devices.ide import IdeChannel
from dbt.machine.machine import PORTS, Machine

from tests.machine.ata_driver import BLOCK, CONTROL, Ata
from tests.machine.ata_machines import DATA, DISC, FaultyDisk, memory_disk
from tests.machine.qtest import Ours

if TYPE_CHECKING:
    from dbt.machine.block import Disk


def build(disk: Disk | None) -> tuple[Ata, AtapiDrive, Machine]:
    machine = Machine()
    drive = AtapiDrive("cd", machine, disk)
    channel = IdeChannel("ide", machine, drives=(drive,))
    machine.place(channel, BLOCK, PORTS, "BLOCK")
    machine.place(channel, CONTROL, PORTS, "CONTROL_BLOCK")
    machine.reset()
    ata = Ata(Ours(machine))
    ata.select(0)
    return ata, drive, machine


def disc(seed: int = 0) -> FaultyDisk:
    return memory_disk(DISC, DATA[seed:], writable=False)


class Mmc:
    """Packet commands by name, and their sense data."""

    def __init__(self, ata: Ata) -> None:
        self.ata = ata

    def run(self, packet: str) -> tuple[bytes, tuple[int, int, int] | None]:
        """Data, and (key, code, qualifier) if the command ended with a check condition."""
        data, error = self.ata.packet_in(bytes.fromhex(packet))
        if not error:
            return data, None
        found, _ = self.ata.packet_in(bytes.fromhex("030000001200"))
        assert found[2] == error >> 4
        self.information = int.from_bytes(found[3:7], "big") if found[0] & 0x80 else None
        return data, (found[2], found[12], found[13])

    def ready(self) -> tuple[int, int, int] | None:
        return self.run("00")[1]

    def event(self) -> tuple[int, int]:
        """What has happened to the disc, and how it is."""
        data, _ = self.run("4a0100001000000008")
        return data[4], data[5]


def test_a_drive_reports_its_reset_once() -> None:
    ata, _, _ = build(disc())
    mmc = Mmc(ata)
    assert mmc.run("120000002400")[1] is None  # INQUIRY is answered all the same
    assert (mmc.ready(), mmc.ready()) == ((6, 0x29, 0), None)


def test_discs_come_and_go() -> None:
    ata, drive, machine = build(None)
    mmc = Mmc(ata)
    mmc.ready()
    assert mmc.ready() == (2, 0x3A, 0)
    assert mmc.event() == (0, 0)
    assert drive.change(disc())
    assert mmc.event() == (2, 2)
    assert (mmc.ready(), mmc.ready()) == ((6, 0x28, 0), None)
    assert mmc.run("25")[0] == (DISC // 2048 - 1).to_bytes(4, "big") + (2048).to_bytes(4, "big")
    assert mmc.run("280000000000000001")[0] == DATA[:2048]
    assert drive.change(disc(4096))
    assert mmc.run("280000000000000001")[1] == (6, 0x28, 0)
    assert mmc.run("280000000000000001")[0] == DATA[4096:6144]
    mmc.run("1e0000000100")  # locked
    assert not drive.change(None)
    assert mmc.event() == (1, 2)  # eject request
    assert mmc.run("1b0000000200")[1] == (5, 0x53, 2)
    assert drive.change(disc(2048), force=True)
    mmc.ready()
    mmc.run("1e00")
    assert mmc.run("1b0000000200")[1] is None  # the tray opens
    assert (mmc.ready(), mmc.event(), mmc.run("bd00000000000000000800")[0][1]) == ((2, 0x3A, 2), (3, 1), 0x10)
    assert mmc.run("5a003f00000000000800")[0][2] == 0x71
    assert mmc.run("1b0000000300")[1] is None  # and closes
    assert (mmc.ready(), mmc.ready()) == ((6, 0x28, 0), None)
    mmc.run("1e0000000100")
    ata.bus.out(CONTROL, 4)  # a reset unlocks
    ata.bus.out(CONTROL, 0)
    assert drive.change(None)
    machine.restore(json.loads(json.dumps(machine.save())))


def test_reading_errors_name_the_sector() -> None:
    bad = disc()
    ata, _, _ = build(bad)
    mmc = Mmc(ata)
    mmc.ready()
    bad.bad = frozenset({(READ, 4 * 5 + 1)})
    data, sense = mmc.run("280000000000000008")
    assert (data, sense, mmc.information) == (b"", (3, 0x11, 0), 5)
    bad.bad = frozenset()
    assert mmc.run("280000000000000008")[0] == DATA[: 8 * 2048]
    assert mmc.run("2800000003ff000002")[1] == (5, 0x21, 0)


def test_a_disc_taken_out_in_the_middle_of_a_reply() -> None:
    ata, drive, _ = build(disc())
    mmc = Mmc(ata)
    mmc.ready()
    ata.packet(bytes.fromhex("280000000000000004"), limit=2048)
    assert ata.wait() == 0x58
    drive.change(None)
    ata.take(2048)
    assert ata.wait() == 0x41
    assert ata.registers()[0] == 0x20
    assert mmc.ready() == (2, 0x3A, 0)


def test_wrong_packets() -> None:
    ata, _, _ = build(disc())
    mmc = Mmc(ata)
    mmc.ready()
    for packet, code in (
        ("120100000500", None), ("120180000500", 0x24), ("5a00c000000000000800", 0x39), ("5a000500000000000800", 0x24),
        ("4a0000001000000008", 0x24), ("460300000000000008", 0x24), ("430009000000000008", 0x24), ("ff", 0x20),
        ("be0400000000000001f800", 0x64), ("be000000000000000100f801", None), ("be0000000000000001f801", 0x24),
        ("510100000000000022", 0x24), ("2bffffffffff", 0x21),
    ):  # fmt: skip
        sense = mmc.run(packet)[1]
        assert sense == (None if code is None else (5, code, 0)), packet


def test_mode_pages_and_features() -> None:
    ata, _, _ = build(disc())
    mmc = Mmc(ata)
    mmc.ready()
    short = mmc.run("1a003f00ff00")[0]
    long = mmc.run("5a003f0000000000ff00")[0]
    assert (short[4:], short[0], long[0:2]) == (long[8:], len(short) - 1, (len(long) - 2).to_bytes(2, "big"))
    unchangeable = mmc.run("5a007f0000000000ff00")[0]
    assert sum(unchangeable[8:]) == 0x01 + 6 + 0x0E + 14 + 0x2A + 20
    features = mmc.run("46000000000000ffff00")[0]
    assert int.from_bytes(features[:4], "big") == len(features) - 4
    assert features[6:8] == bytes((0, 8))  # a CD
    assert mmc.run("46020003000000ffff00")[0][8:10] == bytes((0, 3))
    assert len(mmc.run("460200ff000000ffff00")[0]) == 8
    toc = mmc.run("43000100000000ffff00")[0]
    assert toc == bytes((0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0))


def parity_is_right(sector: bytes) -> bool:
    """Whether all words of P and Q have the roots 1 and 2 (ECMA-130, annex A)."""
    body = sector[12:]
    columns = [[column + 86 * row for row in range(26)] for column in range(86)]
    for n in range(52):
        diagonal = [(43 * (n >> 1) + 44 * step) % 1118 * 2 + (n & 1) for step in range(43)]
        columns.append([*diagonal, 2236 + n, 2288 + n])
    for column in columns:
        plain = weighted = 0
        for index in column:
            plain ^= body[index]
            weighted = (weighted << 1 ^ (0x11D if weighted & 0x80 else 0)) ^ body[index]
        if plain or weighted:
            return False
    return True


def test_raw_sectors() -> None:
    """READ CD: sync, header, user data, codes; in pieces that are no sectors; and parts of it."""
    ata, _, _ = build(disc())
    mmc = Mmc(ata)
    mmc.ready()
    data = b"".join(ata.packet_in(bytes.fromhex("be0000000010000003f80000"), limit=limit)[0] for limit in (0xFFFE,))
    assert len(data) == 3 * 2352
    for n in range(3):
        sector = data[2352 * n : 2352 * (n + 1)]
        assert sector[:16] == b"\0" + b"\xff" * 10 + b"\0" + bytes((0, 2, 0x16 + n, 1))
        assert sector[16:2064] == DATA[2048 * (16 + n) : 2048 * (17 + n)]
        assert sector[2064:2068] == raw.edc(sector[:2064]).to_bytes(4, "little")
        assert sector[2068:2076] == bytes(8)
        assert parity_is_right(sector)
    assert ata.packet_in(bytes.fromhex("be0000000010000003f80000"), limit=1000)[0] == data
    parts = ata.packet_in(bytes.fromhex("be0000000010000002300000"))[0]
    assert parts == data[12:2064] + data[2352 + 12 : 2352 + 2064]
    assert raw.edc(b"") == 0
    # The check of the code itself: what is divided with its remainder leaves none.
    assert raw.edc(data[:2068]) == 0


def test_saved_in_the_middle_of_a_reply() -> None:
    ata, _, machine = build(disc())
    mmc = Mmc(ata)
    mmc.ready()
    ata.packet(bytes.fromhex("280000000003000004"), limit=3000)
    assert ata.wait() == 0x58
    first = ata.take(1234)
    other, _, copy = build(disc())
    copy.restore(json.loads(json.dumps(machine.save())))
    rest = other.take(3000 - 1234)
    while other.wait() & 8:
        rest += other.take(other.bus.inp(BLOCK + 4) | other.bus.inp(BLOCK + 5) << 8)
    assert first + rest == DATA[3 * 2048 : 7 * 2048]
