"""The base of virtio devices (section 2): status, features, configuration space and queues, whatever the transport.

A device declares its configuration space as a window CONFIG of registers, which transports show; registers that do not
depend on the driver are in KEPT and set in its constructor. It is entered by `on_notify`, and loops over a queue by
`chains`, which ends after a budget and goes on from a timer, so that a guest never holds the machine's lock for long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dbt.machine.device import Device
from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.memory import AccessSizes, Attributes, DmaPort
from dbt.machine.native.builtin import builtins
from dbt.machine.registers import State
from dbt.machine.virtio.queue import VirtQueue
from dbt.machine.virtio.spec import (
    ACKNOWLEDGE,
    ANY_LAYOUT,
    DEVICE_NEEDS_RESET,
    DRIVER,
    DRIVER_OK,
    EVENT_IDX,
    FAILED,
    FEATURES_OK,
    INDIRECT_DESC,
    MAX_QUEUE_SIZE,
    RING_RESET,
    VERSION_1,
)
from dbt.machine.work import UNITS, Work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbt.machine.device import Saved
    from dbt.machine.machine import Machine
    from dbt.machine.virtio.chain import Chain
    from dbt.machine.virtio.transport import Transport

CONFIG_SIZES = AccessSizes((1, 8), (1, 8))
RINGS = INDIRECT_DESC | EVENT_IDX | RING_RESET  # what is offered unless the board says otherwise
LEGACY_BITS = (1 << 32) - 1
WRITABLE = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED
MAX_QUEUES = 1024
BUDGET = UNITS  # chains in one go
LONG = 4  # 16 buffers of a chain are as one more


class VirtioDevice(Device):
    """See the module. `DEVICE_ID`: section 5. `FEATURES`: bits of this kind; an instance may have others."""

    DEVICE_ID: ClassVar[int]
    FEATURES: int = 0

    status = State(bits=8)
    driver_features = State(bits=64)
    generation = State(bits=8)  # of the configuration space
    broken = State(bits=1)  # by what the driver did: nothing is done until it resets the device
    waiting = State(bits=MAX_QUEUES)  # queues whose budget was over, as bits

    def __init__(self, name: str, machine: Machine, sizes: Sequence[int], *, rings: int = RINGS) -> None:
        """`sizes`: of the queues, at most; `rings`: the features of rings that are offered (spec.py)."""
        if not 0 < len(sizes) <= MAX_QUEUES:
            raise MapError(f"{name}: {len(sizes)} queues cannot be: 1 to {MAX_QUEUES} can")
        for size in sizes:
            if not 0 < size <= MAX_QUEUE_SIZE or size & size - 1:
                raise MapError(f"{name}: a queue of {size} entries cannot be: powers of two to {MAX_QUEUE_SIZE:,} can")
        self.transport: Transport | None = None
        self.dma = DmaPort(name, machine.memory, enabled=False)
        self.rings = rings
        self.native = builtins() if machine.native else None  # now, since it may have to be compiled
        self.queues = [VirtQueue(self, index, size) for index, size in enumerate(sizes)]
        self._held_status = 0  # what it was before a reset that is not over
        self._next = 0  # the queue whose turn it is
        super().__init__(name, machine)
        self.work = Work(self.clock, self._part)

    def attach(self, transport: Transport) -> None:
        """Be reached through this transport."""
        if self.transport is not None:
            raise MapError(f"{self.name} has a transport already")
        self.transport = transport
        self.dma = transport.dma

    # What devices have

    def on_notify(self, queue: VirtQueue) -> None:
        """The driver says that there are buffers in `queue`."""

    def on_driver_ok(self) -> None:
        """The driver is ready; its queues are looked at after this."""

    def refuses(self, features: int) -> str:
        """Why the device cannot work with these features; empty if it can."""
        del features
        return ""

    def on_reset(self) -> None:
        """Subclasses let go of chains that they hold (`queue.drop`), and call this."""
        for queue in self.queues:
            queue.reset()
        self.work.cancel()
        if self.transport is not None:
            self.transport.device_reset()

    # Features and status

    @property
    def features(self) -> int:
        """All that is offered."""
        return self.FEATURES | self.rings | VERSION_1

    @property
    def legacy_features(self) -> int:
        """What legacy drivers are offered: buffers may be cut in any way here."""
        return (self.features | ANY_LAYOUT) & LEGACY_BITS

    def accept_word(self, select: int, value: int) -> None:
        """The driver accepts features: word `select` of 32 bits."""
        if self.status & FEATURES_OK:
            self.guest_error("features are changed after FEATURES_OK")
        elif select > 1:
            if value:
                self.guest_error(f"features of word {select} are accepted: there are two")
        else:
            shift = 32 * select
            self.driver_features = self.driver_features & ~(LEGACY_BITS << shift) | value << shift

    def accept_legacy(self, value: int) -> None:
        """A legacy driver accepts features: what was not offered does not count."""
        if extra := value & ~self.legacy_features:
            self.guest_error("features are accepted that were not offered", f": {extra:#x}")
        self.driver_features = value & self.legacy_features

    @property
    def device_status(self) -> int:
        """What the driver reads: after a reset not 0 before the last request from before it is over (section 2.4)."""
        if not self.status and self._held_status:
            if any(queue.loose for queue in self.queues):
                return self._held_status
            self._held_status = 0
        return self.status

    def set_status(self, value: int) -> None:
        """The driver writes the status."""
        old = self.status
        if not value:
            self.reset()
            self._held_status = old
            return
        if old & ~value & WRITABLE:
            self.guest_error("bits of the status are cleared", f": {old:#x} to {value:#x}")
        rising = value & ~old & WRITABLE
        legacy = self.transport is not None and self.transport.legacy
        if rising & FEATURES_OK and not self._negotiated():
            rising &= ~FEATURES_OK
        if rising & DRIVER_OK and not (old | rising) & FEATURES_OK and not legacy:
            self.guest_error("DRIVER_OK without FEATURES_OK")
            rising &= ~DRIVER_OK
        self.status = old | rising
        if rising & DRIVER_OK:
            self.on_driver_ok()
            self.kick_all()

    def _negotiated(self) -> bool:
        accepted = self.driver_features
        if extra := accepted & ~self.features:
            refusal = f"features {extra:#x} were not offered"
        elif not accepted & VERSION_1:
            refusal = "VERSION_1 was not accepted"
        else:
            refusal = self.refuses(accepted)
        if refusal:
            self.guest_error("FEATURES_OK is refused", f": {refusal}")
        return not refusal

    def has(self, feature: int) -> bool:
        """Whether the driver has accepted a feature (its mask)."""
        return bool(self.driver_features & feature)

    def fail(self, reason: str) -> None:
        """The driver has broken the rules in a way that cannot be answered: it has to reset the device."""
        self.guest_error("the driver has to reset the device", f": {reason}")
        self.broken = 1
        if self.has(VERSION_1):
            self.status |= DEVICE_NEEDS_RESET
            if self.status & DRIVER_OK and self.transport is not None:
                self.transport.config_interrupt()

    # Configuration space

    @property
    def config_size(self) -> int:
        """Its bytes."""
        bank = self.banks.get("CONFIG")
        return bank.window.size if bank else 0

    def config_read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read of the configuration space; ones where there is none."""
        bank = self.banks.get("CONFIG")
        if bank is None or offset + size > bank.window.size:
            return (1 << 8 * size) - 1
        return bank.read(offset, size, attributes)

    def config_write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write to it."""
        bank = self.banks.get("CONFIG")
        if bank is None or offset + size > bank.window.size:
            self.guest_error("a write beyond the configuration space")
        else:
            bank.write(offset, size, value, attributes)

    def config_changed(self) -> None:
        """The device has changed its configuration space: tell the driver."""
        self.generation = (self.generation + 1) & 0xFF
        if self.status & DRIVER_OK and self.transport is not None:
            self.transport.config_interrupt()

    # Queues

    @property
    def running(self) -> bool:
        """Whether queues may be looked at."""
        legacy = self.transport is not None and self.transport.legacy
        return self.dma.enabled and not self.broken and bool(self.status & DRIVER_OK or legacy)

    def notified(self, index: int) -> None:
        """The driver has notified queue `index`."""
        if index >= len(self.queues):
            self.guest_error(f"there is no queue {index} to be notified")
        elif not self.queues[index].ready:
            self.guest_error(f"queue {index} is notified and not enabled")
        elif self.running:
            self._serve(1 << index, index)
        elif not self.broken:
            self.guest_error(f"queue {index} is notified before DRIVER_OK")

    def reset_queue(self, queue: VirtQueue) -> None:
        """The driver resets one queue (section 2.6.1). Devices that hold chains of it drop them, and call this."""
        queue.reset()
        self.waiting &= ~(1 << queue.index)

    def kick_all(self) -> None:
        """Look at all queues: something that kept the device from it is over."""
        self._serve((1 << len(self.queues)) - 1, 0)

    def chains(self, queue: VirtQueue, budget: int = BUDGET) -> Iterator[Chain]:
        """What is in `queue`; after `budget` chains the rest comes in a later call of `on_notify`.

        All queues that are served in one go share it. Long chains count for more: a driver may have a thousand buffers
        in each.
        """
        work = self.work
        if not work.within:  # the back end's side: somebody else bounds what comes
            work.left = work.units
        each = work.units // budget
        while not work.over:
            chain = queue.pop()
            if chain is None:
                return
            work.spend(each + (len(chain.readable) + len(chain.writable) >> LONG))
            yield chain
        self.later(queue)

    def later(self, queue: VirtQueue) -> None:
        """Call `on_notify` for `queue` soon, from a timer."""
        self.waiting |= 1 << queue.index
        self.work.later()

    def _serve(self, queues: int, first: int) -> None:
        """Look at these now, as bits, the `first` one before others."""
        self.waiting |= queues
        if self.work.within:
            self.work.later()
            return
        self._next = first
        self.work.run()

    def _part(self) -> None:
        """Each queue in its turn, from the one behind that which was served last; what is not reached waits."""
        waiting, self.waiting = self.waiting, 0
        while waiting and not self.work.over:
            behind = waiting >> self._next << self._next or waiting
            bit = behind & -behind
            waiting ^= bit
            queue = self.queues[bit.bit_length() - 1]
            self._next = queue.index + 1
            if queue.ready and self.running:
                self.on_notify(queue)
        if waiting:
            self.waiting |= waiting
            self.work.later()

    # Snapshots

    def save(self) -> Saved:
        """The device and its queues."""
        saved = super().save()
        saved["queues"] = [queue.save() for queue in self.queues]
        return saved

    def check(self, saved: object) -> Saved:
        """As Device has it, with the queues."""
        values = super().check(saved)
        queues = saved.get("queues") if isinstance(saved, dict) else None
        if not isinstance(queues, list) or len(queues) != len(self.queues):
            raise SnapshotError(f"{self.name}: the saved device has other queues")
        if values["waiting"] >> len(self.queues):
            raise SnapshotError(f"{self.name}.waiting: there are {len(self.queues)} queues")
        for queue, state in zip(self.queues, queues, strict=True):
            queue.check(state)
        return values

    def wire(self, saved: Saved) -> None:
        """Queues as well. Chains that were popped are got back by `queue.again` in `on_restore`."""
        for queue, state in zip(self.queues, saved["queues"], strict=True):
            queue.restore(state)
        self._held_status = 0
        self.work.cancel()
        if self.waiting:
            self.work.later()
        super().wire(saved)

    def on_restore(self) -> None:
        """Registers, states and queues are those of a saved device."""
