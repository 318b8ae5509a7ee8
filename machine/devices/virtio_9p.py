"""virtio 9P transport (version 1.2, section 5.9 has its number; Linux's net/9p/trans_virtio.c): a folder of the host.

Each chain is a message of 9P2000.L and room for its reply. Threads of `Workers` do what it says, in the guest's buffers
and not under the machine's lock, and several messages at once; who gets the lock first gives all replies that are ready
to the driver, with one interrupt.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.ninep import Exchange, Session
from dbt.machine.ninep.workers import Workers
from dbt.machine.registers import RO, Register, Registers, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import BUDGET, RINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.device import Backend, Saved
    from dbt.machine.machine import Machine
    from dbt.machine.ninep import Share
    from dbt.machine.virtio import Chain, VirtQueue

MOUNT_TAG = 1 << 0
QUEUE_SIZE = 128
MOST_TAG = 64


class Virtio9p(VirtioDevice):
    """virtio 9P transport: a folder of the host for a guest."""

    DEVICE_ID = 9
    FEATURES = MOUNT_TAG
    KEPT = frozenset({"tag_len", "tag"})

    CONFIG = Window(2 + MOST_TAG, CONFIG_SIZES, partial=True, placed=False)
    tag_len = Register(0, RO, "bytes of the tag", size=2)
    tag = Registers(2, RO, "what the guest mounts", count=MOST_TAG, size=1)

    def __init__(
        self,
        name: str,
        machine: Machine,
        share: Share | None = None,
        *,
        tag: str = "host",
        queue_size: int = QUEUE_SIZE,
        rings: int = RINGS,
    ) -> None:
        """No share: the tag is empty, and every message is an error."""
        data = tag.encode() if share else b""
        if len(data) > MOST_TAG or (share and not data):
            raise MapError(f"{name}: a tag of {len(data)} bytes: 1 to {MOST_TAG} are possible")
        super().__init__(name, machine, (queue_size,), rings=rings)
        self.tag_len = len(data)
        self.tag = list(data.ljust(MOST_TAG, b"\0"))
        self.share = share
        self.session = Session(share) if share else None
        self.workers = Workers(name)
        self._in_flight = 0
        self._quiet = threading.Condition(threading.Lock())
        self._finished: deque[tuple[VirtQueue, Chain, Exchange]] = deque()

    @property
    def config_size(self) -> int:
        """As long as the tag is."""
        return 2 + self.tag_len

    # Messages

    def on_notify(self, queue: VirtQueue) -> None:
        """Messages have come."""
        for chain in self.chains(queue):
            session = self.session
            exchange = Exchange(chain.readable, chain.writable, partial(self._done, queue, chain))
            if session is None:
                queue.drop(chain)
                self.fail("a message, and no folder is shared")
                return
            session.accept(exchange)
            with self._quiet:
                self._in_flight += 1
            self.workers.submit(partial(session.serve, exchange))

    def _done(self, queue: VirtQueue, chain: Chain, exchange: Exchange) -> None:
        """A worker has done one: its thread, no lock."""
        self._finished.append((queue, chain, exchange))
        with self.machine.lock:
            touched = set()
            for _ in range(BUDGET):  # others that wait for the lock will do the rest
                if not self._finished:
                    break
                queue, chain, exchange = self._finished.popleft()
                if exchange.refused:
                    ours = chain.ring is queue.ring  # else it is from before a reset
                    queue.drop(chain)
                    if ours:
                        self.fail(f"queue {queue.index}: {exchange.refused}")
                else:
                    queue.push(chain, exchange.length)
                    touched.add(queue)
                with self._quiet:
                    self._in_flight -= 1
                    self._quiet.notify_all()
            for touched_queue in touched:
                touched_queue.notify()

    def on_reset(self) -> None:
        """A new session; what the old one had is closed when nobody uses it."""
        super().on_reset()
        self._replace()

    def _replace(self) -> None:
        if self.session is not None and self.share is not None:
            self.workers.submit(self.session.close)
            self.session = Session(self.share)

    def backends(self) -> Iterable[Backend]:
        """The folder."""
        return () if self.share is None else (self.share,)

    def close(self) -> None:
        """Let go of the host's files. Not under the machine's lock."""
        self.workers.close()
        if self.session is not None:
            self.session.close()

    # Snapshots

    @property
    def busy(self) -> bool:
        """Whether workers have the guest's buffers."""
        return self._in_flight > 0

    def settle(self) -> None:
        """Wait for them."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._in_flight)

    def save(self) -> Saved:
        """The device and the fids, which are found again by their names."""
        saved = super().save()
        saved["session"] = self.session.save() if self.session else None
        return saved

    def check(self, saved: object) -> Saved:
        """The same after a look at it."""
        values = super().check(saved)
        session = saved.get("session") if isinstance(saved, dict) else None
        if (session is None) != (self.session is None):
            raise SnapshotError(f"{self.name}: a folder is shared, or was saved, and not both")
        if session is not None:
            Session.check(session)
        return values

    def wire(self, saved: Saved) -> None:
        """A new session with the saved fids."""
        super().wire(saved)
        self._replace()
        if self.session is not None:
            self.session.load(saved["session"])
