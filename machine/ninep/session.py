"""One client's session: messages in, replies out; version, attach, walk and flush.

`accept` is called for each message in the order of their arrival and does nothing but note its tag; `serve` does the
work, in any thread, and several at once. `done` of an exchange is called when its reply is in its buffers: for a flush
that is when what it flushes is over.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

from dbt.machine.block.buffers import cut, scatter
from dbt.machine.errors import SnapshotError
from dbt.machine.ninep.fids import Fids
from dbt.machine.ninep.files import checked
from dbt.machine.ninep.operations import Operations
from dbt.machine.ninep.places import Places
from dbt.machine.ninep.wire import (
    HEADER,
    MAX_WALK,
    MESSAGES,
    NOFID,
    NUMBERS_OF,
    READ_FIXED,
    RLERROR,
    WRITE,
    WRITE_FIXED,
    Malformed,
    Qid,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbt.machine.ninep.host import Share

LEAST_MSIZE, MOST_MSIZE = 4096, 512 * 1024
VERSION = b"9P2000.L"
FLUSH, READ, READDIR = (NUMBERS_OF[name] for name in ("flush", "read", "readdir"))


class Exchange:
    """A message in `request` and room for its reply in `room`, both in pieces; `length` is that of the reply."""

    def __init__(
        self, request: Sequence[memoryview], room: Sequence[memoryview], done: Callable[[Exchange], None] | None = None
    ) -> None:
        self.request = request
        self.room = room
        self.done = done
        self.request_length = sum(len(piece) for piece in request)
        self.room_length = sum(len(piece) for piece in room)
        self.length = 0
        self.refused = ""  # why there is no reply: the message or the room are too short for any
        head = self.copy(HEADER.size)
        self.size, self.kind, self.tag = HEADER.unpack(head) if len(head) == HEADER.size else (0, 0, 0)

    def copy(self, length: int) -> bytes:
        """The first bytes of the message."""
        return b"".join(cut(self.request, 0, length))

    def reply(self, kind: int, body: bytes, payload: int = 0) -> None:
        """Store a reply; `payload` bytes are behind it already."""
        data = HEADER.pack(HEADER.size + len(body) + payload, kind, self.tag) + body
        if len(data) + payload > self.room_length:
            self.refused = "no room for the reply"
            return
        scatter(data, cut(self.room, 0, len(data)))
        self.length = len(data) + payload


class Session(Operations):
    """What is between a version message and the next."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.msize = MOST_MSIZE
        self.lock = threading.RLock()
        self.places = Places(share, self.lock)
        self.fids = Fids(share, self.places)
        self._active: dict[int, tuple[int, list[Exchange]]] = {}  # by tag: how many, and which flushes wait for it

    def close(self) -> None:
        """Give back all descriptors. What is being served still ends, and gets no new fids."""
        with self.lock:
            self.fids.closed = True
            self.fids.close()
        self.places.close()

    def call(self, request: bytes, room: int = MOST_MSIZE) -> bytes:
        """One message, at once."""
        reply = bytearray(room)
        exchange = Exchange([memoryview(request)], [memoryview(reply)])
        self.accept(exchange)
        self.serve(exchange)
        return bytes(reply[: exchange.length])

    # Messages

    def accept(self, exchange: Exchange) -> None:
        """A message has come."""
        if exchange.kind != FLUSH:
            with self.lock:
                count, flushes = self._active.get(exchange.tag, (0, []))
                self._active[exchange.tag] = count + 1, flushes

    def serve(self, exchange: Exchange) -> None:
        """Do what a message says."""
        if exchange.kind == FLUSH:
            if not self._flush(exchange):
                self._finish(exchange)
            return
        try:
            self._answer(exchange)
        finally:
            with self.lock:
                count, flushes = self._active[exchange.tag]
                if count > 1:
                    self._active[exchange.tag] = count - 1, flushes
                    flushes = []
                else:
                    del self._active[exchange.tag]
            self._finish(exchange)
            for flush in flushes:
                self._finish(flush)

    @staticmethod
    def _finish(exchange: Exchange) -> None:
        if exchange.kind == FLUSH and not exchange.length and not exchange.refused:
            exchange.reply(FLUSH + 1, b"")
        if exchange.done is not None:
            exchange.done(exchange)

    def _flush(self, exchange: Exchange) -> bool:
        """Whether it has to wait. Flushes are not waited for themselves, so none waits for another."""
        try:
            (tag,) = self._parse(exchange, "w")
        except OSError as error:
            exchange.reply(RLERROR, encode("d", (error.errno,)))
            return False
        with self.lock:
            if tag not in self._active:
                return False
            self._active[tag][1].append(exchange)
            return True

    def _parse(self, exchange: Exchange, form: str) -> tuple[Any, ...]:
        fixed = exchange.kind == WRITE
        if not HEADER.size <= exchange.size <= min(exchange.request_length, self.msize):
            raise OSError(errno.EINVAL, "a size that cannot be")
        data = exchange.copy(WRITE_FIXED if fixed else exchange.size)
        try:
            values, end = decode(form, data, HEADER.size)
        except Malformed as error:
            raise OSError(errno.EINVAL, str(error)) from None
        if end != exchange.size and not fixed:
            raise OSError(errno.EINVAL, "more bytes than the message has")
        return values

    def _answer(self, exchange: Exchange) -> None:
        form = MESSAGES.get(exchange.kind)
        try:
            if exchange.room_length < HEADER.size + 4:
                exchange.refused = "no room for any reply"
                return
            if form is None:
                raise OSError(errno.EOPNOTSUPP, "no such message")  # noqa: TRY301 - answered as what operations raise
            values = self._parse(exchange, form.request)
            if exchange.kind in {WRITE, READ, READDIR}:
                self._transfer(exchange, values)
                return
            result = getattr(self, f"t_{form.name}")(*values)
            body = encode(form.reply, (result,) if form.single else result or ())
        except OSError as error:
            exchange.reply(RLERROR, encode("d", (error.errno or errno.EIO,)))
            return
        exchange.reply(exchange.kind + 1, body)

    def _transfer(self, exchange: Exchange, values: tuple[Any, ...]) -> None:
        number, offset, count = values
        if exchange.kind == WRITE:
            if WRITE_FIXED + count != exchange.size:
                raise OSError(errno.EINVAL, "a payload of another length")
            done = self.write(number, offset, cut(exchange.request, WRITE_FIXED, count))
            exchange.reply(WRITE + 1, encode("d", (done,)))
            return
        room = min(exchange.room_length, self.msize) - READ_FIXED
        views = cut(exchange.room, READ_FIXED, min(count, max(room, 0)))
        done = self.read(number, offset, views) if exchange.kind == READ else self.readdir(number, offset, views)
        exchange.reply(exchange.kind + 1, encode("d", (done,)), payload=done)

    # Version, attach, walk

    def t_version(self, msize: int, version: bytes) -> tuple[int, bytes]:
        """A new session: all fids are gone."""
        self.fids.close()
        if version != VERSION:
            return min(msize, MOST_MSIZE), b"unknown"
        if msize < LEAST_MSIZE:
            raise OSError(errno.EMSGSIZE, "messages that are too small")
        self.msize = min(msize, MOST_MSIZE)
        return self.msize, VERSION

    def t_auth(self, afid: int, uname: bytes, aname: bytes, n_uname: int) -> None:
        """Nobody has to say who they are, for which ENOENT is what diod's clients look for."""
        del afid, uname, aname, n_uname
        raise OSError(errno.ENOENT, "no authentication")

    def t_attach(self, fid: int, afid: int, uname: bytes, aname: bytes, n_uname: int) -> Qid:
        """The folder; `aname` names trees of servers that have several."""
        del uname, aname, n_uname
        if afid != NOFID:
            raise OSError(errno.EINVAL, "no authentication")
        with self.places.using(self.places.root) as root:
            info = os.stat(root)
            self.fids.add(fid, self.places.root)
        return self.share.qid(info)

    def t_walk(self, number: int, new: int, names: list[bytes]) -> list[Qid]:
        """Steps from a fid; another fid is at their end, if all could be made."""
        if len(names) > MAX_WALK:
            raise OSError(errno.EINVAL, "too many names")
        fid = self.fids.get(number)
        try:
            if fid.flags is not None and names and new == number:
                raise OSError(errno.EINVAL, "the fid is open")
            place = fid.place
            qids: list[Qid] = []
            for name in names:
                try:
                    if name not in {b".", b".."}:
                        checked(name)
                    below, info = self.places.walk(place, name)
                except OSError:
                    if place is not fid.place:
                        self.places.spare(place)
                    if not qids:
                        raise
                    return qids
                if place is not fid.place:
                    self.places.spare(place)
                place = below
                qids.append(self.share.qid(info))
            if new != number:
                try:
                    self.fids.add(new, place)
                finally:
                    self.places.spare(place)
            elif names:
                self.fids.move(fid, place)
            return qids
        finally:
            self.fids.done(fid)

    # Snapshots

    def save(self) -> dict[str, Any]:
        """The session, while nothing is being served."""
        return {"msize": self.msize, "fids": self.fids.save()}

    @staticmethod
    def check(saved: object) -> None:
        """SnapshotError if that is no session."""
        if not isinstance(saved, dict) or saved.keys() != {"msize", "fids"}:
            raise SnapshotError("this is no saved session of 9P")
        if type(saved["msize"]) is not int or not LEAST_MSIZE <= saved["msize"] <= MOST_MSIZE:
            raise SnapshotError("a saved session of 9P has impossible messages")
        Fids.check(saved["fids"])

    def load(self, saved: dict[str, Any]) -> None:
        """Be as `save` was called; `self` is new."""
        self.check(saved)
        self.msize = saved["msize"]
        self.fids.load(saved["fids"])
