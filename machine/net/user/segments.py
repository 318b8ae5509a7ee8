"""What is the same for all TCP endpoints: segments' numbers, options, data out of order, round-trip times."""

from __future__ import annotations

import enum
import struct

from dbt.machine.clock import SECOND
from dbt.machine.net.offload import checksum

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
SEGMENT = struct.Struct(">HHIIBBHHH")
MASK = 0xFFFF_FFFF
HALF = 1 << 31
END, NOP, MSS_OPTION, SCALE_OPTION = 0, 1, 2, 3
FIRST_RTO, LEAST_RTO, MOST_RTO = SECOND, SECOND // 5, 60 * SECOND
PIECES = 128
BUFFER = 256 << 10  # bytes, in each direction
SCALE = 3
MSS = {4: 1460, 16: 1440}  # by the length of addresses
LEAST_MSS = 48  # as Linux: a guest that says less gets this
DEFAULT_MSS = 536
BURST = 16  # frames at once, under the lock
RETRIES = 15


class State(enum.Enum):
    """Where a connection is; which sides have ended is in `got_fin` and `sent_fin`."""

    WAITING = "the guest's SYN waits for the host"
    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    OPEN = "ESTABLISHED and later"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


def before(one: int, other: int) -> bool:
    """Whether a sequence number comes before another."""
    return 0 < (other - one & MASK) < HALF


def options(data: memoryview) -> dict[int, bytes]:
    """The options of a SYN; what is damaged ends the list."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != END:
        if data[at] == NOP:
            at += 1
            continue
        if at + 2 > len(data) or data[at + 1] < 2 or at + data[at + 1] > len(data):
            break
        found.setdefault(data[at], bytes(data[at + 2 : at + data[at + 1]]))
        at += data[at + 1]
    return found


def parse_syn(given: memoryview, most: int) -> tuple[int, int, int]:
    """The segment size that a SYN's options allow, up to `most`, and both sides' window scales."""
    said = options(given)
    size = int.from_bytes(said[MSS_OPTION], "big") if len(said.get(MSS_OPTION, b"")) == 2 else DEFAULT_MSS
    size = min(max(size, LEAST_MSS), most)
    return (size, min(said[SCALE_OPTION][0], 14), SCALE) if len(said.get(SCALE_OPTION, b"")) == 1 else (size, 0, 0)


def syn_options(most: int, *, scale: bool) -> bytes:
    """Ours."""
    said = struct.pack(">BBH", MSS_OPTION, 4, most)
    return said + bytes((NOP, SCALE_OPTION, 3, SCALE)) if scale else said


Words = tuple[int, int, int, int, int, int, int]  # of a header, up to the window


def complete(words: Words, said: bytes, data: bytes | bytearray, start: int) -> bytes:
    """A segment with options `said`; `start` is the sum of its addresses and protocol."""
    bare = b"".join((SEGMENT.pack(*words, 0, 0), said, data))
    return b"".join((bare[:16], checksum(bare, start + len(bare)).to_bytes(2, "big"), bare[18:]))


def left_to_card(words: Words, data: bytes | bytearray, start: int) -> bytes:
    """A segment whose checksum is for the card to do: in its place is the pseudo-header's sum."""
    return b"".join((SEGMENT.pack(*words, (start + 20 + len(data)) % 0xFFFF, 0), data))


class Pieces:
    """Data that came out of order, at most `limit` bytes and PIECES pieces of it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[int, bytes] = {}  # by sequence number

    def keep(self, at: int, data: memoryview) -> None:
        """Keep what may follow later, if there is room."""
        held = sum(map(len, self._held.values()))
        if len(data) > len(self._held.get(at, b"")) and len(self._held) < PIECES and held + len(data) <= self._limit:
            self._held[at] = bytes(data)

    def take(self, at: int) -> bytes:
        """What follows at this number; what is older is forgotten."""
        for start, data in list(self._held.items()):
            skip = at - start & MASK
            if skip < HALF:
                del self._held[start]
                if skip < len(data):
                    return data[skip:]
        return b""


class Recovery:
    """When the first segment is sent again before its time (RFC 5681, 3.2), and after it the next that is missing.

    An acknowledgement of some of what was under way then (RFC 6582) says that what follows was lost as well.
    """

    def __init__(self) -> None:
        self._duplicates = 0
        self._until: int | None = None  # what had been sent when it began

    def duplicate(self, end: int) -> bool:
        """The same was acknowledged again."""
        self._duplicates += 1
        if self._duplicates == 3:
            self._until = end
        return self._duplicates == 3

    def acknowledged(self, ack: int) -> bool:
        """Something new was."""
        self._duplicates = 0
        if self._until is not None and not before(ack, self._until):
            self._until = None
        return self._until is not None

    def end(self) -> None:
        """All is sent again anyway."""
        self._duplicates, self._until = 0, None


class RoundTrip:
    """The retransmission timeout (RFC 6298), from one measurement at a time (Karn's algorithm).

    Backing off ends with whatever is new, not with the next measurement: it is for the sake of others on the way, of
    whom there are none, and with many losses there is none to be measured.
    """

    def __init__(self) -> None:
        self.rto = FIRST_RTO
        self._smoothed, self._variance = 0, 0
        self._timed: tuple[int, int] | None = None  # the acknowledgement that is waited for, since when

    def sent(self, end: int, now: int) -> None:
        """New data up to `end` has left."""
        if self._timed is None:
            self._timed = (end, now)

    def acknowledged(self, ack: int, now: int) -> None:
        """Something new was; take the time, if this is what was waited for."""
        if self._timed is not None and not before(ack, self._timed[0]):
            time = now - self._timed[1]
            self._timed = None
            if self._smoothed:
                self._variance = (3 * self._variance + abs(self._smoothed - time)) // 4
                self._smoothed = (7 * self._smoothed + time) // 8
            else:
                self._smoothed, self._variance = max(time, 1), time // 2
        estimate = self._smoothed + 4 * self._variance if self._smoothed else FIRST_RTO
        self.rto = min(max(estimate, LEAST_RTO), MOST_RTO)

    def forget(self) -> None:
        """Something is sent again: its acknowledgement says nothing."""
        self._timed = None

    def back_off(self) -> None:
        """Nothing came in time."""
        self.forget()
        self.rto = min(2 * self.rto, MOST_RTO)
