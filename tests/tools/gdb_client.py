"""The other side of the gdb stub: packets made by hand."""

from __future__ import annotations

import socket
import time

from dbt.gdb.packets import Connection


def packet(payload: bytes) -> bytes:
    return b"$" + payload + b"#%02x" % (sum(payload) & 0xFF)


def hexed(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little").hex().encode()


class Client:
    """The other side, by hand."""

    def __init__(self, where: str) -> None:
        for _ in range(3000):
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(where)
                break
            except OSError:
                self.socket.close()
                time.sleep(0.01)
        self.socket.settimeout(30)
        self.connection = Connection(self.socket)

    def ask(self, payload: bytes) -> bytes:
        self.socket.sendall(packet(payload))
        return self.answer()

    def answer(self) -> bytes:
        answer = self.connection.receive()
        assert answer is not None
        return answer

    def interrupt(self) -> bytes:
        self.socket.sendall(b"\x03")
        return self.answer()


# Ways to leave: what is sent before the client closes its end.
ENDS = {
    "closed": b"",
    "reset": b"",
    "cut": b"$m10000,1000",
    "cut at its checksum": b"$g#6",
    "cut at its start": b"$",
    "garbage": b"\xff\0$$$###}}}+-" * 50,
    "many packets at once": packet(b"g") * 50 + packet(b"m10000,1000") * 50,
    "detach": packet(b"D"),
    "detach of a process": packet(b"D;1"),
    "kill": packet(b"k"),
    "kill by vKill": packet(b"vKill;1"),
}
