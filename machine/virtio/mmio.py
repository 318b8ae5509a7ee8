"""virtio over MMIO (section 4.2): one window of registers for one device, and a line.

Version 2 of the registers, or version 1 for legacy drivers (section 4.2.4). Without a device the ID is 0: boards have
slots that are empty. There are no regions of shared memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes, DmaPort
from dbt.machine.registers import RO, RW, WO, Register, State, View, Window
from dbt.machine.virtio.spec import CONFIGURATION_CHANGE, RING_RESET, STATUS_FIELDS, USED_BUFFER, legacy_layout
from dbt.machine.virtio.transport import QueueSetup, half

if TYPE_CHECKING:
    from dbt.machine.device import Bank
    from dbt.machine.machine import Machine
    from dbt.machine.memory import Attributes
    from dbt.machine.virtio.device import VirtioDevice

MAGIC, VENDOR = 0x7472_6976, 0x554D_4551  # "virt"; "QEMU", which drivers may have seen
CONFIG = 0x100
NO_REGION = 0xFFFF_FFFF


def _modern(device: VirtioMmio) -> bool:
    return not device.legacy


def _legacy(device: VirtioMmio) -> bool:
    return device.legacy


class VirtioMmio(QueueSetup, Device):
    """virtio over MMIO, version 2 of its registers; `legacy`: version 1."""

    WINDOW = Window(0x200, AccessSizes((1, 8), (1, 8)))
    MagicValue = Register(0x000, RO, '"virt"', reset=MAGIC)
    Version = View(0x004, RO, "version of the registers")
    DeviceID = View(0x008, RO, "kind of the device, 0: none")
    VendorID = Register(0x00C, RO, "vendor", reset=VENDOR)
    DeviceFeatures = View(0x010, RO, "features that are offered, the selected word")
    DeviceFeaturesSel = Register(0x014, WO, "selects the word of DeviceFeatures")
    DriverFeatures = View(0x020, WO, "features that the driver accepts, the selected word")
    DriverFeaturesSel = Register(0x024, WO, "selects the word of DriverFeatures")
    GuestPageSize = View(0x028, WO, "unit of QueuePFN in bytes", when=_legacy)
    QueueSel = Register(0x030, WO, "selects a queue")
    QueueNumMax = View(0x034, RO, "the most entries of the queue, 0: there is no such queue")
    QueueNum = View(0x038, WO, "entries of the queue")
    QueueAlign = View(0x03C, WO, "alignment of the used ring in bytes", when=_legacy)
    QueuePFN = View(0x040, RW, "page of the queue, 0: none", when=_legacy)
    QueueReady = View(0x044, RW, "the queue is enabled", mask=1, when=_modern)
    QueueNotify = View(0x050, WO, "there are buffers in the queue of this number")
    InterruptStatus = Register(0x060, RO, "reasons of the interrupt", fields={"USED_BUFFER": 0, "CONFIG_CHANGE": 1})
    InterruptACK = View(0x064, WO, "reasons that are dealt with", mask=3)
    Status = View(0x070, RW, "device status; 0 resets the device", mask=0xCF, fields=STATUS_FIELDS)
    QueueDescLow = half(0x080, WO, "descriptors", high=False, when=_modern)
    QueueDescHigh = half(0x084, WO, "descriptors", high=True, when=_modern)
    QueueDriverLow = half(0x090, WO, "driver", high=False, when=_modern)
    QueueDriverHigh = half(0x094, WO, "driver", high=True, when=_modern)
    QueueDeviceLow = half(0x0A0, WO, "device", high=False, when=_modern)
    QueueDeviceHigh = half(0x0A4, WO, "device", high=True, when=_modern)
    SHMSel = Register(0x0AC, WO, "selects a region of shared memory", when=_modern)
    SHMLenLow = Register(0x0B0, RO, "its length; ones: there is none", reset=NO_REGION, when=_modern)
    SHMLenHigh = Register(0x0B4, RO, "high half", reset=NO_REGION, when=_modern)
    SHMBaseLow = Register(0x0B8, RO, "its address", reset=NO_REGION, when=_modern)
    SHMBaseHigh = Register(0x0BC, RO, "high half", reset=NO_REGION, when=_modern)
    QueueReset = View(0x0C0, RW, "the queue is being reset", mask=1, when=_modern)
    ConfigGeneration = View(0x0FC, RO, "changes with the configuration space", when=_modern)

    page_size = State(reset=4096)
    align = State(reset=4096)

    def __init__(
        self,
        name: str,
        machine: Machine,
        irq: Line | None = None,
        device: VirtioDevice | None = None,
        *,
        legacy: bool = False,
    ) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.legacy = legacy
        self.dma = DmaPort(name, machine.memory)
        self.device: VirtioDevice | None = None
        self.region.handler = _WithConfig(self, self.banks["WINDOW"])
        if device is not None:
            self.plug(device)

    def plug(self, device: VirtioDevice) -> None:
        """Show this device: before the machine runs."""
        device.attach(self)
        self.device = device

    # What the device calls

    def queue_interrupt(self, index: int) -> None:
        """Buffers of a queue were used."""
        del index
        self._interrupt(USED_BUFFER)

    def config_interrupt(self) -> None:
        """The configuration or the status has changed."""
        self._interrupt(CONFIGURATION_CHANGE)

    def device_reset(self) -> None:
        """The device was reset."""
        self.InterruptStatus = self.DeviceFeaturesSel = self.DriverFeaturesSel = 0
        self.irq.set(False)

    def _interrupt(self, reason: int) -> None:
        self.InterruptStatus |= reason
        self.irq.set(True)

    # Resets of the machine

    def on_reset(self) -> None:
        """The device is reset by itself."""
        self.irq.set(False)

    def on_restore(self) -> None:
        """The line follows the status."""
        self.irq.set(bool(self.InterruptStatus))

    # Registers

    @Version.on_read
    def _version(self) -> int:
        return 1 if self.legacy else 2

    @DeviceID.on_read
    def _device_id(self) -> int:
        return self.device.DEVICE_ID if self.device else 0

    @DeviceFeatures.on_read
    def _offered(self) -> int:
        features = 0
        if self.device is not None:
            features = self.device.legacy_features if self.legacy else self.device.features
        return features >> 32 * self.DeviceFeaturesSel & 0xFFFF_FFFF if self.DeviceFeaturesSel < 2 else 0

    @DriverFeatures.on_write
    def _accepted(self, value: int) -> None:
        if self.device is None:
            return
        if not self.legacy:
            self.device.accept_word(self.DriverFeaturesSel, value)
        elif self.DriverFeaturesSel == 0:
            self.device.accept_legacy(value)

    @GuestPageSize.on_write
    def _set_page_size(self, value: int) -> None:
        self.page_size = self._power(value, "GuestPageSize")

    @QueueAlign.on_write
    def _set_align(self, value: int) -> None:
        self.align = self._power(value, "QueueAlign")

    def _power(self, value: int, what: str) -> int:
        if not value or value & value - 1:
            self.guest_error(f"{what} is no power of two", f": {value}")
            return 4096
        return value

    @property
    def selected(self) -> int:
        """By QueueSel."""
        return self.QueueSel

    @QueueNumMax.on_read
    def _maximum(self) -> int:
        queue = self.queue
        return queue.maximum if queue else 0

    @QueueNum.on_write
    def _set_size(self, value: int) -> None:
        self.set_size(value)

    @QueuePFN.on_read
    def _page(self) -> int:
        queue = self.queue
        return queue.descriptors // self.page_size & 0xFFFF_FFFF if queue and queue.ready else 0

    @QueuePFN.on_write
    def _set_page(self, value: int) -> None:
        queue = self.queue
        if queue is None:
            self.guest_error("QueuePFN of a queue that is not there")
        elif not value:
            queue.disable()
        elif not queue.ready:
            places = legacy_layout(value * self.page_size, queue.size, self.align)
            queue.descriptors, queue.driver, queue.device = places
            queue.enable()

    @QueueReady.on_read
    def _is_ready(self) -> int:
        queue = self.queue
        return int(bool(queue and queue.ready))

    @QueueReady.on_write
    def _set_ready(self, value: int) -> None:
        queue = self.queue
        if queue is None:
            self.guest_error("QueueReady of a queue that is not there")
        elif not value & 1:
            queue.disable()
        elif not queue.ready:
            queue.enable()

    @QueueNotify.on_write
    def _notify(self, value: int) -> None:
        if self.device is not None:
            self.device.notified(value & 0xFFFF)

    @InterruptACK.on_write
    def _acknowledge(self, value: int) -> None:
        self.InterruptStatus &= ~value
        self.irq.set(bool(self.InterruptStatus))

    @Status.on_read
    def _status(self) -> int:
        return self.device.device_status if self.device else 0

    @Status.on_write
    def _set_status(self, value: int) -> None:
        if self.device is not None:
            self.device.set_status(value & 0xFF)

    @QueueReset.on_read
    def _is_resetting(self) -> int:
        return self.resetting

    @QueueReset.on_write
    def _reset_queue(self, value: int) -> None:
        if value & 1:
            self.reset_selected(RING_RESET)

    @ConfigGeneration.on_read
    def _generation(self) -> int:
        return self.device.generation if self.device else 0


class _WithConfig:
    """The window: registers, and the device's configuration space behind them."""

    def __init__(self, mmio: VirtioMmio, bank: Bank) -> None:
        self.mmio = mmio
        self.bank = bank

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read as the bus gives it."""
        device = self.mmio.device
        if offset < CONFIG:
            return self.bank.read(offset, size, attributes)
        return device.config_read(offset - CONFIG, size, attributes) if device else 0

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write as the bus gives it."""
        device = self.mmio.device
        if offset < CONFIG:
            self.bank.write(offset, size, value, attributes)
        elif device:
            device.config_write(offset - CONFIG, size, value, attributes)
