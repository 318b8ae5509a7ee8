"""A guest's side of virtio (version 1.2), written from the specification: transports and both kinds of rings.

    guest = Guest(Mmio(bus, base), Pool(memory, size))
    guest.begin(features)                       # section 3.1.1, up to FEATURES_OK
    queue = guest.queue(0, 64)                  # split, or packed if that was accepted
    guest.go()                                  # DRIVER_OK
    written, data = guest.request(queue, [header], [512, 1])

Everything goes through a Bus (qtest.py), so the same driver runs on QEMU's devices. Reads whose number depends on time
(polling) are `load`s, which are not noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbt.machine.virtio.mmio import VirtioMmio
from dbt.machine.virtio.pci import VirtioPci
from dbt.machine.virtio.spec import ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, INDIRECT_DESC, RING_PACKED, VERSION_1

from tests.machine import pci
from tests.machine.qtest import Ours
from tests.machine.virtio_rings import Buffer, Packed, Pool, Ring, Split
from tests.machine.virtio_transports import Mmio, PciLegacy, PciModern, Transport

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.virtio import VirtioDevice

__all__ = [
    "KINDS", "UNUSED", "Buffer", "Guest", "Mmio", "Packed", "PciLegacy", "PciModern", "Pool", "Ring", "Split",
    "Transport", "connect",
]  # fmt: skip

UNUSED = 1 << 30  # section 6.3: QEMU finds out with it who accepts everything
PATIENCE = 60  # seconds
KINDS = ("mmio", "mmio-legacy", "pci", "pci-legacy")
MMIO_AT = 0x0A00_0000


def connect(kind: str, make: Callable[[Machine], VirtioDevice], memory: int = 8 << 20) -> tuple[Guest, VirtioDevice]:
    """A machine with one device behind a transport, and its driver before `begin`."""
    made, bus = pci.machine()
    ours = Ours(made)
    device = make(made)
    transport: Transport
    if kind.startswith("mmio"):
        made.place(VirtioMmio("mmio", made, device=device, legacy=kind != "mmio"), MMIO_AT)
        made.reset()
        transport = Mmio(ours, MMIO_AT, legacy=kind != "mmio")
        if transport.legacy:
            transport.write(0x28, 4096)
    else:
        VirtioPci("pci-function", made, device, bus=bus, slot=3)
        made.reset()
        function = pci.Function(pci.Config(ours, pci.ECAM), (0, 3, 0))
        function.place()
        transport = PciModern(function) if kind == "pci" else PciLegacy(function)
    return Guest(transport, Pool(pci.RAM_AT, memory), lambda: made.advance(0)), device


class Guest:
    """A driver. `step` lets the device go on (timers, other threads) while it waits."""

    def __init__(self, transport: Transport, pool: Pool, step: Callable[[], None] = lambda: None) -> None:
        self.transport = transport
        self.bus = transport.bus
        self.pool = pool
        self.step = step
        self.accepted = 0

    def reset(self) -> None:
        self.transport.set_status(0)
        self.until(lambda: self.transport.status() == 0)

    def begin(self, wanted: int = ~0) -> int:
        """Reset, find the driver, negotiate; the result is what was accepted. `wanted`: of what is offered."""
        transport = self.transport
        transport.set_status(0)
        assert transport.status() == 0
        transport.set_status(ACKNOWLEDGE)
        transport.set_status(ACKNOWLEDGE | DRIVER)
        offered = transport.features()
        self.accepted = offered & (wanted | (0 if transport.legacy else VERSION_1)) & ~UNUSED
        transport.accept(self.accepted)
        if not transport.legacy:
            transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
            assert transport.status() == ACKNOWLEDGE | DRIVER | FEATURES_OK
        return self.accepted

    def queue(self, index: int, size: int) -> Ring:
        most = self.transport.most(index)
        assert most
        kind = Packed if self.accepted & RING_PACKED else Split
        ring = kind(self, index, min(size, most))
        self.transport.set_queue(index, ring.size, ring.places)
        return ring

    def go(self) -> None:
        self.transport.set_status(self.transport.status() | DRIVER_OK)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            self.step()
            assert time.monotonic() < end
            time.sleep(0.0005)

    def wait(self, ring: Ring, count: int) -> list[tuple[int, int]]:
        """Until `count` chains have come back."""
        found: list[tuple[int, int]] = []

        def enough() -> bool:
            found.extend(ring.used())
            return len(found) >= count

        self.until(enough)
        return found

    def buffers(self, out: Sequence[bytes], into: Sequence[int]) -> list[Buffer]:
        """Memory with data for the device, and memory for its answers."""
        buffers = []
        for data in out:
            at = self.pool.take(len(data))
            self.bus.store(at, data)
            buffers.append((at, len(data), False))
        for length in into:
            at = self.pool.take(length)
            self.bus.store(at, b"\xee" * length)
            buffers.append((at, length, True))
        return buffers

    def request(
        self, ring: Ring, out: Sequence[bytes], into: Sequence[int] = (), *, indirect: bool | None = None
    ) -> tuple[int, bytes]:
        """One request, and waiting for it: how many bytes the device says it wrote, and all that it may have."""
        kept = self.pool.next
        buffers = self.buffers(out, into)
        if indirect is None:
            indirect = bool(self.accepted & INDIRECT_DESC) and len(buffers) > 1
        chain = ring.add(buffers, indirect=indirect)
        ring.kick()
        ((found, written),) = self.wait(ring, 1)
        assert found == chain
        data = b"".join(self.bus.load(at, length) for at, length, writable in buffers if writable)
        self.pool.next = kept
        return written, data
