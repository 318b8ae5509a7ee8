"""Characters to and from the host: a terminal, a pipe, a socket, by file descriptors.

One thread waits for the host. It never holds the machine's lock while it does, and devices never wait: output goes into
a buffer of a bounded size, and a device that finds it full is told when there is room. Input is read when the device
has taken what was read before, so the host's own flow control reaches whoever types.
"""

from __future__ import annotations

import os
import selectors
import threading
from typing import TYPE_CHECKING

from dbt.machine.chardev import CharBackend

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LIMIT = 1 << 16
CLOSING_SECONDS = 5
PIECE = 512  # POSIX: a pipe that is ready takes this much without blocking, whatever its descriptor's mode


class HostChar(CharBackend):
    """Reads from `read_fd` and writes to `write_fd` (either may be None), which stay the caller's.

    `lock` is the machine's. `at_end`: the input has ended. `error`: why output is dropped from now on, if it is.
    """

    def __init__(
        self, lock: AbstractContextManager[object], read_fd: int | None, write_fd: int | None, limit: int = LIMIT
    ) -> None:
        super().__init__()
        self.at_end = read_fd is None
        self.error: OSError | None = None
        self._lock = lock
        self._read_fd, self._write_fd = read_fd, write_fd
        self._limit = limit
        self._out = bytearray()  # these three under the machine's lock
        self._in = bytearray()
        self._was_full = False
        self._closing = self._closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="characters", daemon=True)
        self._thread.start()

    # The device's side, under the machine's lock

    def write(self, data: bytes) -> int:
        """Take what there is room for; everything, if nobody will ever read it."""
        if self._write_fd is None or self.error is not None or self._closed:
            return len(data)
        taken = data[: max(self._limit - len(self._out), 0)]
        self._was_full |= len(taken) < len(data)
        if taken:
            self._out += taken
            self._wake()
        return len(taken)

    def resume(self) -> None:
        """Offer what was read, and read on when it is gone."""
        if self._offer():
            self._wake()

    def _offer(self) -> bool:
        """Give input to the device; whether some was there and is gone."""
        if not self._in or self.device is None:
            return False
        del self._in[: self.device.receive(bytes(self._in))]
        return not self._in

    # The thread

    def _wake(self) -> None:
        if self._closed:
            return  # the number may be another file's by now
        try:
            os.write(self._wake_write, b"!")
        except BlockingIOError:
            return  # it is awake

    def _serve(self) -> None:
        with selectors.PollSelector() as selector:  # epoll takes no files: output may be one
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._closing:
                with self._lock:
                    wanted = self._wanted()
                self._watch(selector, wanted)
                for key, events in selector.select():
                    if key.fd == self._wake_read:
                        os.read(self._wake_read, 4096)
                        continue
                    if events & selectors.EVENT_READ:
                        self._read()
                    if events & selectors.EVENT_WRITE:
                        self._write()

    def _wanted(self) -> dict[int, int]:
        wanted: dict[int, int] = {}
        if self._read_fd is not None and not self.at_end and not self._in:
            wanted[self._read_fd] = selectors.EVENT_READ
        if self._write_fd is not None and self._out and self.error is None:
            wanted[self._write_fd] = wanted.get(self._write_fd, 0) | selectors.EVENT_WRITE
        return wanted

    def _watch(self, selector: selectors.BaseSelector, wanted: dict[int, int]) -> None:
        for key in list(selector.get_map().values()):
            if key.fd != self._wake_read and wanted.get(key.fd) != key.events:
                selector.unregister(key.fd)
        for fd, events in wanted.items():
            if fd not in selector.get_map():
                selector.register(fd, events)

    def _read(self) -> None:
        assert self._read_fd is not None
        try:
            data = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return
        except OSError:  # a pseudo-terminal whose other end was closed
            data = b""
        with self._lock:
            self.at_end = not data
            self._in += data
            self._offer()

    def _write(self) -> None:
        assert self._write_fd is not None
        with self._lock:
            piece = bytes(self._out[:PIECE])
        try:
            done = os.write(self._write_fd, piece)
        except BlockingIOError:
            return
        except OSError as error:
            with self._lock:
                self.error = error
                self._out.clear()
                self._tell()
            return
        with self._lock:
            del self._out[:done]
            if len(self._out) <= self._limit // 2:
                self._tell()

    def _tell(self) -> None:
        """The device may go on, if it had to stop."""
        if self._was_full and self.device is not None:
            self._was_full = False
            self.device.ready()

    def close(self) -> None:
        """Stop. Not under the machine's lock. What the host has not taken is lost. Again does nothing."""
        if self._closing:
            return
        self._closing = True
        self._wake()
        self._thread.join(CLOSING_SECONDS)
        with self._lock:
            self._closed = True
        if not self._thread.is_alive():  # else a terminal that is stopped holds it in a write: it ends with the process
            os.close(self._wake_read)
            os.close(self._wake_write)
