"""The server's side of the handshake: options until the client goes on to requests, or leaves.

Everything that a client sends is bounded: the length of an option, their number, and (server.py) the time for all.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from dbt.machine.block.nbd.stream import SecureStream, Stream
from dbt.machine.block.nbd.wire import (
    BASE_ALLOCATION,
    EXPORT,
    FLAG_FIXED_NEWSTYLE,
    FLAG_NO_ZEROES,
    GREETING,
    IHAVEOPT,
    INFO_BLOCK_SIZE,
    INFO_DESCRIPTION,
    INFO_EXPORT,
    INFO_NAME,
    MAX_PAYLOAD,
    MAX_STRING,
    NBDMAGIC,
    OPT_ABORT,
    OPT_EXPORT_NAME,
    OPT_GO,
    OPT_INFO,
    OPT_LIST,
    OPT_LIST_META_CONTEXT,
    OPT_SET_META_CONTEXT,
    OPT_STARTTLS,
    OPT_STRUCTURED_REPLY,
    OPTION,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REP_ACK,
    REP_ERR_INVALID,
    REP_ERR_PLATFORM,
    REP_ERR_TLS_REQD,
    REP_ERR_UNKNOWN,
    REP_ERR_UNSUP,
    REP_INFO,
    REP_META_CONTEXT,
    REP_SERVER,
    string,
)

if TYPE_CHECKING:
    import ssl

MAX_OPTION = 64 << 10
MAX_OPTIONS = 128
CONTEXT_ID = 1


class Rejected(Exception):
    """The client has left, or does not follow the protocol: there is nobody to go on with."""


class Offer(NamedTuple):
    """What is exported."""

    name: str
    description: str
    size: int
    flags: int
    preferred: int


class Agreed(NamedTuple):
    """What the handshake came to."""

    stream: Stream
    structured: bool
    allocation: bool


class Handshake:
    """One client's. `offer` is asked for each time: a disk may change its size."""

    def __init__(self, stream: Stream, offer: Offer, tls: ssl.SSLContext | None) -> None:
        self.stream = stream
        self.offer = offer
        self.tls = tls
        self.structured = False
        self.allocation = False

    def run(self) -> Agreed:
        """Haggle; Rejected or an OSError if it comes to nothing."""
        stream = self.stream
        stream.send(GREETING.pack(NBDMAGIC, IHAVEOPT, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES))
        (flags,) = struct.unpack(">I", stream.receive(4))
        if flags & ~(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
            raise Rejected(f"client flags {flags:#x}")
        for _ in range(MAX_OPTIONS):
            magic, option, length = OPTION.unpack(self.stream.receive(OPTION.size))
            if magic != IHAVEOPT:
                raise Rejected(f"{magic:#x} in place of an option")
            if length > MAX_OPTION:
                raise Rejected(f"an option of {length} bytes")
            data = self.stream.receive(length)
            if self._option(option, data, no_zeroes=bool(flags & FLAG_NO_ZEROES)):
                return Agreed(self.stream, self.structured, self.allocation)
        raise Rejected(f"more than {MAX_OPTIONS} options")

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self.stream.send(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    def _option(self, option: int, data: bytes, *, no_zeroes: bool) -> bool:
        """Answer an option; True if requests follow."""
        if option == OPT_ABORT:
            self._reply(option, REP_ACK)
            raise Rejected("the client has gone")
        if self.tls is not None and not self.stream.secure and option != OPT_STARTTLS:
            if option == OPT_EXPORT_NAME:
                raise Rejected("an export without TLS")
            self._reply(option, REP_ERR_TLS_REQD, b"this server talks TLS only")
            return False
        if option == OPT_EXPORT_NAME:
            if data.decode(errors="replace") not in {"", self.offer.name}:
                raise Rejected("an export of another name")  # this option has no way to say so
            padding = b"" if no_zeroes else bytes(124)
            self.stream.send(EXPORT.pack(self.offer.size, self.offer.flags) + padding)
            return True
        if option in {OPT_INFO, OPT_GO}:
            return self._go(option, data) and option == OPT_GO
        answer = {
            OPT_LIST: self._list, OPT_STARTTLS: self._start_tls, OPT_STRUCTURED_REPLY: self._structured,
            OPT_LIST_META_CONTEXT: self._contexts, OPT_SET_META_CONTEXT: self._contexts,
        }.get(option)  # fmt: skip
        if answer is None:
            self._reply(option, REP_ERR_UNSUP, b"this server does not know the option")
        else:
            answer(option, data)
        return False

    def _list(self, option: int, data: bytes) -> None:
        if data:
            self._reply(option, REP_ERR_INVALID, b"LIST has no data")
            return
        self._reply(option, REP_SERVER, string(self.offer.name.encode()) + self.offer.description.encode())
        self._reply(option, REP_ACK)

    def _start_tls(self, option: int, data: bytes) -> None:
        if data or self.stream.secure:
            self._reply(option, REP_ERR_INVALID, b"TLS is on already" if self.stream.secure else b"no data, please")
            return
        if self.tls is None:
            self._reply(option, REP_ERR_PLATFORM, b"this server has no certificate")
            return
        self._reply(option, REP_ACK)
        self.stream = SecureStream(self.stream.socket, self.tls, server=True)
        self.structured = self.allocation = False  # what was agreed on before could have been forged

    def _structured(self, option: int, data: bytes) -> None:
        if data:
            self._reply(option, REP_ERR_INVALID, b"STRUCTURED_REPLY has no data")
            return
        self.structured = True
        self._reply(option, REP_ACK)

    def _go(self, option: int, data: bytes) -> bool:
        try:
            name, wanted = parse_go(data)
        except (ValueError, struct.error) as wrong:
            self._reply(option, REP_ERR_INVALID, str(wrong).encode())
            return False
        offer = self.offer
        if name.decode(errors="replace") not in {"", offer.name}:
            self._reply(option, REP_ERR_UNKNOWN, b"there is no export of this name")
            return False
        if INFO_NAME in wanted:
            self._reply(option, REP_INFO, struct.pack(">H", INFO_NAME) + offer.name.encode())
        if INFO_DESCRIPTION in wanted and offer.description:
            self._reply(option, REP_INFO, struct.pack(">H", INFO_DESCRIPTION) + offer.description.encode())
        sizes = struct.pack(">HIII", INFO_BLOCK_SIZE, 1, offer.preferred, MAX_PAYLOAD)
        self._reply(option, REP_INFO, sizes)
        self._reply(option, REP_INFO, struct.pack(">H", INFO_EXPORT) + EXPORT.pack(offer.size, offer.flags))
        self._reply(option, REP_ACK)
        return True

    def _contexts(self, option: int, data: bytes) -> None:
        """LIST and SET: the one context that there is, base:allocation, if a query means it."""
        try:
            name, queries = parse_contexts(data)
        except (ValueError, struct.error) as wrong:
            self._reply(option, REP_ERR_INVALID, str(wrong).encode())
            return
        if option == OPT_SET_META_CONTEXT:
            self.allocation = False
        if not self.structured:
            self._reply(option, REP_ERR_INVALID, b"structured replies first")
            return
        if name.decode(errors="replace") not in {"", self.offer.name}:
            self._reply(option, REP_ERR_UNKNOWN, b"there is no export of this name")
            return
        asked = {BASE_ALLOCATION} if option == OPT_SET_META_CONTEXT else {BASE_ALLOCATION, b"base:"}
        if asked & set(queries) or (option == OPT_LIST_META_CONTEXT and not queries):
            number = CONTEXT_ID if option == OPT_SET_META_CONTEXT else 0
            self._reply(option, REP_META_CONTEXT, struct.pack(">I", number) + BASE_ALLOCATION)
            self.allocation = self.allocation or option == OPT_SET_META_CONTEXT
        self._reply(option, REP_ACK)


def take_string(data: bytes) -> tuple[bytes, bytes]:
    """A string with its length in front, and what follows."""
    (length,) = struct.unpack_from(">I", data)
    if length > MAX_STRING:
        raise ValueError(f"a string of {length} bytes")
    if len(data) < 4 + length:
        raise ValueError("a string is cut off")
    return data[4 : 4 + length], data[4 + length :]


def parse_go(data: bytes) -> tuple[bytes, set[int]]:
    """The data of INFO and GO: the export's name, and what is asked for."""
    name, rest = take_string(data)
    (count,) = struct.unpack_from(">H", rest)
    if len(rest) != 2 + 2 * count:
        raise ValueError("the number of information requests is wrong")
    return name, set(struct.unpack_from(f">{count}H", rest, 2))


def parse_contexts(data: bytes) -> tuple[bytes, list[bytes]]:
    """The data of LIST_ and SET_META_CONTEXT: the export's name, and queries."""
    name, rest = take_string(data)
    (count,) = struct.unpack_from(">I", rest)
    if count * 4 > len(rest) - 4:
        raise ValueError("the number of queries is wrong")
    queries, rest = [], rest[4:]
    for _ in range(count):
        query, rest = take_string(rest)
        queries.append(query)
    if rest:
        raise ValueError("there is something behind the queries")
    return name, queries
