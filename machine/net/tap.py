"""The back end `tap`: a network interface of the host's (Linux's Documentation/networking/tuntap.rst).

The interface takes checksums and segmentation in whole (IFF_VNET_HDR), and gives frames so; what the card does not take
is segmented on the way. Somebody with rights has to make the interface, or the process needs CAP_NET_ADMIN:

    ip tuntap add dev tap0 mode tap user $USER && ip link set tap0 up master br0
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections import Counter
from typing import TYPE_CHECKING

from dbt.machine.net.backend import NetBackend
from dbt.machine.net.errors import NetError
from dbt.machine.net.loop import IN, OUT, Loop
from dbt.machine.net.offload import CSUM, ECN, HEADER, MAX_FRAME, NO_HEADER, TSO4, TSO6, Buffer, Offload, unpack

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

DEVICE = "/dev/net/tun"
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNSETVNETLE = 0x400454CA, 0x400454D0, 0x400454D8, 0x400454DC
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN = 1, 2, 4, 8
READS = 16  # at once, under the lock


class TapNet(NetBackend):
    """`name`: the interface's; one with %d is completed by the kernel. `lock` is the machine's."""

    KIND = "tap"
    offers = CSUM | TSO4 | TSO6 | ECN

    def __init__(self, lock: AbstractContextManager[object], name: str = "tap%d") -> None:
        super().__init__()
        if not 0 < len(name.encode()) < 16:
            raise NetError("tap", f"{name!r} is no name of an interface", "1 to 15 bytes")
        self.counts: Counter[str] = Counter()
        self._watched = IN
        self._stopped = False
        self._fd = self._open(name)
        self.loop = Loop(lock, None, f"network {self.name}")
        with lock:
            self.loop.watch(self._fd, IN, self._event)

    def _open(self, name: str) -> int:
        hint = "make it for this user: ip tuntap add dev tap0 mode tap user NAME; or use the back end user"
        try:
            fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise NetError(DEVICE, str(error.strerror), hint) from None
        try:
            wanted = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
            got = fcntl.ioctl(fd, TUNSETIFF, wanted)
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER.size))
            fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))
            fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
        except OSError as error:
            os.close(fd)
            raise NetError(f"tap {name}", str(error.strerror), hint) from None
        self.name = got[:16].rstrip(b"\0").decode()
        return fd

    def close(self) -> None:
        self.loop.close()
        with self.loop.lock:
            self.device = None
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def put(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """A frame for the host."""
        try:
            os.writev(self._fd, [NO_HEADER if offload is None else offload.pack(), frame])
        except BlockingIOError:
            self._watch(self._watched | OUT)
            return False
        except OSError as error:  # the interface is down, or it takes no such frame
            self.counts[f"not sent: {error.strerror}"] += 1
        return True

    def _watch(self, events: int) -> None:
        if events != self._watched:
            if not events:
                self.loop.forget(self._fd)
            elif self._watched:
                self.loop.change(self._fd, events)
            else:
                self.loop.watch(self._fd, events, self._event)
            self._watched = events

    def _event(self, events: int) -> None:
        if events & OUT:
            self._watch(self._watched & ~OUT)
            self.room()
        if not events & ~OUT:  # what is removed has an error and nothing to read: reading says which
            return
        for _ in range(READS):
            try:
                data = os.read(self._fd, HEADER.size + MAX_FRAME)
            except BlockingIOError:
                return
            except OSError as error:  # somebody has removed the interface
                self.counts[f"gone: {error.strerror}"] += 1
                self._watch(0)
                return
            if not self.keep(data[HEADER.size :], unpack(data)):
                self._stopped = True
                self._watch(self._watched & ~IN)
                return

    def resume(self) -> None:
        """The card has buffers."""
        if self.deliver() and self._stopped:
            self._stopped = False
            self._watch(self._watched | IN)
