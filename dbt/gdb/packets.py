"""Packets of the remote protocol: `$payload#checksum`, acknowledged until both agree not to (manual E.1)."""

from __future__ import annotations

import select
import socket
from typing import Final

PACKET_SIZE: Final = 0x4000  # bytes of payload that either side may send
INTERRUPT: Final = b"\x03"
_ESCAPED: Final = b"#$}*"
_MOST: Final = 4 * PACKET_SIZE  # bytes that are kept without a packet in them


def escape(data: bytes) -> bytes:
    """Binary data as it goes into a payload."""
    if not any(byte in data for byte in _ESCAPED):
        return data
    return b"".join(bytes((0x7D, byte ^ 0x20)) if byte in _ESCAPED else bytes((byte,)) for byte in data)


def unescape(data: bytes) -> bytes:
    """What `escape` was given; an escape at the very end is dropped."""
    parts = data.split(b"}")
    return parts[0] + b"".join(bytes((part[0] ^ 0x20,)) + part[1:] for part in parts[1:] if part)


class Connection:
    """One debugger. Whatever arrives, `receive` gives packets or says that the other side is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.acknowledge = True
        self.closed = False
        self._poll = select.poll()  # select() knows no descriptors as high as ours
        self._poll.register(sock, select.POLLIN)
        self._buffer = bytearray()
        self._last = b""

    def receive(self) -> bytes | None:
        """The next payload, unescaped by nobody yet; INTERRUPT for Ctrl-C; None when the connection ends."""
        while True:
            found = self._take()
            if found is not None:
                return found
            if not self._fill():
                return None

    def send(self, payload: bytes) -> None:
        """Send a payload; that nobody is there to read it shows in `receive`."""
        self._last = b"$" + payload + b"#%02x" % (sum(payload) & 0xFF)
        self._put(self._last)

    def wants_stop(self) -> bool:
        """Whether Ctrl-C has arrived, or the other side is gone; to be asked while the guest runs."""
        while self._poll.poll(0):
            if not self._fill():
                return True
        # Only Ctrl-C is allowed while the guest runs; an acknowledgement may be left from before.
        if INTERRUPT in self._buffer:
            del self._buffer[: self._buffer.index(INTERRUPT) + 1]
            return True
        if len(self._buffer) > _MOST:
            self._buffer.clear()
        return False

    def close(self) -> None:
        self.closed = True
        self.socket.close()

    def _put(self, data: bytes) -> None:
        try:
            self.socket.sendall(data, socket.MSG_NOSIGNAL)  # SIGPIPE would be the guest's
        except OSError:
            return

    def _fill(self) -> bool:
        try:
            data = self.socket.recv(PACKET_SIZE)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def _take(self) -> bytes | None:
        """A whole packet from the buffer. What is none is dropped."""
        buffer = self._buffer
        while buffer:
            first = buffer[0]
            if first == INTERRUPT[0]:
                del buffer[0]
                return INTERRUPT
            if first == ord("-") and self.acknowledge and self._last:
                del buffer[0]
                self._put(self._last)
                continue
            if first != ord("$"):
                del buffer[0]
                continue
            end = buffer.find(b"#")
            if end < 0 or end + 3 > len(buffer):
                if len(buffer) > _MOST:
                    buffer.clear()  # nobody who keeps to the rules sends that
                return None
            payload, check = bytes(buffer[1:end]), bytes(buffer[end + 1 : end + 3])
            del buffer[: end + 3]
            try:
                right = int(check, 16) == sum(payload) & 0xFF
            except ValueError:
                right = False
            if self.acknowledge:
                self._put(b"+" if right else b"-")
            if right:
                return payload
        return None
