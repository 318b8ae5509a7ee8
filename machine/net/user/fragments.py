"""Reassembly of IPv4 (RFC 791, 3.2; RFC 815): bounded, and without overlaps, which only attacks have (RFC 5722)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.user.packets import MORE, OFFSET, Malformed, Packet

if TYPE_CHECKING:
    from dbt.machine.clock import Clock

DATAGRAMS, PIECES = 16, 128
LIFETIME = 30 * SECOND
Key = tuple[bytes, bytes, int, int]


class _Datagram:
    __slots__ = ("length", "pieces", "since")

    def __init__(self, since: int) -> None:
        self.since = since
        self.pieces: dict[int, bytes] = {}
        self.length: int | None = None  # known when the last piece has come

    def add(self, start: int, data: bytes, *, more: bool) -> None:
        """Keep a piece. Malformed: the datagram is lost."""
        end = start + len(data)
        if end > 65515 or (more and (len(data) % 8 or not data)):
            raise Malformed("a fragment of an impossible size")
        if self.pieces.get(start) == data:
            return  # the same again
        if len(self.pieces) == PIECES:
            raise Malformed(f"a datagram in more than {PIECES} fragments")
        if any(start < other + len(there) and other < end for other, there in self.pieces.items()):
            raise Malformed("fragments that overlap")
        if not more:
            if self.length is not None:
                raise Malformed("a datagram with two ends")
            self.length = end
        if self.length is not None and end > self.length:
            raise Malformed("a fragment beyond the end of its datagram")
        self.pieces[start] = data

    def whole(self) -> bytes | None:
        """The payload, if all of it is there."""
        if self.length is None or sum(map(len, self.pieces.values())) != self.length:
            return None
        return b"".join(self.pieces[start] for start in sorted(self.pieces))


class Reassembly:
    """The datagrams of which pieces have come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._datagrams: dict[Key, _Datagram] = {}

    def add(self, packet: Packet) -> Packet | None:
        """A fragment; the whole packet when this was the last that was missing."""
        now = self._clock.now
        key = (packet.source, packet.target, packet.protocol, packet.identity)
        datagram = self._datagrams.get(key)
        if datagram is None or now - datagram.since > LIFETIME:
            self._datagrams.pop(key, None)
            while len(self._datagrams) >= DATAGRAMS:  # the oldest is the first
                del self._datagrams[next(iter(self._datagrams))]
            datagram = self._datagrams[key] = _Datagram(now)
        start, more = (packet.fragment & OFFSET) * 8, bool(packet.fragment & MORE)
        try:
            datagram.add(start, bytes(packet.payload), more=more)
        except Malformed:
            del self._datagrams[key]
            raise
        payload = datagram.whole()
        if payload is None:
            return None
        del self._datagrams[key]
        return packet._replace(payload=memoryview(payload), fragment=0)
