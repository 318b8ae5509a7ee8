"""A connection's bytes, plain or TLS, for one thread that receives and others that send at the same time.

Python's SSLSocket is not made for two threads; an SSLObject between two memory buffers, used under a lock, is.
"""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import socket

PIECE = 1 << 18


class Closed(OSError):
    """The other side has ended the connection."""


class Stream:
    """A connected socket."""

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.secure = False
        self._sending = threading.Lock()

    def receive(self, length: int) -> bytes:
        """Exactly `length` bytes."""
        data = bytearray(length)
        self.receive_into(memoryview(data))
        return bytes(data)

    def receive_into(self, view: memoryview) -> None:
        """Fill `view`."""
        while len(view):
            count = self._some(view)
            if not count:
                raise Closed("the connection has ended")
            view = view[count:]

    def _some(self, view: memoryview) -> int:
        return self.socket.recv_into(view)

    def send(self, *parts: bytes | memoryview) -> None:
        """Send everything, not mixed with what other threads send."""
        with self._sending:
            self._send(parts)

    def _send(self, parts: tuple[bytes | memoryview, ...]) -> None:
        if sum(map(len, parts)) <= PIECE:
            self.socket.sendall(b"".join(parts))
            return
        for part in parts:
            self.socket.sendall(part)

    def shut(self) -> None:
        """Make every thread that waits for this connection give up."""
        import socket

        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Let go."""
        self.socket.close()


class SecureStream(Stream):
    """The same after STARTTLS. The constructor does TLS's handshake."""

    def __init__(
        self, socket: socket.socket, context: ssl.SSLContext, *, server: bool, name: str | None = None
    ) -> None:
        super().__init__(socket)
        self.secure = True
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self._lock = threading.Lock()  # of the TLS state
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
        self._flush()

    def _feed(self) -> None:
        data = self.socket.recv(PIECE)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        """Send what TLS has to say; one at a time, or its records would change places."""
        with self._sending:
            self._send_pending()

    def _send_pending(self) -> None:
        with self._lock:
            data = self._outgoing.read()
        if data:
            self.socket.sendall(data)

    def _some(self, view: memoryview) -> int:
        while True:
            try:
                with self._lock:
                    return cast("int", self._tls.read(len(view), view))
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0
            if self._outgoing.pending:
                self._flush()
            self._feed()

    def _send(self, parts: tuple[bytes | memoryview, ...]) -> None:
        for part in parts:
            view = memoryview(part)
            while view:
                with self._lock:
                    count = self._tls.write(view[:PIECE])
                view = view[count:]
                self._send_pending()
