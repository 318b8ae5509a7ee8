"""The back end `socket`: frames over a stream socket, each behind its length in 4 bytes, as QEMU's `-netdev stream`.

One peer at a time. Without a peer, frames are lost; one that listens waits for the next, one that connects tries again
after `reconnect` seconds, if that is given. What the peer does not take is kept up to LIMIT bytes, then the card waits;
what the card does not take is left in the host's kernel, so the peer waits.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.net.address import Address, bind, remove
from dbt.machine.net.backend import NetBackend
from dbt.machine.net.errors import NetError
from dbt.machine.net.listener import Listener
from dbt.machine.net.loop import IN, OUT, Loop
from dbt.machine.net.offload import MAX_FRAME

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dbt.machine.clock import Clock
    from dbt.machine.net.offload import Buffer, Offload

LENGTH = struct.Struct(">I")
LIMIT = 1 << 20
READ = 1 << 16
HELD = MAX_FRAME + LENGTH.size  # what is more than a frame has not been taken by the card: read no more


class StreamNet(NetBackend):
    """`lock` is the machine's; `listen` or connect. `counts`: what went wrong, by reason."""

    KIND = "socket"

    def __init__(
        self,
        lock: AbstractContextManager[object],
        address: Address,
        *,
        listen: bool,
        reconnect: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.address = address
        self.counts: Counter[str] = Counter()
        self.connected = False
        self._reconnect = reconnect
        self._listener: Listener | None = None
        self._sock: socket.socket | None = None
        self._watched = 0
        self._out = bytearray()
        self._in = bytearray()
        self._refused = False  # the card waits for room
        listener = self._listen() if listen else None
        self.loop = Loop(lock, clock, f"network {address}")
        with lock:
            self._retry = self.loop.timer(self._connect)
            if listener is not None:
                self._listener = Listener(self.loop, listener, self._accept)
                self._listener.start()
        if not listen:
            try:
                with lock:
                    self._connect(first=True)
            except NetError:
                self.close()
                raise

    def _listen(self) -> socket.socket:
        listener = socket.socket(self.address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self.address.family != socket.AF_UNIX:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bind(listener, self.address)
            listener.listen(1)
        except NetError:
            listener.close()
            raise
        return listener

    @property
    def port(self) -> int:
        """The port that is listened at, which may have been left to the host."""
        return int(self._listener.sock.getsockname()[1]) if self._listener else 0

    def close(self) -> None:
        self.loop.close()
        with self.loop.lock:
            self.device = None
            self._drop("")
            if self._listener is not None:
                self._listener.close()
                remove(self.address)
                self._listener = None

    # The connection

    def _accept(self, sock: socket.socket, address: object) -> None:
        del address
        assert self._listener is not None
        self._listener.stop()  # others wait until this one has gone
        self._begin(sock)

    def _connect(self, *, first: bool = False) -> None:
        try:
            sock = socket.socket(self.address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # the host has no descriptors: perhaps later
            self._failed(error.errno or 0, first=first)
            return
        status = sock.connect_ex(self.address.where)
        if status not in {0, errno.EINPROGRESS}:
            sock.close()
            self._failed(status, first=first)
            return
        self._sock = sock
        self._watched = OUT
        self.loop.watch(sock.fileno(), OUT, self._connecting)

    def _connecting(self, events: int) -> None:
        del events
        assert self._sock is not None
        status = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        sock, self._sock = self._sock, None
        self.loop.forget(sock.fileno())
        if status:
            sock.close()
            self._failed(status)
        else:
            self._begin(sock)

    def _failed(self, status: int, *, first: bool = False) -> None:
        reason = errno.errorcode.get(status, str(status))
        self.counts[f"cannot connect: {reason}"] += 1
        if self._reconnect is not None:
            self.loop.after(self._retry, int(self._reconnect * SECOND))
        elif first:
            raise NetError(str(self.address), f"cannot connect: {reason}", "reconnect=SECONDS tries again")

    def _begin(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._watched = 0
        self.connected = True
        self._watch()

    def _drop(self, reason: str) -> None:
        """There is no peer any more."""
        if reason:
            self.counts[reason] += 1
        if self._sock is not None:
            self.loop.forget(self._sock.fileno())
            self._sock.close()
        self._sock, self.connected, self._watched = None, False, 0
        self._out.clear()
        self._in.clear()
        if self.loop.closed:
            return
        if self._listener is not None:
            self._listener.start()
        elif self._reconnect is not None:
            self.loop.after(self._retry, int(self._reconnect * SECOND))
        self._told()

    def _watch(self) -> None:
        if self._sock is None or not self.connected:
            return
        wanted = (OUT if self._out else 0) | (0 if len(self._in) > HELD else IN)
        if wanted != self._watched:
            fd = self._sock.fileno()
            if not wanted:
                self.loop.forget(fd)
            elif self._watched:
                self.loop.change(fd, wanted)
            else:
                self.loop.watch(fd, wanted, self._event)
            self._watched = wanted

    def _event(self, events: int) -> None:
        if events & OUT:
            self._flush_out()
        if events & ~OUT and self.connected:
            self._read()
        self._watch()

    # Frames

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame for the peer."""
        del offload
        if not self.connected:
            return True
        if len(self._out) >= LIMIT:
            self._refused = True
            return False
        idle = not self._out
        self._out += LENGTH.pack(len(frame))
        self._out += frame
        if idle:
            self._flush_out()
            self._watch()
        return True

    def _flush_out(self) -> None:
        assert self._sock is not None
        try:
            done = self._sock.send(self._out)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(f"the peer has gone: {error.strerror}")
            return
        del self._out[:done]
        if len(self._out) < LIMIT // 2:
            self._told()

    def _told(self) -> None:
        if self._refused:
            self._refused = False
            self.room()

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(f"the peer has gone: {error.strerror}")
            return
        if not data:
            self._drop("the peer has gone")
            return
        self._in += data
        self._give()

    def _give(self) -> None:
        """Give the card what is whole."""
        at, data = 0, self._in
        while len(data) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if length > MAX_FRAME:
                self._drop("the peer sends no frames")
                return
            end = at + LENGTH.size + length
            if len(data) < end or not self.offer(bytes(data[at + LENGTH.size : end])):
                break
            at = end
        del data[:at]

    def resume(self) -> None:
        """The card has buffers."""
        if self.deliver() and self._in:
            self._give()
            self._watch()
