"""How the debugger's connection makes a guest stop that runs: by a host signal, or a thread where no signal can.

The kernel sends KICK when something arrives (O_ASYNC, fcntl(2)), so nothing looks at the socket while the guest runs.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dbt.engine.cpu import Cpu

    from .packets import Connection

KICK: Final = 64  # the host signal by which the connection makes the guest stop: the last real-time signal
LEFT_ALONE: Final = frozenset((4, 5, 7, 8, 11, 9, 19, 17, 18, 23, 28))  # ours, unblockable, ignored by default
_F_SETSIG, _F_SETOWN_EX, _F_OWNER_TID = 10, 15, 0


class KickedSignals:
    """The host signals of a guest that is debugged: KICK is ours, and the default actions are left to gdb."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401 - Signals or PlainSignals
        self._inner = inner
        self._later: list[tuple[int, bytes]] = []
        self.debugged = True

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all the rest is as it was
        return getattr(self._inner, name)

    def install(self, signo: int, flags: int = 0) -> None:
        if signo != KICK:
            self._inner.install(signo, flags)

    def restore(self, signo: int, how: int, flags: int = 0) -> None:
        if signo == KICK:
            return
        if self.debugged and how == 0 and signo not in LEFT_ALONE:
            self._inner.install(signo, flags)
        else:
            self._inner.restore(signo, how, flags)

    def take(self) -> list[tuple[int, bytes]]:
        noted = self._later + [entry for entry in self._inner.take() if entry[0] != KICK]
        self._later = []
        return noted

    def forget_kicks(self, env: Any) -> None:  # noqa: ANN401 - a view of a struct
        """Of commands that have been answered: they must not cut a system call short."""
        self._later = self.take()
        env.poll = int(bool(self._later))


class Watcher:
    """Makes a CPU stop when its debugger says something, where no signal can: a thread that waits for input.

    It looks once for each `arm`: while what has arrived is not read, there is nothing new to be told.
    """

    def __init__(self, cpu: Cpu, connection: Connection) -> None:
        self._cpu = cpu
        self._socket = connection.socket.fileno()
        self._armed = threading.Event()
        self._ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="gdb input", daemon=True)
        self._thread.start()

    def arm(self) -> None:
        """The guest is about to run."""
        self._armed.set()

    def close(self) -> None:
        os.close(self._end)
        self._armed.set()
        self._thread.join()
        os.close(self._ended)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._ended, 0)  # POLLHUP when the other end is closed
        while True:
            self._armed.wait()
            self._armed.clear()
            if any(fd == self._ended for fd, _ in poll.poll()):
                return
            self._cpu.stop()


def send_kicks(connection: Connection) -> None:
    """Have the kernel send KICK to this thread when something arrives."""
    fd = connection.socket.fileno()
    fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, threading.get_native_id()))
    fcntl.fcntl(fd, _F_SETSIG, KICK)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def send_no_kicks(connection: Connection) -> None:
    """End that. One may be pending still."""
    fd = connection.socket.fileno()
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)
