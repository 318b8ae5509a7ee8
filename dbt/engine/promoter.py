"""The supervisor's side of region compilation: a connection to a process that lives as long as this one.

Messages are pickles behind a mark and their length, both ways between processes of our own. A request names the hot
block; the worker asks for the guest pages that it wants to see, then sends the region or why there is none.

The worker's standard error is the same socket, so what LLVM has to say before it aborts stands between messages: the
mark, which no text has in it, tells them apart.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from .build import start_process
from .layout import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cache import Store

PATIENCE: Final = 120.0  # seconds that the worker may take for one region
DEATHS: Final = 3  # after so many, nothing is promoted any more
MARK: Final = b"\xffregion\0"
LENGTH_BYTES: Final = 8
MOST_TEXT: Final = 4096  # bytes of what is said between messages that are kept, the last ones


def send(connection: socket.socket, message: object) -> None:
    """Send a message."""
    data = pickle.dumps(message)
    connection.sendall(MARK + len(data).to_bytes(LENGTH_BYTES, "little") + data)


def receive(connection: socket.socket) -> Any:
    """Wait for a message. Raises EOFError where the other side has ended, with what it has said before."""
    said = bytearray()
    while not said.endswith(MARK):
        part = connection.recv(1 if said else len(MARK))
        if not part:
            raise EOFError(said.decode("utf-8", "replace").strip())
        said += part
        del said[:-MOST_TEXT]
    size = int.from_bytes(_exactly(connection, LENGTH_BYTES), "little")
    return pickle.loads(_exactly(connection, size))  # noqa: S301 - from a process of our own


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError("the connection ended")
        parts += part
    return bytes(parts)


class Promoter:
    """Has regions compiled. The worker is started with the first request, and again if it died."""

    def __init__(self, store: Store, guest: str) -> None:
        self._store = store
        self._guest = guest
        self._connection: socket.socket | None = None
        self._owner = 0
        self._deaths = 0

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let the worker go; it ends when it notices."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def region(
        self, entry: int, key: tuple[tuple[int, ...], bool], page: Callable[[int], bytes]
    ) -> tuple[Any, Any] | None:
        """(RegionCode, guest ranges) for the block at `entry`; None if there is none.

        `key`: stop addresses, whether all flags are kept.
        `page`: gives the bytes of a guest page.
        """
        if self._deaths >= DEATHS:
            return None
        finished = False
        try:
            connection = self._connected()
            send(connection, (self._guest, entry, *key))
            while True:
                kind, value = receive(connection)
                if kind == "page":
                    send(connection, page(value * PAGE_SIZE))
                    continue
                finished = True
                if kind == "region":
                    return value  # type: ignore[no-any-return]
                self._say(f"no region at {entry:#x}: {value}")
                return None
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._deaths += 1
            if self._deaths == 1:
                self._say("the compiler process ended; hot code goes on in the baseline engine")
                if str(error):
                    self._say(f"it said: {error}")
            return None
        finally:
            if not finished:
                self.close()

    def _say(self, text: str) -> None:
        if not self._store.quiet and sys.stderr is not None:
            sys.stderr.write(f"dragoman: {text}\n")

    def _connected(self) -> socket.socket:
        if self._owner != os.getpid():  # a fork: the connection is the parent's
            self.close()
        if self._connection is None:
            self._owner = os.getpid()
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                before = signal.SIGCHLD in signal.sigpending()
                self._connection = start_process(self._store.folder, "region_worker")
                if not before and signal.SIGCHLD not in blocked:
                    signal.sigtimedwait([signal.SIGCHLD], 0)  # of the middle process
            finally:
                # Not SIG_SETMASK: see build.py
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals() - blocked)
            self._connection.settimeout(PATIENCE)
        return self._connection
