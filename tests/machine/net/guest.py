"""A guest's network stack in small, for tests: ARP, DHCP, UDP and a TCP that trusts its link. It checks what comes.

It knows a card only as `transmit(frame)` and `poll()`, the frames that have come: so it drives a back end alone and a
device through its driver.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dbt.machine.net.offload import Offload, segment

if TYPE_CHECKING:
    from dbt.machine.net.backend import NetBackend

MAC = bytes.fromhex("525400123456")
GATEWAY, DNS, SELF = bytes((10, 0, 2, 2)), bytes((10, 0, 2, 3)), bytes((10, 0, 2, 15))
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MASK = 0xFFFF_FFFF
PATIENCE = 30.0


def internet_sum(data: bytes) -> int:
    """RFC 1071; with the checksum in it a good message gives 0."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Ip(NamedTuple):
    source: bytes
    target: bytes
    protocol: int
    payload: bytes


def packet(source: bytes, target: bytes, protocol: int, payload: bytes, fragment: int = 0, identity: int = 1) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identity, fragment, 64, protocol, 0, source, target)
    return head[:10] + internet_sum(head).to_bytes(2, "big") + head[12:] + payload


def with_sum(source: bytes, target: bytes, protocol: int, data: bytes, field: int) -> bytes:
    pseudo = source + target + struct.pack(">HH", protocol, len(data))
    total = internet_sum(pseudo + data) or 0xFFFF
    return data[:field] + total.to_bytes(2, "big") + data[field + 2 :]


def udp(source: tuple[bytes, int], target: tuple[bytes, int], data: bytes) -> bytes:
    bare = struct.pack(">HHHH", source[1], target[1], 8 + len(data), 0) + data
    return packet(source[0], target[0], 17, with_sum(source[0], target[0], 17, bare, 6))


def tcp(
    source: tuple[bytes, int], target: tuple[bytes, int], numbers: tuple[int, int], flags: int, *, window: int = 0xFFFF,
    said: bytes = b"", data: bytes = b"",
) -> bytes:  # fmt: skip
    words = (source[1], target[1], numbers[0] & MASK, numbers[1] & MASK, 20 + len(said) << 2, flags, window, 0, 0)
    bare = struct.pack(">HHIIBBHHH", *words) + said + data
    return packet(source[0], target[0], 6, with_sum(source[0], target[0], 6, bare, 16))


def parse(frame: bytes) -> Ip | None:
    """The packet in a frame, all of its checksums checked; None if it is not IPv4."""
    if frame[12:14] != b"\x08\0":
        return None
    head = frame[14:34]
    total, fragment = struct.unpack_from(">HxxH", frame, 16)
    assert head[0] == 0x45
    assert internet_sum(head) == 0
    assert total == len(frame) - 14 or len(frame) == 60
    source, target, protocol, payload = head[12:16], head[16:20], head[9], frame[34 : 14 + total]
    if not fragment & 0x3FFF:
        if protocol in {6, 17}:
            pseudo = source + target + struct.pack(">HH", protocol, len(payload))
            assert internet_sum(pseudo + payload) == 0
        elif protocol == 1:
            assert internet_sum(payload) == 0
    return Ip(source, target, protocol, payload)


class Card:
    """A card without a driver in front of a back end. `buffers`: how many frames it takes before it must be read."""

    def __init__(self, backend: NetBackend, accepts: int = 0, buffers: int = 1 << 20) -> None:
        self.backend = backend
        self.accepts = accepts
        self.buffers = buffers
        self.frames: list[bytes] = []
        self.offloads: list[Offload | None] = []
        self.errors: list[str] = []
        self.refused = 0
        backend.attach(self)

    def receive(self, frame: Any, offload: Offload | None = None) -> bool:
        if len(self.frames) >= self.buffers:
            self.refused += 1
            return False
        assert offload is None or not offload.needs & ~self.accepts
        self.frames.append(bytes(frame))
        self.offloads.append(offload)
        return True

    def ready(self) -> None:
        pass

    def link_changed(self) -> None:
        pass

    def guest_error(self, thing: str, detail: str = "") -> None:
        self.errors.append(thing + detail)

    def poll(self) -> list[bytes]:
        frames, offloads = self.frames, self.offloads
        self.frames, self.offloads = [], []
        if frames:
            self.backend.resume()
        pieces = [
            segment(frame, offload) if offload else [frame] for frame, offload in zip(frames, offloads, strict=True)
        ]
        return [frame for piece in pieces for frame in piece]


class Guest:
    """One machine on the link. `lock` is the machine's."""

    def __init__(
        self, transmit: Callable[[bytes], object], poll: Callable[[], list[bytes]], lock: Any, mac: bytes = MAC
    ) -> None:
        self._transmit = transmit
        self._poll = poll
        self.lock = lock
        self.mac = mac
        self.address = SELF
        self.frames: list[bytes] = []  # what nobody has asked for
        self.answers_arp = True

    @classmethod
    def on(cls, backend: NetBackend, lock: Any, card: Card | None = None, mac: bytes = MAC) -> Guest:
        card = card or Card(backend)
        return cls(backend.send, card.poll, lock, mac)

    def send(self, payload: bytes, kind: int = 0x0800, target: bytes = b"\x52\x55\x0a\x00\x02\x02") -> None:
        with self.lock:
            self._transmit(target + self.mac + kind.to_bytes(2, "big") + payload)

    def poll(self) -> list[bytes]:
        with self.lock:
            frames = [frame for frame in self._poll() if frame[0] & 1 or frame[:6] == self.mac]
        for frame in frames:
            asked = frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == self.address
            if asked and self.answers_arp:
                self.arp(2, frame[28:32], frame[22:28])
        return frames

    def wait(self, wanted: Callable[[bytes], bool], patience: float = PATIENCE) -> bytes:
        """The first frame that is wanted; others are kept."""
        end = time.monotonic() + patience
        while True:
            for number, frame in enumerate(self.frames):
                if wanted(frame):
                    return self.frames.pop(number)
            new = self.poll()
            self.frames += new
            if not new:
                assert time.monotonic() < end, "nothing comes"
                time.sleep(0.0005)

    def arp(self, operation: int, address: bytes, mac: bytes = bytes(6)) -> None:
        body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + self.mac + self.address + mac + address
        self.send(body, 0x0806, b"\xff" * 6 if operation == 1 else mac)

    def find(self, address: bytes) -> bytes:
        """ARP."""
        self.arp(1, address)
        return self.wait(lambda f: f[12:14] == b"\x08\x06" and f[20:22] == b"\0\2" and f[28:32] == address)[22:28]

    def dhcp_send(self, kind: int, *, xid: int = 7, more: bytes = b"", ciaddr: bytes = bytes(4)) -> None:
        body = struct.pack(">BBBBIHH4s12x6s10x192x", 1, 1, 6, 0, xid, 0, 0, ciaddr, self.mac)
        body += b"\x63\x82\x53\x63" + (bytes((53, 1, kind)) if kind else b"") + more + b"\xff"
        self.send(udp((ciaddr, 68), (b"\xff" * 4, 67), body), target=b"\xff" * 6)

    def dhcp_answer(self) -> dict[Any, bytes]:
        """The fields and options of a server's message."""
        ip = self.ip_wait(
            lambda ip: ip.protocol == 17 and ip.payload[2:4] == b"\0\x44" and ip.payload[36:42] == self.mac
        )
        message = ip.payload[8:]
        fields: dict[Any, bytes] = {"xid": message[4:8], "yiaddr": message[16:20], "siaddr": message[20:24]}
        at = 240
        while message[at] != 255:
            if not message[at]:
                at += 1
                continue
            fields[message[at]] = message[at + 2 : at + 2 + message[at + 1]]
            at += 2 + message[at + 1]
        return fields

    def dhcp(self) -> dict[Any, bytes]:
        """Get an address as clients do."""
        self.dhcp_send(1)
        offer = self.dhcp_answer()
        self.dhcp_send(3, more=bytes((50, 4)) + offer["yiaddr"] + bytes((54, 4)) + offer[54])
        ack = self.dhcp_answer()
        assert ack[53] == b"\x05"
        self.address = ack["yiaddr"]
        return ack

    def ip_wait(self, wanted: Callable[[Ip], bool], patience: float = PATIENCE) -> Ip:
        def matches(frame: bytes) -> bool:
            ip = parse(frame)
            return ip is not None and wanted(ip)

        ip = parse(self.wait(matches, patience))
        assert ip is not None
        return ip

    def udp_send(self, port: int, target: tuple[bytes, int], data: bytes) -> None:
        self.send(udp((self.address, port), target, data))

    def udp_wait(self, port: int) -> tuple[tuple[bytes, int], bytes]:
        ip = self.ip_wait(lambda ip: ip.protocol == 17 and ip.payload[2:4] == port.to_bytes(2, "big"))
        return (ip.source, int.from_bytes(ip.payload[:2], "big")), ip.payload[8:]

    def icmp_wait(self) -> Ip:
        return self.ip_wait(lambda ip: ip.protocol == 1)

    def nothing(self, seconds: float = 0.05) -> bool:
        """Whether no frame comes for a while."""
        time.sleep(seconds)
        self.frames += self.poll()
        return not self.frames


class Tcp:
    """One connection of a guest's; `window` is what it says, scaled by `scale` if it is not None."""

    def __init__(
        self, guest: Guest, target: tuple[bytes, int], port: int = 40000, *, window: int = 0xFFFF, mss: int = 1460,
        scale: int | None = None,
    ) -> None:  # fmt: skip
        self.guest, self.target, self.port = guest, target, port
        self.window, self.mss, self.scale = window, mss, scale
        self.seq, self.ack = 1000, 0
        self.una = 1000
        self.peer_window = self.peer_scale = 0
        self.got = bytearray()
        self.ended = self.reset = False
        self.auto = True  # acknowledge what comes

    def segment(self, flags: int, data: bytes = b"", *, seq: int | None = None, said: bytes = b"") -> None:
        source = (self.guest.address, self.port)
        numbers = (self.seq if seq is None else seq, self.ack)
        self.guest.send(tcp(source, self.target, numbers, flags, window=self.window, said=said, data=data))

    def mine(self, ip: Ip) -> bool:
        return ip.protocol == 6 and (ip.source, *struct.unpack_from(">HH", ip.payload)) == (*self.target, self.port)

    def take(self, patience: float = PATIENCE) -> tuple[int, int, int, bytes, bytes]:
        """The next segment: (sequence, ack, flags, options, data)."""
        ip = self.guest.ip_wait(self.mine, patience)
        _, _, seq, ack, words, flags, window, _, _ = struct.unpack_from(">HHIIBBHHH", ip.payload)
        if flags & ACK and (ack - self.una & MASK) < 1 << 31:
            self.una = ack
        self.peer_window = window << (0 if flags & SYN else self.peer_scale)
        return seq, ack, flags, ip.payload[20 : words >> 2], ip.payload[words >> 2 :]

    def syn_options(self) -> bytes:
        said = b"\x02\x04" + self.mss.to_bytes(2, "big")
        return said if self.scale is None else said + bytes((1, 3, 3, self.scale))

    def connect(self) -> Tcp:
        self.segment(SYN, said=self.syn_options())
        seq, ack, flags, said, _ = self.take()
        if flags & RST:
            raise ConnectionRefusedError
        assert (flags, ack) == (SYN | ACK, self.seq + 1)
        self.established(seq, said)
        return self

    def accept(self) -> Tcp:
        """Wait for a SYN to this port, whoever it comes from."""
        ip = self.guest.ip_wait(lambda ip: ip.protocol == 6 and ip.payload[2:4] == self.port.to_bytes(2, "big"))
        source, _, seq, _, words, flags = struct.unpack_from(">HHIIBB", ip.payload)
        assert flags == SYN
        self.target, self.ack = (ip.source, source), seq + 1 & MASK
        self.segment(SYN | ACK, said=self.syn_options())
        assert self.take()[2] == ACK
        self.established(seq, ip.payload[20 : words >> 2], answer=False)
        return self

    def established(self, seq: int, said: bytes, *, answer: bool = True) -> None:
        assert said[:2] == b"\x02\x04"
        if self.scale is not None and b"\x03\x03" in said:
            self.peer_scale = said[said.index(b"\x03\x03") + 2]
        self.ack, self.seq = seq + 1 & MASK, self.seq + 1
        self.una = self.seq
        if answer:
            self.segment(ACK)

    def step(self, patience: float = PATIENCE) -> None:
        """Take a segment, keep its data if it is in order, acknowledge."""
        seq, _, flags, _, data = self.take(patience)
        if flags & RST:
            self.reset = True
            return
        if seq == self.ack and not self.ended:
            self.got += data
            self.ended = bool(flags & FIN)
            self.ack = self.ack + len(data) + (flags & FIN) & MASK
        if self.auto and (data or flags & FIN):
            self.segment(ACK)

    def send(self, data: bytes) -> None:
        """All of it, as the window allows."""
        done = 0
        while done < len(data):
            flight = self.seq - self.una & MASK
            piece = data[done : done + min(self.mss, max(self.peer_window or self.mss, 0) - flight)]
            if not piece or flight > 32768:
                self.step()
                continue
            self.segment(ACK | PSH, piece)
            self.seq += len(piece)
            done += len(piece)

    def read(self, count: int) -> bytes:
        while len(self.got) < count and not self.ended and not self.reset:
            self.step()
        data = bytes(self.got[:count])
        del self.got[:count]
        return data

    def close(self) -> None:
        """End our side."""
        self.segment(FIN | ACK)
        self.seq += 1
