"""Forwards: ports of the host that lead to a guest."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from dbt.machine.net.errors import NetError
from dbt.machine.net.listener import Listener

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet
    from dbt.machine.net.user.options import Forward


class TcpForward:
    """A listening socket."""

    def __init__(self, net: UserNet, sock: socket.socket, forward: Forward) -> None:
        self.net = net
        self.guest = (forward.guest or net.options.first, forward.guest_port)
        self.listener = Listener(net.loop, sock, self._accepted)
        self.listener.start()

    def _accepted(self, sock: socket.socket, address: tuple[str, int]) -> None:
        host, port = address
        self.net.tcp.accept(sock, (self.net.hosts.of_host(host), port), self.guest)


def bind_all(forwards: tuple[Forward, ...]) -> list[tuple[Forward, socket.socket]]:
    """The host's sides. NetError if the host refuses one: then there is none."""
    with contextlib.ExitStack() as stack:
        sockets = [(forward, stack.enter_context(_bind(forward))) for forward in forwards]
        stack.pop_all()
    return sockets


def _bind(forward: Forward) -> socket.socket:
    kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if forward.protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((forward.host, forward.host_port))
        if forward.protocol == "tcp":
            sock.listen(128)
    except OSError as error:
        sock.close()
        raise NetError("user", f"hostfwd {forward}: {error.strerror}") from None
    return sock
