"""The back end `dgram`: a frame in each datagram, as QEMU's `-netdev dgram`: UDP, multicast, or Unix sockets.

Nothing says whether the peer is there, so frames that cannot be sent are lost and counted. With multicast what is sent
comes back from the host's kernel: frames leave from a port of their own, by which they are known.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING

from dbt.machine.net.address import Address, bind, remove
from dbt.machine.net.backend import NetBackend
from dbt.machine.net.errors import NetError
from dbt.machine.net.loop import IN, Loop

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dbt.machine.net.offload import Buffer, Offload

READS = 32  # at once, under the lock
MOST = 65507  # bytes of UDP over IPv4


class DatagramNet(NetBackend):
    """`local`: where datagrams come to; `remote`: where they go. `lock` is the machine's."""

    KIND = "dgram"

    def __init__(self, lock: AbstractContextManager[object], local: Address | None, remote: Address) -> None:
        super().__init__()
        multicast = remote.family == socket.AF_INET and 224 <= int(remote.where[0].split(".")[0]) < 240
        if local is None and not multicast:
            raise NetError(str(remote), "a local address is missing", "dgram,local=:PORT,remote=HOST:PORT")
        if local is not None and local.family != remote.family:
            raise NetError(str(remote), f"{local} is an address of another kind")
        self.counts: Counter[str] = Counter()
        self._local, self._remote = local, remote
        self._mine: object = None  # the address that our own multicast comes from
        self._in = self._out = socket.socket(remote.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if multicast:
                self._join()
            else:
                assert local is not None
                bind(self._in, local)
        except NetError:
            self._close_sockets()
            raise
        self._stopped = False
        self.loop = Loop(lock, None, f"network {remote}")
        with lock:
            self.loop.watch(self._in.fileno(), IN, self._event)

    def _join(self) -> None:
        group, port = self._remote.where
        interface = self._local.where[0] if self._local is not None else "0.0.0.0"  # noqa: S104 - the kernel's choice
        try:
            self._in.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._in.bind((group, port))
            membership = socket.inet_aton(group) + socket.inet_aton(interface)
            self._in.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            if self._local is not None:
                self._out.bind((interface, 0))
                self._out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            self._out.connect((group, port))  # the kernel chooses the source now
        except OSError as error:
            raise NetError(str(self._remote), f"cannot be joined: {error.strerror}") from None
        self._mine = self._out.getsockname()

    def _close_sockets(self) -> None:
        for sock in {self._in, self._out}:
            sock.close()

    @property
    def port(self) -> int:
        """The local port, which may have been left to the host."""
        return int(self._in.getsockname()[1])

    def close(self) -> None:
        self.loop.close()
        with self.loop.lock:
            self.device = None
            self._close_sockets()
            remove(self._local)

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame for the peer."""
        del offload
        if len(frame) > MOST:
            self.counts["a frame that is larger than a datagram"] += 1
            return True
        try:
            if self._mine is None:
                self._out.sendto(frame, self._remote.where)
            else:
                self._out.send(frame)
        except OSError as error:  # its peer may start later
            self.counts[f"not sent: {error.strerror}"] += 1
        return True

    def _event(self, events: int) -> None:
        del events
        for _ in range(READS):
            try:
                frame, source = self._in.recvfrom(65536)
            except OSError:  # nothing more, or that the peer is not there
                return
            if frame and (self._mine is None or source != self._mine) and not self.keep(frame):
                self._stopped = True  # the others wait in the host's kernel
                self.loop.forget(self._in.fileno())
                return

    def resume(self) -> None:
        """The card has buffers."""
        if self.deliver() and self._stopped:
            self._stopped = False
            self.loop.watch(self._in.fileno(), IN, self._event)
