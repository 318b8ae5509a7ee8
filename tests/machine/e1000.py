"""A driver for the 82540EM, from Intel's manual: it works on our machines and, through qtest, on QEMU's."""

from __future__ import annotations

import socket
import struct
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from dbt.machine.devices.e1000 import E1000
from dbt.machine.devices.e1000_registers import E1000Registers
from dbt.machine.log import GUEST_ERROR, Log
from dbt.machine.net.backend import MemoryNet

from tests.machine.frames import checksum, ethernet, half_summed, ip4, ip6, pseudo, tcp, udp
from tests.machine.pci import RAM_AT, Config, Function, machine
from tests.machine.qtest import Ours

if TYPE_CHECKING:
    from tests.machine.qtest import Bus

MEMORY_AT = 0xE000_0000
TX_RING, RX_RING, TX_BUFFERS, RX_BUFFERS = RAM_AT + 0x1000, RAM_AT + 0x2000, RAM_AT + 0x10_0000, RAM_AT + 0x20_0000
EOP, IFCS, IC, TSE, RS, DEXT, VLE, IDE = 1, 2, 4, 4, 8, 0x20, 0x40, 0x80  # of a descriptor's command
EN, UPE, MPE, LPE, BAM, SECRC = 2, 8, 16, 32, 1 << 15, 1 << 26  # RCTL
TXDW, TXQE, LSC, RXDMT0, RXO, RXT0 = 1, 2, 4, 0x10, 0x40, 0x80

# QEMU's STATUS has bits of PCI Express, CTRL says half duplex, TXQE is set by each write of TDT.
COMPARED = {"STATUS": ~0x8008_0000, "CTRL": ~1, "ICR": ~TXQE}


class Wire(Protocol):
    """The other end of the cable."""

    def give(self, frame: bytes) -> object: ...
    def take(self) -> list[bytes]: ...


class QemuWire:
    """QEMU's `-netdev dgram`, a frame in a datagram, on a PC that runs and does nothing."""

    def __init__(self, folder: str) -> None:
        self.theirs = f"{folder}/theirs"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"{folder}/ours")
        self.socket.setblocking(False)
        where = f"local.type=unix,local.path={self.theirs},remote.type=unix,remote.path={folder}/ours"
        with open(f"{folder}/bios", "wb") as file:
            file.write(bytes(0xFFF0) + b"\xfa\xf4\xeb\xfd".ljust(16, b"\0"))  # a guest: cli; hlt, again and again
        self.option = (
            "-bios",
            f"{folder}/bios",
            "-netdev",
            f"dgram,id=net,{where}",
            "-device",
            "e1000,netdev=net,mac=52:54:00:12:34:56",
        )

    def close(self) -> None:
        self.socket.close()

    def give(self, frame: bytes) -> None:
        self.socket.sendto(frame, self.theirs)

    def take(self) -> list[bytes]:
        frames = []
        while True:
            try:
                frames.append(self.socket.recv(1 << 17))
            except BlockingIOError:
                return frames


class Driver:
    """What a driver does, in its steps. What it reads, and frames that leave, are noted in the bus's log."""

    def __init__(self, bus: Bus, wire: Wire | MemoryNet, ecam: int = 0) -> None:
        self.bus = bus
        self.wire = wire
        self.function: Function = Config(bus, ecam).function(0x8086, 0x100E)
        self.function.place(MEMORY_AT)
        self.base = self.function.bars[0][0]
        self.tx_size = self.rx_size = 0
        self.tail = self.clean = self.next = 0
        self.rx_tail = 0
        self.buffer_size = 2048

    # Registers

    def get(self, name: str, index: int = 0, *, noted: bool = True) -> int:
        """A register, noted with those of its bits in which QEMU's does not differ from the manual."""
        register = vars(E1000Registers)[name]
        value = self.bus.read(self.base + register.offset + index * register.stride)
        self.bus.log[-1:] = [(name, index, 4, value & COMPARED.get(name, -1))] if noted else []
        return value

    def set(self, name: str, value: int, index: int = 0) -> None:
        register = vars(E1000Registers)[name]
        self.bus.write(self.base + register.offset + index * register.stride, value)

    def pin(self) -> int:
        """INTx, as the status register of PCI has it."""
        return self.function.read(6, 2) >> 3 & 1

    def step(self, nanoseconds: int) -> None:
        if isinstance(self.bus, Ours):
            self.bus.machine.advance(nanoseconds)
        else:
            time.sleep(nanoseconds / 1e9)

    def note(self, what: str, data: bytes) -> bytes:
        self.bus.log.append((what, 0, len(data), int.from_bytes(data, "big")))
        return data

    # EEPROM and PHY

    def eeprom_bits(self, value: int, bits: int) -> None:
        for bit in reversed(range(bits)):
            data = (value >> bit & 1) << 2
            self.set("EECD", 0x42 | data)
            self.set("EECD", 0x43 | data)
            self.set("EECD", 0x42 | data)

    def eeprom_command(self, value: int, bits: int = 9) -> None:
        """Start, opcode and address, and what follows."""
        self.set("EECD", 0x40)
        self.set("EECD", 0x42)
        self.eeprom_bits(value, bits)

    def eeprom_read(self, address: int, words: int = 1) -> list[int]:
        self.set("EECD", 0x40)
        assert self.get("EECD", noted=False) & 0x80
        self.eeprom_command(0b110 << 6 | address)
        found = []
        for _ in range(words):
            value = 0
            for _ in range(16):
                self.set("EECD", 0x43)
                value = value << 1 | self.get("EECD", noted=False) >> 3 & 1
                self.set("EECD", 0x42)
            found.append(value)
        self.set("EECD", 0x40)
        return found

    def eerd(self, address: int) -> int:
        self.set("EERD", address << 8 | 1)
        value = self.get("EERD")
        assert value & 0x10
        return value >> 16

    def phy_read(self, register: int, phy: int = 1) -> int:
        self.set("MDIC", 2 << 26 | phy << 21 | register << 16)
        value = self.get("MDIC", noted=False)
        assert value >> 28 & 1
        value = 1 << 30 if value >> 30 & 1 else value & 0xFFFF
        self.note("PHY", value.to_bytes(4, "big"))
        return value

    def phy_write(self, register: int, value: int, phy: int = 1) -> int:
        self.set("MDIC", 1 << 26 | phy << 21 | register << 16 | value)
        return self.get("MDIC", noted=False) >> 30 & 1

    # Rings

    def start(self, tx: int = 64, rx: int = 64, control: int = BAM | SECRC, buffers: int = 2048) -> None:
        """Both rings, and both directions enabled."""
        self.tx_size, self.rx_size, self.buffer_size = tx, rx, buffers
        self.tail = self.clean = self.next = 0
        self.bus.store(TX_RING, bytes(16 * tx))
        for name, ring, size in (("T", TX_RING, tx), ("R", RX_RING, rx)):
            self.set(f"{name}DBAL", ring & 0xFFFF_FFFF)
            self.set(f"{name}DBAH", ring >> 32)
            self.set(f"{name}DLEN", 16 * size)
            self.set(f"{name}DH", 0)
            self.set(f"{name}DT", 0)
        self.set("TCTL", 0x4010A)
        self.provide(0, rx)
        self.set("RDT", rx - 1)
        self.rx_tail = rx - 1
        self.set("RCTL", control | EN)

    def provide(self, first: int, number: int, address: int | None = None) -> None:
        """Receive descriptors with their buffers; RDT is not moved."""
        for index in range(first, first + number):
            where = RX_BUFFERS + index * self.buffer_size if address is None else address
            self.bus.store(RX_RING + 16 * index, struct.pack("<QQ", where, 0))

    def queue(self, *descriptors: tuple[int, int, int]) -> None:
        """Transmit descriptors (address, lower, upper); TDT is not moved."""
        for descriptor in descriptors:
            self.bus.store(TX_RING + 16 * self.tail, struct.pack("<QII", *descriptor))
            self.tail = (self.tail + 1) % self.tx_size

    def kick(self) -> None:
        self.set("TDT", self.tail)

    def sent(self) -> list[bytes]:
        """What left, noted; and what the descriptors say."""
        if isinstance(self.bus, Ours):
            for _ in range(64):
                self.bus.machine.advance(0)
        frames = self.wire.take()
        for frame in frames:
            self.note("frame", frame)
        while self.clean != self.tail:
            self.note("sent", self.bus.load(TX_RING + 16 * self.clean, 16))
            self.clean = (self.clean + 1) % self.tx_size
        return frames

    def put(self, data: bytes, at: int = 0) -> int:
        self.bus.store(TX_BUFFERS + at, data)
        return TX_BUFFERS + at

    def send(self, frame: bytes, command: int = EOP | IFCS | RS, special: int = 0, css: int = 0, cso: int = 0) -> None:
        """A legacy descriptor."""
        self.queue((self.put(frame), len(frame) | cso << 16 | command << 24, css << 8 | special << 16))
        self.kick()

    def context(self, ip: tuple[int, int, int], transport: tuple[int, int, int], *,
                command: int = 0, payload: int = 0, header: int = 0, mss: int = 0) -> None:  # fmt: skip
        """A context descriptor: start, offset, end of both checksums; TUCMD: 1 TCP, 2 IPv4, 4 TSE."""
        first = struct.unpack("<Q", struct.pack("<BBHBBH", *ip, *transport))[0]
        self.queue((first, payload | (command | DEXT) << 24, header << 8 | mss << 16))

    def data(self, pieces: list[bytes], command: int, popts: int, special: int = 0, at: int = 0) -> None:
        """Data descriptors, one a piece."""
        for number, piece in enumerate(pieces):
            last = EOP if number == len(pieces) - 1 else 0
            where = self.put(piece, at)
            at += len(piece)
            self.queue((where, len(piece) | 1 << 20 | (command | DEXT | last) << 24, popts << 8 | special << 16))

    def wait(self, number: int) -> None:
        """Until so many descriptors from `next` on are done; QEMU takes frames when it comes to them."""
        last = (self.next + number - 1) % self.rx_size
        for _ in range(2000):
            if self.bus.load(RX_RING + 16 * last + 12, 1)[0] & 1:
                return
            if isinstance(self.bus, Ours):
                self.bus.machine.advance(0)
            else:
                time.sleep(0.001)
        raise AssertionError("nothing was received")

    def received(self, number: int = 1, mask: bytes = b"\xff" * 8) -> list[tuple[bytes, bytes]]:
        """(write-back, data) of so many descriptors, noted; they are given again."""
        self.wait(number)
        found = []
        for _ in range(number):
            at = RX_RING + 16 * self.next
            back = self.bus.load(at + 8, 8)
            address = int.from_bytes(self.bus.load(at, 8), "little")
            data = self.bus.load(address, int.from_bytes(back[:2], "little"))
            self.note("descriptor", bytes(a & b for a, b in zip(back, mask, strict=True)))
            self.note("received", data)
            found.append((back, data))
            self.provide(self.next, 1, address)
            self.next = (self.next + 1) % self.rx_size
        self.rx_tail = (self.rx_tail + number) % self.rx_size
        self.set("RDT", self.rx_tail)
        return found


def build(offers: int = 0, limit: int = 1 << 16) -> tuple[Driver, E1000, MemoryNet]:
    made, bus = machine(log=Log(lambda _kind, _line: None))
    net = MemoryNet(offers=offers, limit=limit)
    nic = E1000("nic", made, bus=bus, slot=2, net=net)
    made.reset()
    return Driver(Ours(made), net), nic, net


def errors(driver: Driver) -> int:
    assert isinstance(driver.bus, Ours)
    return driver.bus.machine.log.counts[GUEST_ERROR]


def segments(
    driver: Driver, kind: str, payload: bytes, mss: int, cuts: list[int], tag: bool = False
) -> tuple[bytes, int]:
    """Give it one packet to segment; (its headers, where the transport's starts)."""
    command = {"tcp4": 3, "tcp6": 1, "udp4": 2}[kind]
    layer = tcp(payload) if command & 1 else udp(payload, length=0)
    size = 20 if command & 2 else 40
    packet = ip4(layer, 6 if command & 1 else 17, length=0, summed=False) if command & 2 else ip6(layer, 6, length=0)
    frame = ethernet(0x0800 if command & 2 else 0x86DD, half_summed(packet, whole=False))
    header = 14 + size + (20 if command & 1 else 8)
    field = 14 + size + (16 if command & 1 else 6)
    driver.context((14, 24, 13 + size), (14 + size, field, 0), command=command | TSE,
                   payload=len(payload), header=header, mss=mss)  # fmt: skip
    places = [0, *(header + cut for cut in cuts), len(frame)]
    pieces = [frame[a:b] for a, b in pairwise(places)]
    driver.data(pieces, IFCS | RS | TSE | (VLE if tag else 0), 3 if command & 2 else 2, special=99)
    return frame[:header], 14 + size


def check_segments(frames: list[bytes], header: bytes, start: int, payload: bytes, mss: int, tagged: bool) -> None:
    data = b""
    for number, frame in enumerate(frames):
        if tagged:
            assert frame[12:16] == b"\x81\0\0\x63"
            frame = frame[:12] + frame[16:]  # noqa: PLW2901 - the same frame without its tag
        packet = frame[14:]
        last = number == len(frames) - 1
        if packet[0] >> 4 == 4:
            assert checksum(packet[:20]) == 0
            assert struct.unpack_from(">HH", packet, 2) == (len(packet), 0x1234 + number & 0xFFFF)
        else:
            assert int.from_bytes(packet[4:6], "big") == len(packet) - 40
        transport = frame[start:]
        protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
        assert checksum(pseudo(packet, protocol, len(transport)) + transport) == 0
        if protocol == 6:
            assert int.from_bytes(transport[4:8], "big") == 0xFFFF_FF00 + len(data) & 0xFFFF_FFFF
            assert transport[13] == (0x19 if last else 0x10)
        else:
            assert int.from_bytes(transport[4:6], "big") == len(transport)
        assert len(frame) == len(header) + mss or last
        data += frame[len(header) :]
    assert data == payload
