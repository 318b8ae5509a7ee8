"""One client's requests, from the handshake's end to its leaving.

A thread receives, the disk's workers do, and a thread of the client's own sends: a client that does not read its
replies stops itself, and no worker. What is in flight is bounded in number and in bytes; a client that wants more is
not read from until replies are gone.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING

from dbt.machine.block.buffers import aligned
from dbt.machine.block.nbd.handshake import CONTEXT_ID, Agreed, Rejected
from dbt.machine.block.nbd.wire import (
    CHUNK,
    CMD_BLOCK_STATUS,
    CMD_DISC,
    CMD_FLAG_DF,
    CMD_FLAG_FAST_ZERO,
    CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE,
    CMD_FLAG_REQ_ONE,
    CMD_FLUSH,
    CMD_READ,
    CMD_TRIM,
    CMD_WRITE,
    CMD_WRITE_ZEROES,
    ERRORS,
    MAX_PAYLOAD,
    REPLY_BLOCK_STATUS,
    REPLY_ERROR,
    REPLY_FLAG_DONE,
    REPLY_NONE,
    REPLY_OFFSET_DATA,
    REQUEST,
    REQUEST_MAGIC,
    SIMPLE_REPLY,
    SIMPLE_REPLY_MAGIC,
    STATE_HOLE,
    STATE_ZERO,
    STRUCTURED_REPLY_MAGIC,
)
from dbt.machine.block.request import (
    DISCARD,
    FLUSH,
    FUA,
    MAY_UNMAP,
    NO_FALLBACK,
    READ,
    STATUS,
    WRITE,
    WRITE_ZEROES,
    Request,
)  # fmt: skip

if TYPE_CHECKING:
    from dbt.machine.block.disk import Disk
    from dbt.machine.block.errors import BlockError

MAX_IN_FLIGHT = 64
MAX_BYTES = 48 << 20  # of data in flight; one request of the largest size always fits
MAX_MESSAGE = 1024
MAX_EXTENTS = 64
MAX_QUERIES = 1024  # of the disk for one BLOCK_STATUS: a reply may describe less than was asked for
ALLOWED_FLAGS = {
    CMD_READ: CMD_FLAG_DF, CMD_WRITE: CMD_FLAG_FUA, CMD_FLUSH: 0, CMD_TRIM: CMD_FLAG_FUA,
    CMD_WRITE_ZEROES: CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO, CMD_BLOCK_STATUS: CMD_FLAG_REQ_ONE,
}  # fmt: skip


class Asked:
    """A request of the client's: what a reply needs."""

    __slots__ = ("bytes", "command", "cookie", "extents", "flags", "offset", "queries", "rest")

    def __init__(self, command: int, flags: int, cookie: int, offset: int, length: int, size: int) -> None:
        self.command = command
        self.flags = flags
        self.cookie = cookie
        self.offset = offset
        self.rest = length  # BLOCK_STATUS: what is not described yet
        self.bytes = size
        self.queries = 0
        self.extents: list[tuple[int, int]] = []


class Session:
    """`run` returns when the client has left or broken the rules, and everything of it is done."""

    def __init__(self, disk: Disk, agreed: Agreed) -> None:
        self.disk = disk
        self.stream = agreed.stream
        self.structured = agreed.structured
        self.allocation = agreed.allocation
        self._changed = threading.Condition()
        self._in_flight = 0
        self._bytes = 0
        self._replies: deque[tuple[Asked, tuple[bytes | memoryview, ...]]] = deque()
        self._ended = False
        self._broken = False

    def run(self) -> None:
        """Serve."""
        sender = threading.Thread(target=self._send, name="nbd-sender", daemon=True)
        sender.start()
        try:
            while self._one():
                pass
        except (OSError, Rejected):
            self._break()  # nobody is there to be told
        finally:
            with self._changed:
                while self._in_flight:
                    self._changed.wait()
                self._ended = True
                self._changed.notify_all()
            sender.join()

    def _break(self) -> None:
        with self._changed:
            self._broken = True
            self._changed.notify_all()
        self.stream.shut()

    # Receiving.

    def _one(self) -> bool:
        """Receive a request and start it; False if it was the last."""
        magic, flags, command, cookie, offset, length = REQUEST.unpack(self.stream.receive(REQUEST.size))
        if magic != REQUEST_MAGIC:
            raise Rejected(f"{magic:#x} in place of a request")
        if command == CMD_DISC:
            return False
        if command == CMD_WRITE and length > MAX_PAYLOAD:
            raise Rejected(f"a write of {length} bytes")  # its data cannot be told from what follows
        size = length if command in {CMD_READ, CMD_WRITE} and length <= MAX_PAYLOAD else 0
        asked = Asked(command, flags, cookie, offset, length, size)
        self._reserve(asked)
        try:
            data = aligned(size) if self.disk.node.alignment > 1 else memoryview(bytearray(size))
            if command == CMD_WRITE:
                self.stream.receive_into(data)
        except BaseException:
            self._done(asked)
            raise
        wrong, text = self._refusal(command, flags, offset, length)
        if wrong:
            self._fail(asked, wrong, text)
        else:
            self._start(asked, data, length)
        return True

    def _reserve(self, asked: Asked) -> None:
        with self._changed:
            while not self._broken and (
                self._in_flight >= MAX_IN_FLIGHT or (self._in_flight and self._bytes + asked.bytes > MAX_BYTES)
            ):
                self._changed.wait()
            if self._broken:
                raise Rejected("the connection has ended")
            self._in_flight += 1
            self._bytes += asked.bytes

    def _done(self, asked: Asked) -> None:
        with self._changed:
            self._in_flight -= 1
            self._bytes -= asked.bytes
            self._changed.notify_all()

    def _refusal(self, command: int, flags: int, offset: int, length: int) -> tuple[int, str]:
        """(errno, why) of a request that is not even tried; 0 if it may be."""
        if command not in ALLOWED_FLAGS or (command == CMD_BLOCK_STATUS and not self.allocation):
            return errno.EINVAL, f"request {command} was not agreed on"
        if flags & ~ALLOWED_FLAGS[command]:
            return errno.EINVAL, f"flags {flags:#x}"
        if command == CMD_FLUSH:
            return (errno.EINVAL, "a flush has no range") if offset or length else (0, "")
        if command in {CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES} and not self.disk.node.writable:
            return errno.EPERM, "the export is read-only"
        if offset + length > self.disk.size:
            code = errno.ENOSPC if command in {CMD_WRITE, CMD_WRITE_ZEROES} else errno.EINVAL
            return code, f"the disk ends at {self.disk.size:#x}"
        if command == CMD_READ and length > MAX_PAYLOAD:
            return errno.EOVERFLOW, f"a read of {length} bytes: {MAX_PAYLOAD} at most"
        if command == CMD_BLOCK_STATUS and not length:
            return errno.EINVAL, "the status of nothing"
        return 0, ""

    # Doing.

    def _start(self, asked: Asked, data: memoryview, length: int) -> None:
        flags = FUA if asked.flags & CMD_FLAG_FUA else 0
        command, offset = asked.command, asked.offset
        if command in {CMD_READ, CMD_WRITE}:
            operation = READ if command == CMD_READ else WRITE
            request = Request(operation, offset, [data], self._finish, length=length, flags=flags, context=asked)
        elif command == CMD_WRITE_ZEROES:
            flags |= 0 if asked.flags & CMD_FLAG_NO_HOLE else MAY_UNMAP
            flags |= NO_FALLBACK if asked.flags & CMD_FLAG_FAST_ZERO else 0
            request = Request(WRITE_ZEROES, offset, (), self._finish, length=length, flags=flags, context=asked)
        else:
            operation = {CMD_FLUSH: FLUSH, CMD_TRIM: DISCARD, CMD_BLOCK_STATUS: STATUS}[command]
            request = Request(operation, offset, (), self._finish, length=length, flags=flags, context=asked)
        if self.disk.submit(request):
            self._finish(request)

    def _finish(self, request: Request) -> None:
        """A request is done, in whichever thread: make its reply."""
        asked: Asked = request.context
        if request.error is not None:
            self._fail_by(asked, request.error)
        elif asked.command == CMD_BLOCK_STATUS:
            self._more_status(asked, request)
        elif asked.command != CMD_READ:
            self._reply(asked, self._plain(asked))
        elif not self.structured:
            self._reply(asked, SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, asked.cookie), request.vectors[0])
        elif not request.length:
            self._reply(asked, self._plain(asked))
        else:
            head = self._chunk(asked, REPLY_OFFSET_DATA, 8 + request.length) + struct.pack(">Q", asked.offset)
            self._reply(asked, head, request.vectors[0])

    def _more_status(self, asked: Asked, request: Request) -> None:
        """Gather extents, like ones together, until the range or the patience is at its end; then reply."""
        extent = request.result
        count = min(extent.length, asked.rest)
        hole = not extent.data and (extent.zero or not extent.allocated)
        state = (STATE_HOLE if hole else 0) | (STATE_ZERO if extent.zero else 0)
        if asked.extents and asked.extents[-1][1] == state:
            asked.extents[-1] = asked.extents[-1][0] + count, state
        else:
            asked.extents.append((count, state))
        asked.rest -= count
        asked.queries += 1
        one = asked.flags & CMD_FLAG_REQ_ONE
        if asked.rest and not one and len(asked.extents) < MAX_EXTENTS and asked.queries < MAX_QUERIES:
            at = request.offset + count
            again = Request(STATUS, at, (), self._finish, length=asked.rest, context=asked)
            if self.disk.submit(again):
                self._finish(again)
            return
        data = struct.pack(">I", CONTEXT_ID) + b"".join(struct.pack(">II", *pair) for pair in asked.extents)
        self._reply(asked, self._chunk(asked, REPLY_BLOCK_STATUS, len(data)) + data)

    # Replying.

    def _chunk(self, asked: Asked, kind: int, length: int) -> bytes:
        return CHUNK.pack(STRUCTURED_REPLY_MAGIC, REPLY_FLAG_DONE, kind, asked.cookie, length)

    def _plain(self, asked: Asked) -> bytes:
        """It worked, and there is no data."""
        if self.structured and asked.command in {CMD_READ, CMD_BLOCK_STATUS}:
            return self._chunk(asked, REPLY_NONE, 0)
        return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, 0, asked.cookie)

    def _fail_by(self, asked: Asked, error: BlockError) -> None:
        self._fail(asked, error.errno, error.reason)

    def _fail(self, asked: Asked, code: int, text: str) -> None:
        number = ERRORS.get(code, 5)
        if not self.structured:
            self._reply(asked, SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, number, asked.cookie))
            return
        message = text.encode(errors="replace")[:MAX_MESSAGE]
        data = struct.pack(">IH", number, len(message)) + message
        self._reply(asked, self._chunk(asked, REPLY_ERROR, len(data)) + data)

    def _reply(self, asked: Asked, *parts: bytes | memoryview) -> None:
        with self._changed:
            self._replies.append((asked, parts))
            self._changed.notify_all()

    def _send(self) -> None:
        """The sender's thread: until the receiver has ended and everything is answered."""
        while True:
            with self._changed:
                while not self._replies and not self._ended:
                    self._changed.wait()
                if not self._replies:
                    return
                asked, parts = self._replies.popleft()
                broken = self._broken
            if not broken:
                try:
                    self.stream.send(*parts)
                except OSError:
                    self._break()
            self._done(asked)
