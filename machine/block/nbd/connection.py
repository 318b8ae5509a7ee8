"""The client's side of one connection: the handshake, then requests by many threads at once.

There is no thread for receiving: of those that wait for replies one receives, for all, until its own has come; then
another goes on. A single user waits for the socket itself, with no switch between threads.

Nothing that a server says is believed before it was compared with what was asked.
"""

from __future__ import annotations

import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dbt.machine.block.buffers import cut, fill
from dbt.machine.block.nbd import wire
from dbt.machine.block.nbd.stream import SecureStream, Stream

if TYPE_CHECKING:
    import ssl

    from dbt.machine.block.request import Vectors

MAX_REPLY = 64 << 10  # of an option's reply
MAX_REPLIES = 256
MAX_SIZE = (1 << 63) - 1


class ProtocolError(OSError):
    """The server says what it may not, or will not do what is needed: `str` says what."""


class Facts(NamedTuple):
    """What the handshake came to."""

    size: int
    flags: int
    structured: bool
    allocation: bool
    minimum: int
    maximum: int


class Call:
    """One request. `error` is the server's errno, with its `message`."""

    __slots__ = (
        "command",
        "data",
        "done",
        "error",
        "extents",
        "filled",
        "flags",
        "length",
        "message",
        "offset",
        "vectors",
    )

    def __init__(
        self, command: int, offset: int = 0, length: int = 0, *, flags: int = 0, data: Vectors = (),
        vectors: Vectors = (),
    ) -> None:  # fmt: skip
        self.command = command
        self.offset = offset
        self.length = length
        self.flags = flags
        self.data = data  # to be sent
        self.vectors = vectors  # to be filled
        self.reset()

    def reset(self) -> None:
        """Be as if never sent."""
        self.done = False
        self.error = 0
        self.message = ""
        self.filled = 0
        self.extents: list[tuple[int, int]] = []


class Options:
    """The client's side of option haggling, in fixed newstyle."""

    def __init__(self, stream: Stream, export: str) -> None:
        self.stream = stream
        self.export = export.encode()

    def ask(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """The server's replies to an option, the last of them ACK or an error."""
        self.stream.send(wire.OPTION.pack(wire.IHAVEOPT, option, len(data)) + data)
        replies: list[tuple[int, bytes]] = []
        while len(replies) < MAX_REPLIES:
            magic, which, kind, length = wire.OPTION_REPLY.unpack(self.stream.receive(wire.OPTION_REPLY.size))
            if magic != wire.OPTION_REPLY_MAGIC or which != option:
                raise ProtocolError("the server answers an option that was not asked")
            if length > MAX_REPLY:
                raise ProtocolError(f"the server's reply to an option has {length} bytes")
            replies.append((kind, self.stream.receive(length)))
            if kind == wire.REP_ACK or kind >> 31:
                return replies
        raise ProtocolError("the server's replies to an option have no end")

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Go on in TLS."""
        kind, text = self.ask(wire.OPT_STARTTLS)[-1]
        if kind != wire.REP_ACK:
            raise ProtocolError(f"the server does not do TLS: {_why(kind, text)}")
        self.stream = SecureStream(self.stream.socket, context, server=False, name=name)

    def go(self) -> Facts:
        """Structured replies, block status, and the export."""
        structured = self.ask(wire.OPT_STRUCTURED_REPLY)[-1][0] == wire.REP_ACK
        allocation = False
        if structured:
            query = wire.string(self.export) + struct.pack(">I", 1) + wire.string(wire.BASE_ALLOCATION)
            replies = self.ask(wire.OPT_SET_META_CONTEXT, query)
            names = [data[4:] for kind, data in replies if kind == wire.REP_META_CONTEXT]
            allocation = replies[-1][0] == wire.REP_ACK and wire.BASE_ALLOCATION in names
        wanted = wire.string(self.export) + struct.pack(">HH", 1, wire.INFO_BLOCK_SIZE)
        *told, (kind, text) = self.ask(wire.OPT_GO, wanted)
        if kind == wire.REP_ERR_UNSUP:  # a server of before 2017: the option that has no reply but the export itself
            return self._by_name(structured=structured, allocation=allocation)
        if kind != wire.REP_ACK:
            raise ProtocolError(f"the server refuses export {self.export.decode()!r}: {_why(kind, text)}")
        size = flags = -1
        minimum, maximum = 1, wire.MAX_PAYLOAD
        for kind, data in told:
            if kind != wire.REP_INFO or len(data) < 2:
                continue
            (info,) = struct.unpack_from(">H", data)
            if info == wire.INFO_EXPORT and len(data) == 2 + wire.EXPORT.size:
                size, flags = wire.EXPORT.unpack_from(data, 2)
            elif info == wire.INFO_BLOCK_SIZE and len(data) == 14:
                minimum, _, maximum = struct.unpack_from(">III", data, 2)
        return _facts(size, flags, structured, allocation, minimum, maximum)

    def _by_name(self, *, structured: bool, allocation: bool) -> Facts:
        self.stream.send(wire.OPTION.pack(wire.IHAVEOPT, wire.OPT_EXPORT_NAME, len(self.export)) + self.export)
        size, flags = wire.EXPORT.unpack(self.stream.receive(wire.EXPORT.size))
        return _facts(size, flags, structured, allocation, 1, wire.MAX_PAYLOAD)


def _why(kind: int, text: bytes) -> str:
    own = wire.REPLIES.get(kind, f"reply {kind:#x}")
    said = text[:1000].decode(errors="replace").strip()
    return f"{own} ({said})" if said else own


def _facts(size: int, flags: int, structured: bool, allocation: bool, minimum: int, maximum: int) -> Facts:
    if not 0 <= size <= MAX_SIZE or flags < 0:
        raise ProtocolError(f"the server tells no size that can be: {size}")
    if minimum < 1 or minimum & minimum - 1 or minimum > 65536 or maximum < minimum or size % minimum:
        raise ProtocolError(f"the server tells block sizes that cannot be: {minimum} to {maximum}, of {size}")
    return Facts(size, flags, structured, allocation, minimum, min(maximum, wire.MAX_PAYLOAD) // minimum * minimum)


def negotiate(stream: Stream, export: str, context: ssl.SSLContext | None, name: str) -> tuple[Stream, Facts]:
    """Do the handshake; the stream to go on with, which is another if TLS was wanted, and what was agreed on."""
    magic, options, flags = wire.GREETING.unpack(stream.receive(wire.GREETING.size))
    if magic != wire.NBDMAGIC or options != wire.IHAVEOPT or not flags & wire.FLAG_FIXED_NEWSTYLE:
        raise ProtocolError("the server does not talk NBD's fixed newstyle")
    stream.send(struct.pack(">I", wire.FLAG_FIXED_NEWSTYLE | flags & wire.FLAG_NO_ZEROES))
    haggling = Options(stream, export)
    if context is not None:
        haggling.start_tls(context, name)
    facts = haggling.go()
    return haggling.stream, facts


class Connection:
    """After the handshake."""

    def __init__(self, stream: Stream, facts: Facts) -> None:
        self.stream = stream
        self.facts = facts
        self._changed = threading.Condition()
        self._calls: dict[int, Call] = {}
        self._cookie = 0
        self._receiving = False
        self._broken: OSError | None = None
        self._users = 0
        self._abandoned = False

    def perform(self, call: Call) -> None:
        """Send a request and wait for its reply. An OSError: the connection is lost, and nobody knows what was done."""
        call.reset()
        with self._changed:
            if self._broken is not None:
                raise self._broken
            self._cookie += 1
            cookie = self._cookie
            self._calls[cookie] = call
            self._users += 1
        try:
            self._exchange(call, cookie)
        finally:
            with self._changed:
                self._users -= 1
                last = self._abandoned and not self._users
            if last:
                self.stream.close()

    def _exchange(self, call: Call, cookie: int) -> None:
        length = 0 if call.command == wire.CMD_FLUSH else call.length
        head = wire.REQUEST.pack(wire.REQUEST_MAGIC, call.flags, call.command, cookie, call.offset, length)
        try:
            self.stream.send(head, *call.data)
        except OSError as error:
            self._break(error)
        self._wait(call)

    def _break(self, error: OSError) -> None:
        with self._changed:
            self._broken = self._broken or error
            self._changed.notify_all()
        self.stream.shut()

    def _wait(self, call: Call) -> None:
        while True:
            with self._changed:
                while not call.done and self._receiving:
                    self._changed.wait()
                if call.done:
                    return
                if self._broken is not None:  # and nobody receives any more: the vectors are the caller's again
                    raise self._broken
                self._receiving = True
            try:
                self._receive()
            except OSError as error:
                self._break(error)
            finally:
                with self._changed:
                    self._receiving = False
                    self._changed.notify_all()

    def _receive(self) -> None:
        """One simple reply, or one chunk of a structured one."""
        stream = self.stream
        head = stream.receive(16)
        (magic,) = struct.unpack_from(">I", head)
        if magic == wire.SIMPLE_REPLY_MAGIC:
            _, error, cookie = wire.SIMPLE_REPLY.unpack(head)
            call = self._call(cookie)
            if call.command in {wire.CMD_READ, wire.CMD_BLOCK_STATUS} and self.facts.structured:
                raise ProtocolError("the server's reply is simple where it has to be structured")
            if error:
                call.error = error
            else:
                for view in call.vectors:
                    stream.receive_into(view)
                call.filled = call.length
            self._finish(cookie, call)
            return
        if magic != wire.STRUCTURED_REPLY_MAGIC or not self.facts.structured:
            raise ProtocolError(f"the server sends {magic:#x} in place of a reply")
        _, flags, kind, cookie, length = wire.CHUNK.unpack(head + stream.receive(4))
        call = self._call(cookie)
        self._chunk(call, kind, length)
        if flags & wire.REPLY_FLAG_DONE:
            self._finish(cookie, call)

    def _call(self, cookie: int) -> Call:
        with self._changed:
            call = self._calls.get(cookie)
        if call is None:
            raise ProtocolError(f"the server answers request {cookie}, which waits for nothing")
        return call

    def _finish(self, cookie: int, call: Call) -> None:
        if call.command == wire.CMD_READ and not call.error and call.filled != call.length:
            raise ProtocolError(f"the server's reply has {call.filled} bytes of {call.length}")
        if call.command == wire.CMD_BLOCK_STATUS and not call.error and not call.extents:
            raise ProtocolError("the server's reply has no extents")
        with self._changed:
            del self._calls[cookie]
            call.done = True
            self._changed.notify_all()

    def _chunk(self, call: Call, kind: int, length: int) -> None:
        stream = self.stream
        if kind == wire.REPLY_NONE and not length:
            return
        if kind == wire.REPLY_OFFSET_DATA and call.command == wire.CMD_READ and length > 8:
            start = self._place(call, length - 8)
            for view in cut(call.vectors, start, length - 8):
                stream.receive_into(view)
        elif kind == wire.REPLY_OFFSET_HOLE and call.command == wire.CMD_READ and length == 12:
            offset = stream.receive(8)
            (count,) = struct.unpack(">I", stream.receive(4))
            fill(call.vectors, self._at(call, offset, count), count)
        elif kind == wire.REPLY_BLOCK_STATUS and call.command == wire.CMD_BLOCK_STATUS and 12 <= length <= MAX_REPLY:
            data = stream.receive(length)
            call.extents = list(struct.iter_unpack(">II", data[4 : 4 + (length - 4) // 8 * 8]))
            if any(not count for count, _ in call.extents):
                raise ProtocolError("the server's reply has extents of no length")
        elif kind >> 15 and 6 <= length <= MAX_REPLY:
            data = stream.receive(length)
            call.error, size = struct.unpack_from(">IH", data)
            call.message = data[6 : 6 + size].decode(errors="replace")
            if not call.error:
                raise ProtocolError("the server's reply is an error of no number")
        else:
            raise ProtocolError(f"the server sends chunk {kind:#x} of {length} bytes for request {call.command}")

    def _place(self, call: Call, count: int) -> int:
        return self._at(call, self.stream.receive(8), count)

    def _at(self, call: Call, offset: bytes, count: int) -> int:
        """Where in the vectors a chunk belongs."""
        (where,) = struct.unpack(">Q", offset)
        start = int(where) - call.offset
        if start < 0 or start + count > call.length or call.filled + count > call.length:
            raise ProtocolError("the server sends data that was not asked for")
        call.filled += count
        return start

    def close(self) -> None:
        """Leave. The descriptor is closed by the last thread that uses it: its number may soon be another's."""
        if self._broken is None:
            with suppress(OSError):  # it is gone already
                self.stream.send(wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, wire.CMD_DISC, 0, 0, 0))
        self._break(OSError("the connection is closed"))
        with self._changed:
            last = not self._abandoned and not self._users
            self._abandoned = True
        if last:
            self.stream.close()
