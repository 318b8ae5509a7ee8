"""virtio over PCI (section 4.1.4): the structures of version 1 as windows. See pci.py for the function around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.memory import AccessSizes
from dbt.machine.pci import PciFunction
from dbt.machine.registers import RO, RW, WO, Register, State, View, Window
from dbt.machine.virtio.queue import NO_VECTOR
from dbt.machine.virtio.spec import RING_RESET, STATUS_FIELDS
from dbt.machine.virtio.transport import QueueSetup, half

if TYPE_CHECKING:
    from dbt.machine.virtio.device import VirtioDevice

PAGE = 0x1000
MULTIPLIER = 4  # of queue_notify_off
WIDE = AccessSizes((1, 8), (1, 8))


class CommonStructures(QueueSetup, PciFunction):
    """Common configuration, interrupt status and notifications (sections 4.1.4.3 to 4.1.4.5)."""

    COMMON = Window(PAGE, WIDE)
    device_feature_select = Register(0x00, RW, "selects the word of device_feature")
    device_feature = View(0x04, RO, "features that are offered, the selected word")
    driver_feature_select = Register(0x08, RW, "selects the word of driver_feature")
    driver_feature = View(0x0C, RW, "features that the driver accepts, the selected word")
    config_msix_vector = Register(0x10, RW, "vector of changes of the configuration", size=2, reset=NO_VECTOR)
    num_queues = View(0x12, RO, "how many queues there are", size=2)
    device_status = View(0x14, RW, "0 resets the device", size=1, mask=0xCF, fields=STATUS_FIELDS)
    config_generation = View(0x15, RO, "changes with the configuration space", size=1)
    queue_select = Register(0x16, RW, "selects a queue", size=2)
    queue_size = View(0x18, RW, "entries of the queue, at first the most; 0: there is no such queue", size=2)
    queue_msix_vector = View(0x1A, RW, "vector of the queue", size=2)
    queue_enable = View(0x1C, RW, "the queue is enabled", size=2, mask=1)
    queue_notify_off = View(0x1E, RO, "where the queue is notified", size=2)
    queue_desc_lo = half(0x20, RW, "descriptors", high=False)
    queue_desc_hi = half(0x24, RW, "descriptors", high=True)
    queue_driver_lo = half(0x28, RW, "driver", high=False)
    queue_driver_hi = half(0x2C, RW, "driver", high=True)
    queue_device_lo = half(0x30, RW, "device", high=False)
    queue_device_hi = half(0x34, RW, "device", high=True)
    queue_notify_data = Register(0x38, RO, "what to notify with: not offered", size=2)
    queue_reset = View(0x3A, RW, "the queue is being reset", size=2, mask=1)

    ISR = Window(PAGE)
    isr_status = View(
        0, RO, "reasons of the interrupt; reading clears them", size=1, window=ISR,
        fields={"USED_BUFFER": 0, "CONFIG_CHANGE": 1},
    )  # fmt: skip
    NOTIFY = Window(PAGE)
    queue_notify = View(
        0, WO, "there are buffers in this queue", count=PAGE // MULTIPLIER, stride=MULTIPLIER, size=2, window=NOTIFY
    )

    isr = State(bits=2)
    device: VirtioDevice

    @property
    def selected(self) -> int:
        """By queue_select."""
        return self.queue_select

    @device_feature.on_read
    def _offered(self) -> int:
        select = self.device_feature_select
        return self.device.features >> 32 * select & 0xFFFF_FFFF if select < 2 else 0

    @driver_feature.on_read
    def _accepted(self) -> int:
        select = self.driver_feature_select
        return self.device.driver_features >> 32 * select & 0xFFFF_FFFF if select < 2 else 0

    @driver_feature.on_write
    def _accept(self, value: int) -> None:
        self.device.accept_word(self.driver_feature_select, value)

    def vector(self, value: int) -> int:
        """What a register for a vector stores."""
        return value if self.msix is not None and value < self.msix.vectors else NO_VECTOR

    @config_msix_vector.on_write
    def _set_config_vector(self, value: int) -> None:
        self.config_msix_vector = self.vector(value)

    @num_queues.on_read
    def _queues(self) -> int:
        return len(self.device.queues)

    @device_status.on_read
    def _status(self) -> int:
        return self.device.device_status

    @device_status.on_write
    def _set_status(self, value: int) -> None:
        self.device.set_status(value)

    @config_generation.on_read
    def _generation(self) -> int:
        return self.device.generation

    @queue_size.on_read
    def get_size(self) -> int:
        """Entries of the selected queue."""
        queue = self.queue
        return queue.size if queue else 0

    @queue_size.on_write
    def _set_size(self, value: int) -> None:
        self.set_size(value)

    @queue_msix_vector.on_read
    def get_vector(self) -> int:
        """The selected queue's vector."""
        queue = self.queue
        return queue.vector if queue else NO_VECTOR

    @queue_msix_vector.on_write
    def set_vector(self, value: int) -> None:
        """Give the selected queue a vector."""
        queue = self.queue
        if queue is None:
            self.guest_error("a vector for a queue that is not there")
        else:
            queue.vector = self.vector(value)

    @queue_enable.on_read
    def _enabled(self) -> int:
        queue = self.queue
        return int(bool(queue and queue.ready))

    @queue_enable.on_write
    def _enable(self, value: int) -> None:
        queue = self.setting("queue_enable")
        if queue is not None and value & 1:
            queue.enable()

    @queue_notify_off.on_read
    def _notify_off(self) -> int:
        return self.queue_select

    @queue_reset.on_read
    def _is_resetting(self) -> int:
        return self.resetting

    @queue_reset.on_write
    def _reset_queue(self, value: int) -> None:
        if value & 1:
            self.reset_selected(RING_RESET)

    @isr_status.on_read
    def take_isr(self) -> int:
        """The reasons, which are none then."""
        reasons, self.isr = self.isr, 0
        self.intx.set(False)
        return reasons

    @queue_notify.on_write
    def _notify(self, index: int, value: int) -> None:
        del value
        self.device.notified(index)
