"""What transports have in common: a selected queue that is set up through registers, and how a device reaches them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbt.machine.registers import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.memory import DmaPort
    from dbt.machine.virtio.device import VirtioDevice
    from dbt.machine.virtio.queue import VirtQueue


class Transport(Protocol):
    """How a device reaches its driver. `legacy`: the driver speaks the interface from before version 1."""

    dma: DmaPort

    @property
    def legacy(self) -> bool: ...
    def queue_interrupt(self, index: int) -> None: ...
    def config_interrupt(self) -> None: ...
    def device_reset(self) -> None: ...


class QueueSetup:
    """The queues of `device`, one of which is selected."""

    device: VirtioDevice | None
    guest_error: Callable[..., None]

    @property
    def selected(self) -> int:
        """The number of the queue that registers are about."""
        raise NotImplementedError

    @property
    def queue(self) -> VirtQueue | None:
        """The one that is selected."""
        queues = self.device.queues if self.device else []
        number = self.selected
        return queues[number] if number < len(queues) else None

    def setting(self, what: str) -> VirtQueue | None:
        """The selected queue, if it may be set up now."""
        queue = self.queue
        if queue is None or queue.ready:
            self.guest_error(f"{what} of a queue that is {'not there' if queue is None else 'enabled'}")
            return None
        return queue

    def set_size(self, value: int) -> None:
        """The driver chooses the number of entries, which is looked at when the queue is enabled."""
        queue = self.setting("the size")
        if queue is not None:
            queue.size = value & 0xFFFF

    def reset_selected(self, offered: int) -> None:
        """Reset the selected queue, if the driver may do that: it has accepted the feature `offered`."""
        queue = self.queue
        if self.device is None or queue is None or not self.device.has(offered):
            self.guest_error("a queue is reset that is not there, or without VIRTIO_F_RING_RESET")
        else:
            self.device.reset_queue(queue)

    @property
    def resetting(self) -> int:
        """1 while chains from before the queue's reset are in use."""
        queue = self.queue
        return int(bool(queue and queue.loose))


def half(offset: int, access: str, area: str, *, high: bool, when: Callable[[Any], bool] | None = None) -> View:
    """A register with half of the address of an area of the selected queue."""
    register = View(offset, access, "high half" if high else f"address of the queue's {area}", when=when)
    shift = 32 if high else 0

    def read(self: QueueSetup) -> int:
        queue = self.queue
        return getattr(queue, area) >> shift & 0xFFFF_FFFF if queue else 0

    def write(self: QueueSetup, value: int) -> None:
        queue = self.setting(register.name)
        if queue is not None:
            setattr(queue, area, getattr(queue, area) & 0xFFFF_FFFF << 32 - shift | value << shift)

    register.on_read(read)
    register.on_write(write)
    return register
