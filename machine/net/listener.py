"""A listening socket of a back end's, in its loop."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from dbt.machine.clock import SECOND
from dbt.machine.net.loop import IN

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from dbt.machine.net.loop import Loop

ACCEPTS = 16  # at once, under the lock
NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """`accepted` is given each connection, which does not block, and its address, while this is `open`."""

    def __init__(self, loop: Loop, sock: socket.socket, accepted: Callable[[socket.socket, Any], None]) -> None:
        self.sock = sock
        self.open = False
        self._loop = loop
        self._accepted = accepted
        self._again = loop.timer(self._watch)

    def start(self) -> None:
        """Take connections."""
        self.open = True
        self._watch()

    def stop(self) -> None:
        """Let others wait in the host's kernel."""
        self.open = False
        self._again.cancel()
        self._loop.forget(self.sock.fileno())

    def close(self) -> None:
        """The same, for ever."""
        self.stop()
        self.sock.close()

    def _watch(self) -> None:
        self._loop.watch(self.sock.fileno(), IN, self._event)

    def _event(self, events: int) -> None:
        del events
        for _ in range(ACCEPTS):
            try:
                sock, address = self.sock.accept()
            except OSError as error:
                if error.errno in NO_ROOM:  # who waits is still there: the loop would come back at once, and in vain
                    self._loop.forget(self.sock.fileno())
                    self._loop.after(self._again, SECOND)
                return
            sock.setblocking(False)
            self._accepted(sock, address)
            if not self.open:
                return
