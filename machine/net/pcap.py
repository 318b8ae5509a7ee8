"""Capture as a filter in front of any back end: a pcap file (draft-ietf-opsawg-pcap) that Wireshark and tcpdump read.

A thread writes, whole records at a time and nothing kept back longer than it takes, so a process that is killed leaves
a file that can be read. Frames are written as cards and back ends give them to each other: those that leave
segmentation and checksums to the other side are large, and their checksums are not done yet. When the file has its
largest size, or the disk is full, no more is written.
"""

from __future__ import annotations

import os
import queue
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from dbt.machine.net.backend import NetBackend
from dbt.machine.net.errors import NetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.net.backend import NetDevice
    from dbt.machine.net.offload import Buffer, Offload

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
FILE = struct.Struct("<IHHIIII")
RECORD = struct.Struct("<IIII")
ETHERNET = 1
SNAPLEN = 262_144
QUEUED = 16 << 20  # bytes that may wait for the disk


class PcapNet(NetBackend):
    """`inner` with everything that passes written to `path`. `lost`: frames that were not written, for any reason."""

    KIND = "pcap"

    def __init__(
        self,
        inner: NetBackend,
        path: str,
        *,
        nanoseconds: bool = True,
        snaplen: int = SNAPLEN,
        limit: int | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.lost = 0
        self.error: OSError | None = None
        self._unit = 1 if nanoseconds else 1000
        self._snaplen = min(snaplen, SNAPLEN)
        self._limit = limit
        self._now = now
        self._records: list[bytes] = []  # of the call that is under way
        self._depth = 0
        self._size = FILE.size
        self._queued = self._written = 0  # bytes; each is one side's
        self._blocks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            magic = NANOSECONDS if nanoseconds else MICROSECONDS
            os.write(self._fd, FILE.pack(magic, 2, 4, 0, 0, self._snaplen, ETHERNET))
        except OSError as error:
            raise NetError(path, str(error.strerror)) from None
        self._thread = threading.Thread(target=self._serve, name="capture", daemon=True)
        self._thread.start()

    # Between the card and the back end

    def attach(self, device: NetDevice) -> None:
        super().attach(device)
        self.up = self.inner.up
        self.inner.attach(self)

    @property
    def accepts(self) -> int:
        """What the card takes."""
        return self.device.accepts if self.device is not None else 0

    def send(self, frame: Buffer, offload: Offload | None = None) -> bool:
        place = self._note(frame)
        taken = self.inner.send(frame, offload)
        if not taken and place is not None:
            self._records[place] = b""  # it comes again
        self._done()
        return taken

    def receive(self, frame: Buffer, offload: Offload | None = None) -> bool:
        """The back end's frame."""
        place = self._note(frame)
        taken = self.device.receive(frame, offload) if self.device is not None else True
        if not taken and place is not None:
            self._records[place] = b""
        self._done()
        return taken

    def ready(self) -> None:
        """As the back end says."""
        if self.device is not None:
            self.device.ready()

    def link_changed(self) -> None:
        """As the back end says."""
        self.up = self.inner.up
        if self.device is not None:
            self.device.link_changed()

    def guest_error(self, thing: str, detail: str = "") -> None:
        """As the back end says."""
        if self.device is not None:
            self.device.guest_error(thing, detail)

    def set_link(self, *, up: bool) -> None:
        self.inner.set_link(up=up)

    def resume(self) -> None:
        self.inner.resume()

    # Records

    def _note(self, frame: Buffer) -> int | None:
        """A record, in the order of events: an answer comes from within `send`. Its place, if there is one."""
        self._depth += 1
        size = min(len(frame), self._snaplen)
        if (
            self.error is not None
            or self._queued - self._written > QUEUED
            or (self._limit is not None and self._size + RECORD.size + size > self._limit)
        ):
            self.lost += 1
            return None
        seconds, rest = divmod(self._now(), 1_000_000_000)
        self._records.append(RECORD.pack(seconds, rest // self._unit, size, len(frame)) + bytes(frame[:size]))
        return len(self._records) - 1

    def _done(self) -> None:
        self._depth -= 1
        if not self._depth and self._records:
            piece = b"".join(self._records)
            self._records.clear()
            if piece:
                self._size += len(piece)
                self._queued += len(piece)
                self._blocks.put(piece)

    def _serve(self) -> None:
        good = FILE.size
        while piece := self._blocks.get():
            self._written += len(piece)
            if self.error is not None:
                continue
            try:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._fd, view) :]
                good += len(piece)
            except OSError as error:
                self.error = error
                with suppress(OSError):  # a pipe, whose reader has gone
                    os.ftruncate(self._fd, good)

    def close(self) -> None:
        """Write what is left, and close the back end too. Not under the machine's lock."""
        self.inner.close()
        if self._thread.is_alive():
            self._blocks.put(b"")
            self._thread.join()
            os.close(self._fd)
