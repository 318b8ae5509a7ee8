"""Addresses of the host's sockets, as users write them: `HOST:PORT`, `[HOST6]:PORT`, `:PORT` or `unix:PATH`."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Any

from dbt.machine.net.errors import NetError


@dataclass(frozen=True, slots=True)
class Address:
    """`where` is what socket functions take."""

    family: int
    where: Any
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def path(self) -> str | None:
        """The file of a Unix socket."""
        return self.where if self.family == socket.AF_UNIX else None


def parse_address(text: str, kind: int, *, default: str = "127.0.0.1") -> Address:
    """The address; names are looked up now. `kind`: SOCK_STREAM or SOCK_DGRAM; `default`: the host of `:PORT`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not 0 < len(os.fsencode(path)) < 108:
            raise NetError(text, "a path of a Unix socket has 1 to 107 bytes")
        return Address(socket.AF_UNIX, path, text)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise NetError(text, "this is no address", "HOST:PORT, :PORT or unix:PATH")
    host = host.removeprefix("[").removesuffix("]") or default
    try:
        family, _, _, _, where = socket.getaddrinfo(host, int(port), type=kind)[0]
    except OSError as error:
        raise NetError(text, str(error.strerror)) from None
    return Address(family, where, text)


def bind(sock: socket.socket, address: Address) -> None:
    """Bind. A Unix socket's file that nobody answers at any more is replaced."""
    path = address.path
    if path is not None and _left_behind(path, sock.type):
        os.unlink(path)
    try:
        sock.bind(address.where)
    except OSError as error:
        raise NetError(str(address), f"cannot be listened at: {error.strerror}") from None


def _left_behind(path: str, kind: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def remove(address: Address | None) -> None:
    """The file of a Unix socket that was bound."""
    if address is not None and address.path is not None:
        with contextlib.suppress(OSError):
            os.unlink(address.path)
