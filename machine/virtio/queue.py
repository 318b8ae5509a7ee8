"""A virtqueue as its device and its transport see it, above the two kinds of rings.

A transport sets `size` and addresses and enables it; a device pops chains, and gives back each of them: by `push` when
it is used, by `drop` when it will not be. What was popped before a reset is `loose` until then, so a driver that waits
for the end of its reset knows that nobody uses its memory any more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbt.machine.errors import DmaError, RingError, SnapshotError
from dbt.machine.virtio.native import NativePackedRing, NativeSplitRing
from dbt.machine.virtio.packed import PackedRing
from dbt.machine.virtio.spec import EVENT_IDX, IN_ORDER, INDIRECT_DESC, RING_PACKED
from dbt.machine.virtio.split import SplitRing

if TYPE_CHECKING:
    from dbt.machine.virtio.chain import Chain
    from dbt.machine.virtio.device import VirtioDevice

MOST_DESCRIPTORS = 1024  # of one chain: Linux makes indirect tables that are longer than the queue
NUMBERS = ("size", "descriptors", "driver", "device", "vector")
NO_VECTOR = 0xFFFF


@dataclass(slots=True)
class Setup:
    """What a ring is made of: `most` descriptors to a chain."""

    size: int
    descriptors: int
    driver: int
    device: int
    indirect: bool
    event_index: bool
    most: int


class VirtQueue:
    """Queue `index` of `owner`, with at most `maximum` entries."""

    def __init__(self, owner: VirtioDevice, index: int, maximum: int) -> None:
        self.owner = owner
        self.index = index
        self.maximum = maximum
        self.size = maximum
        self.descriptors = self.driver = self.device = 0
        self.vector = NO_VECTOR  # of MSI-X
        self.ring: SplitRing | PackedRing | None = None
        self.in_flight = 0
        self.loose = 0
        self._order: deque[Chain] = deque()

    @property
    def ready(self) -> bool:
        """Whether the driver has enabled it."""
        return self.ring is not None

    def enable(self, *, packed: bool | None = None) -> bool:
        """Begin with the addresses that are set; False, and it is logged, if the driver set what cannot be.

        `packed`: what the ring was before, of a driver that has changed the feature since.
        """
        owner, size = self.owner, self.size
        packed = bool(owner.driver_features & RING_PACKED) if packed is None else packed
        if not 0 < size <= self.maximum or (size & size - 1 and not packed):
            owner.guest_error(f"queue {self.index} is enabled with {size} entries")
            return False
        self.ring = self._make(packed=packed)
        return True

    def _make(self, *, packed: bool) -> SplitRing | PackedRing:
        features = self.owner.driver_features
        most = max(self.size, MOST_DESCRIPTORS)
        setup = Setup(
            self.size, self.descriptors, self.driver, self.device,
            bool(features & INDIRECT_DESC), bool(features & EVENT_IDX), most,
        )  # fmt: skip
        dma, native = self.owner.dma, self.owner.native
        if native is not None:
            return NativePackedRing(native, dma, setup) if packed else NativeSplitRing(native, dma, setup)
        return PackedRing(dma, setup) if packed else SplitRing(dma, setup)

    def disable(self) -> None:
        """Look at the ring no more."""
        self.ring = None
        self.loose += self.in_flight
        self.in_flight = 0
        self._order.clear()

    def reset(self) -> None:
        """As after power-on."""
        self.disable()
        self.size = self.maximum
        self.descriptors = self.driver = self.device = 0
        self.vector = NO_VECTOR

    # For devices

    def pop(self) -> Chain | None:
        """The next request. None if there is none, or the ring is broken."""
        ring = self.ring
        if ring is None or self.owner.broken:
            return None
        try:
            chain = ring.pop()
        except (RingError, DmaError) as error:
            self.owner.fail(f"queue {self.index}: {error}")
            return None
        if chain is not None:
            self._popped(chain)
        return chain

    def _popped(self, chain: Chain) -> None:
        self.in_flight += 1
        if self.owner.driver_features & IN_ORDER:
            self._order.append(chain)

    def again(self, token: int) -> Chain | None:
        """The chain of that token, which was popped when the state was saved."""
        if self.ring is None:
            return None
        try:
            chain = self.ring.again(token)
        except (RingError, DmaError) as error:
            self.owner.fail(f"queue {self.index}: {error}")
            return None
        self._popped(chain)
        return chain

    def unpop(self, chain: Chain) -> None:
        """Put the chain that was popped last back, to get it again."""
        if chain.ring is self.ring and self.ring is not None:
            self.in_flight -= 1
            if self._order:
                self._order.pop()
            self.ring.unpop(chain)
        else:
            self.drop(chain)

    def push(self, chain: Chain, written: int = 0) -> None:
        """Give a chain back to the driver, who is not told before `notify`. `written`: the first bytes that are new."""
        ring = self.ring
        if chain.ring is not ring or ring is None:
            self.drop(chain)
            return
        self.in_flight -= 1
        chain.wrote(written)
        chain.release()
        if self.owner.broken:
            return
        try:
            if not self.owner.driver_features & IN_ORDER:
                ring.push(chain, written)
                return
            chain.written, chain.done = written, True
            while self._order and self._order[0].done:
                first = self._order.popleft()
                ring.push(first, first.written)
        except (RingError, DmaError) as error:
            self.owner.fail(f"queue {self.index}: {error}")

    def drop(self, chain: Chain) -> None:
        """Let go of a chain that is not to be used: a reset came in between."""
        chain.release()
        if chain.ring is self.ring:
            self.in_flight -= 1
            if chain in self._order:
                self._order.remove(chain)
        else:
            self.loose -= 1

    def notify(self) -> None:
        """Interrupt the driver if it wants to know of what was pushed."""
        if self.ring is None or self.owner.broken:
            return
        try:
            wanted = self.ring.wants_interrupt()
        except (RingError, DmaError) as error:
            self.owner.fail(f"queue {self.index}: {error}")
            return
        if wanted and self.owner.transport is not None:
            self.owner.transport.queue_interrupt(self.index)

    # Snapshots

    def save(self) -> dict[str, Any]:
        """Numbers as JSON has them."""
        state: dict[str, Any] = {name: getattr(self, name) for name in NUMBERS}
        state["ring"] = None if self.ring is None else self.ring.save()
        return state

    def check(self, saved: object) -> None:
        """SnapshotError if this is no saved queue."""
        name = f"{self.owner.name}, queue {self.index}"
        if not isinstance(saved, dict) or saved.keys() != {*NUMBERS, "ring"}:
            raise SnapshotError(f"{name}: this is no saved queue")
        ring = saved["ring"]
        numbers = [saved[key] for key in NUMBERS]
        if ring is not None:
            if not isinstance(ring, dict) or ring.keys() not in ({*SplitRing.STATE}, {*PackedRing.STATE}):
                raise SnapshotError(f"{name}: this is no saved ring")
            numbers += ring.values()
        if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
            raise SnapshotError(f"{name}: not numbers of 64 bits")
        if any(number >> 16 for number in (saved["size"], saved["vector"], *(ring or {}).values())):
            raise SnapshotError(f"{name}: a size, vector or index is beyond 16 bits")

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as `save` was called, after `check` and with the owner's features restored."""
        self.disable()
        self.loose = 0  # of the life before
        for name in NUMBERS:
            setattr(self, name, saved[name])
        if saved["ring"] is not None and self.enable(packed=saved["ring"].keys() == {*PackedRing.STATE}):
            assert self.ring is not None
            try:
                self.ring.load(saved["ring"])
            except RingError as error:
                self.owner.fail(f"queue {self.index}: {error}")
