"""Messages between processes of ours over a Unix socket: pickles behind a head that says how long they are.

A channel is broken for good by the first thing that goes wrong in the middle of a message, be it an exception out of a
signal handler: nobody could tell where the next one starts. It is closed then, and whoever uses it starts anew.
Sending, looking whether there is an answer and taking it are three calls, so that the caller may do something else.
"""

from __future__ import annotations

import errno
import pickle
import select
import socket
import time
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD: Final = Struct("<4sQ")  # mark, bytes that follow
_MARK: Final = b"\xd7msg"
_LIMIT: Final = 1 << 30  # bytes of a message; packs with every stencil there is have a few MiB
_PART: Final = 1 << 16
_SLICE: Final = 0.1  # seconds between two looks at what else may have happened
_BLIND: Final = 0.002  # the same where one cannot be woken up


class Ended(Exception):
    """The other side has ended, or what it sends is no message."""


class Channel:
    """One end of a connection.

    `idle` is called every now and then while there is nothing to do but to wait, with the seconds since something was
    sent or received; what it raises ends the waiting, and the channel.
    """

    def __init__(self, connection: socket.socket, idle: Callable[[float], None] | None = None) -> None:
        self._socket = connection
        self._idle = idle
        self._received = bytearray()
        self._moved = time.monotonic()

    def close(self) -> None:
        """Nothing can be sent or received any more."""
        self._socket.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is broken."""
        return self._socket.fileno() < 0

    def send(self, message: object) -> None:
        """Send a message. Raises Ended."""
        data = pickle.dumps(message)
        view = memoryview(_HEAD.pack(_MARK, len(data)) + data)
        self._moved = time.monotonic()
        try:
            while view:
                try:
                    view = view[self._socket.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
                    self._moved = time.monotonic()
                except BlockingIOError:
                    self._wait(select.POLLOUT)
        except OSError as error:
            self.close()
            raise Ended(str(error)) from error
        except BaseException:
            self.close()
            raise

    def ready(self) -> bool:
        """Whether `receive` would return at once. Raises Ended. Never waits."""
        try:
            return self._fill()
        except OSError as error:
            self.close()
            raise Ended(str(error)) from error
        except BaseException:
            self.close()
            raise

    def receive(self) -> Any:
        """Wait for a message and take it. Raises Ended."""
        while not self.ready():
            self._pause(select.POLLIN)
        start = _HEAD.size
        end = start + _HEAD.unpack_from(self._received)[1]
        data = bytes(memoryview(self._received)[start:end])
        del self._received[:end]
        try:
            return pickle.loads(data)  # noqa: S301 - from a process of our own
        except Exception as error:
            self.close()
            raise Ended(f"no message: {error!r}") from error

    def wait(self, seconds: float) -> bool:
        """Wait for a message so long at most: whether there is one. Raises Ended."""
        until = time.monotonic() + seconds
        while not self.ready():
            left = until - time.monotonic()
            if left <= 0:
                return False
            poller = select.poll()
            poller.register(self._socket, select.POLLIN)
            poller.poll(left * 1000)
        return True

    def _fill(self) -> bool:
        """Take what has arrived; whether that is a whole message."""
        while True:
            missing = self._missing()
            if not missing:
                return True
            try:
                part = self._socket.recv(min(missing, _PART), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if not part:
                raise Ended("the connection ended")
            self._received += part
            self._moved = time.monotonic()

    def _missing(self) -> int:
        """Bytes that are missing of the next message, as far as that is known."""
        if len(self._received) < _HEAD.size:
            return _HEAD.size - len(self._received)
        mark, size = _HEAD.unpack_from(self._received)
        if mark != _MARK or size > _LIMIT:
            raise Ended("no message: a wrong head")
        return int(_HEAD.size + size - len(self._received))

    def _pause(self, events: int) -> None:
        """As _wait; for callers that have no `except` of their own around it."""
        try:
            self._wait(events)
        except BaseException:
            self.close()
            raise

    def _wait(self, events: int) -> None:
        """Wait until the socket may be used, or for a moment."""
        poller = select.poll()  # select() takes no descriptors as high as those that are hidden from guests
        poller.register(self._socket, events)
        try:
            ready = poller.poll(_SLICE * 1000 if self._idle else None)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            ready = []  # a guest has set the limit of descriptors to 0: then none can be waited for (poll(2))
            time.sleep(_BLIND)
        if not ready and self._idle:
            self._idle(time.monotonic() - self._moved)
