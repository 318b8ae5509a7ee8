"""virtio over PCI (section 4.1): modern, or with ports for legacy drivers as well (transitional).

    VirtioPci("disk.pci", machine, VirtioBlk("disk", machine, …), bus=bus, slot=3)

BAR 4 has the structures of version 1, each in a page of its own, BAR 1 the table of MSI-X, BAR 0 the legacy registers.
Whose registers the status was written through since the last reset says what the driver is. Legacy interfaces have the
guest's byte order, and all guests here are little-endian.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dbt.machine.errors import BusError
from dbt.machine.memory import CPU0, MMIO, AccessSizes
from dbt.machine.pci import Bar, Identity
from dbt.machine.registers import RO, RW, Register, State, View, Window
from dbt.machine.virtio.pci_common import MULTIPLIER, PAGE, WIDE, CommonStructures
from dbt.machine.virtio.queue import NO_VECTOR
from dbt.machine.virtio.spec import CONFIGURATION_CHANGE, STATUS_FIELDS, USED_BUFFER, legacy_layout

if TYPE_CHECKING:
    from dbt.machine.device import Bank, Saved
    from dbt.machine.machine import Machine
    from dbt.machine.memory import Attributes
    from dbt.machine.pci.function import Where
    from dbt.machine.virtio.device import VirtioDevice

VENDOR, MODERN = 0x1AF4, 0x1040
TRANSITIONAL = {1: 0x1000, 2: 0x1001, 3: 0x1003, 4: 0x1005, 5: 0x1002, 8: 0x1004, 9: 0x1009}  # section 4.1.2.1
CLASSES = {1: 0x020000, 2: 0x010000, 3: 0x078000, 8: 0x010000, 18: 0x090000}
OTHER = 0x00FF00
VENDOR_CAPABILITY = 0x09
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5  # section 4.1.4
STRUCTURES = (  # type, window, offset in BAR 4, offset of its capability: as QEMU has them
    (COMMON_CFG, "COMMON", 0x0000, 0x40),
    (ISR_CFG, "ISR", 0x1000, 0x50),
    (DEVICE_CFG, "DEVICE", 0x2000, 0x60),
    (NOTIFY_CFG, "NOTIFY", 0x3000, 0x70),
)
PCI_CFG_AT, MSIX_AT = 0x84, 0x98
CFG_BAR, CFG_OFFSET, CFG_LENGTH, CFG_DATA = 4, 8, 12, 16  # in that capability, section 4.1.4.9
LEGACY_PAGE = 4096
LEGACY_CONFIG = 20  # and 4 more while MSI-X is enabled: section 4.1.4.10
PORTS = AccessSizes((1, 4), (1, 4))


class VirtioPci(CommonStructures):
    """virtio over PCI, modern or transitional (virtio 1.2, section 4.1)."""

    PCI = Identity(VENDOR, MODERN, OTHER, revision=1, pin=1)
    DEVICE = Window(PAGE, WIDE)

    LEGACY = Window(24, PORTS, placed=False)
    legacy_device_features = View(0x00, RO, "features that are offered", window=LEGACY)
    legacy_driver_features = View(0x04, RW, "features that the driver accepts", window=LEGACY)
    legacy_queue_address = View(0x08, RW, "page of the queue, 0: none", window=LEGACY)
    legacy_queue_size = View(0x0C, RO, "entries of the queue", size=2, window=LEGACY)
    legacy_queue_select = View(0x0E, RW, "selects a queue", size=2, window=LEGACY)
    legacy_queue_notify = Register(0x10, RW, "there are buffers in the queue of this number", size=2, window=LEGACY)
    legacy_device_status = View(0x12, RW, "0 resets the device", size=1, mask=0xCF, fields=STATUS_FIELDS, window=LEGACY)
    legacy_isr_status = View(0x13, RO, "reasons of the interrupt; reading clears them", size=1, window=LEGACY)
    legacy_config_msix_vector = View(0x14, RW, "vector of changes of the configuration", size=2, window=LEGACY)
    legacy_queue_msix_vector = View(0x16, RW, "vector of the queue", size=2, window=LEGACY)

    by_legacy = State(bits=1)  # the driver uses the legacy registers

    def __init__(
        self,
        name: str,
        machine: Machine,
        device: VirtioDevice,
        *,
        transitional: bool = True,
        vectors: int | None = None,
        **where: Unpack[Where],
    ) -> None:
        """`transitional`: also for legacy drivers, if the kind of device ever had any; `vectors`: of MSI-X, 0: none."""
        kind = device.DEVICE_ID
        transitional = transitional and kind in TRANSITIONAL
        identity = Identity(
            VENDOR, TRANSITIONAL[kind] if transitional else MODERN + kind, CLASSES.get(kind, OTHER),
            revision=0 if transitional else 1, subsystem_vendor=VENDOR,
            subsystem=kind if transitional else 0x1100, pin=1,
        )  # fmt: skip
        super().__init__(name, machine, **where, identity=identity)
        self.device = device
        self._restoring = False
        self.regions["DEVICE"].handler = _DeviceSpace(device)
        if transitional:
            size = 1 << (LEGACY_CONFIG + device.config_size - 1).bit_length()
            region = MMIO(f"{name}.LEGACY", size, _LegacySpace(self, self.banks["LEGACY"]), PORTS)
            self.add_bar(Bar(0, region, io=True))
        base = self.add_bar(Bar(4, "", bits=64, prefetchable=True, size=4 * PAGE))
        for number, window, offset, at in STRUCTURES:
            base.contents.place(self.regions[window], offset)
            tail = MULTIPLIER.to_bytes(4, "little") if number == NOTIFY_CFG else b""
            self.add_capability(VENDOR_CAPABILITY, self._structure(number, 4, offset, PAGE, tail), at=at)
        self.add_capability(
            VENDOR_CAPABILITY, self._structure(PCI_CFG, 0, 0, 0, bytes(4)), b"\0\0\xff\0\0\0" + b"\xff" * 12,
            at=PCI_CFG_AT, on_read=self._config_data_read, on_write=self._config_data_write,
        )  # fmt: skip
        vectors = len(device.queues) + 1 if vectors is None else vectors
        if vectors:
            self.add_msix(vectors, bar=1, at=MSIX_AT)
        device.attach(self)

    @staticmethod
    def _structure(number: int, bar: int, offset: int, length: int, tail: bytes) -> bytes:
        """The body of a capability that says where a structure is: section 4.1.4."""
        body = bytes((16 + len(tail), number, bar, 0, 0, 0))
        return body + offset.to_bytes(4, "little") + length.to_bytes(4, "little") + tail

    # What the device calls

    @property
    def legacy(self) -> bool:
        """Whether the driver is a legacy one."""
        return bool(self.by_legacy)

    def queue_interrupt(self, index: int) -> None:
        """Buffers of a queue were used."""
        self._interrupt(USED_BUFFER, self.device.queues[index].vector)

    def config_interrupt(self) -> None:
        """The configuration or the status has changed."""
        self._interrupt(CONFIGURATION_CHANGE, self.config_msix_vector)

    def _interrupt(self, reason: int, vector: int) -> None:
        self.isr |= reason
        self.intx.set(True)  # which the function keeps to itself while it has MSI-X
        if self.msix_active and vector != NO_VECTOR:
            self.interrupt(vector)

    def device_reset(self) -> None:
        """The device was reset."""
        self.isr = self.by_legacy = 0
        self.device_feature_select = self.driver_feature_select = self.queue_select = 0
        self.config_msix_vector = NO_VECTOR
        self.intx.set(False)

    def bus_reset(self) -> None:
        """The device as well, as drivers reset it: what the host does for it may not be over."""
        self.device.set_status(0)
        super().bus_reset()

    def on_reset(self) -> None:
        """The device is reset by itself."""
        self.intx.set(False)

    def on_restore(self) -> None:
        """The pin follows the status."""
        self.intx.set(bool(self.isr))

    def remaster(self) -> None:
        """Buffers that came while the function was no bus master are looked at when it is one."""
        before = self.dma.enabled
        super().remaster()
        if self.dma.enabled and not before and not self._restoring:
            self.device.kick_all()

    def wire(self, saved: Saved) -> None:
        """As PciFunction has it. Queues are not looked at: memory may not be restored yet."""
        self._restoring = True
        try:
            super().wire(saved)
        finally:
            self._restoring = False

    # Access through configuration space, section 4.1.4.9

    def _window(self) -> tuple[MMIO, int, int] | None:
        """(region, offset in it, bytes) that the capability is about."""
        config = self.config
        offset = config.read(PCI_CFG_AT + CFG_OFFSET, 4)
        length = config.read(PCI_CFG_AT + CFG_LENGTH, 4)
        base = self.bars.get(config.read(PCI_CFG_AT + CFG_BAR, 1))
        if base is not None and length in {1, 2, 4} and not offset % length:
            for _, at, region in base.contents.placements:
                if isinstance(region, MMIO) and at <= offset <= at + region.size - length:
                    return region, offset - at, length
        self.guest_error("VIRTIO_PCI_CAP_PCI_CFG points to nothing")
        return None

    def _config_data_read(self, offset: int, size: int) -> None:
        if offset + size <= CFG_DATA or (found := self._window()) is None:
            return
        region, at, length = found
        try:
            value = region.read(at, length, CPU0)
        except BusError as error:  # the table of MSI-X has words only
            self.guest_error("VIRTIO_PCI_CAP_PCI_CFG", f": {error.reason}")
            return
        start = PCI_CFG_AT + CFG_DATA
        self.config.data[start : start + length] = value.to_bytes(length, "little")

    def _config_data_write(self, offset: int, size: int) -> None:
        if offset + size <= CFG_DATA or (found := self._window()) is None:
            return
        region, at, length = found
        try:
            region.write(at, length, self.config.read(PCI_CFG_AT + CFG_DATA, length), CPU0)
        except BusError as error:
            self.guest_error("VIRTIO_PCI_CAP_PCI_CFG", f": {error.reason}")

    # Legacy registers, section 4.1.4.10

    @legacy_device_features.on_read
    def _legacy_offered(self) -> int:
        return self.device.legacy_features

    @legacy_driver_features.on_read
    def _legacy_accepted(self) -> int:
        return self.device.driver_features & 0xFFFF_FFFF

    @legacy_driver_features.on_write
    def _legacy_accept(self, value: int) -> None:
        self.device.accept_legacy(value)

    @legacy_queue_address.on_read
    def _legacy_page(self) -> int:
        queue = self.queue
        return queue.descriptors // LEGACY_PAGE & 0xFFFF_FFFF if queue and queue.ready else 0

    @legacy_queue_address.on_write
    def _legacy_set_page(self, value: int) -> None:
        queue = self.queue
        if queue is None:
            self.guest_error("the address of a queue that is not there")
        elif not value:
            queue.disable()
        elif not queue.ready:
            places = legacy_layout(value * LEGACY_PAGE, queue.size, LEGACY_PAGE)
            queue.descriptors, queue.driver, queue.device = places
            queue.enable()

    @legacy_queue_size.on_read
    def _legacy_size(self) -> int:
        return self.get_size()

    @legacy_queue_select.on_read
    def _legacy_selected(self) -> int:
        return self.queue_select

    @legacy_queue_select.on_write
    def _legacy_select(self, value: int) -> None:
        self.queue_select = value

    @legacy_queue_notify.on_write
    def _legacy_notify(self, value: int) -> None:
        self.by_legacy = 1
        self.device.notified(value)

    @legacy_device_status.on_read
    def _legacy_status(self) -> int:
        return self.device.device_status

    @legacy_device_status.on_write
    def _legacy_set_status(self, value: int) -> None:
        self.by_legacy = 1
        self.device.set_status(value)

    @legacy_isr_status.on_read
    def _legacy_isr(self) -> int:
        return self.take_isr()

    @legacy_config_msix_vector.on_read
    def _legacy_config_vector(self) -> int:
        return self.config_msix_vector

    @legacy_config_msix_vector.on_write
    def _legacy_set_config_vector(self, value: int) -> None:
        self.config_msix_vector = self.vector(value)

    @legacy_queue_msix_vector.on_read
    def _legacy_queue_vector(self) -> int:
        return self.get_vector()

    @legacy_queue_msix_vector.on_write
    def _legacy_set_queue_vector(self, value: int) -> None:
        self.set_vector(value)


class _DeviceSpace:
    """The device's configuration space, in BAR 4."""

    def __init__(self, device: VirtioDevice) -> None:
        self.device = device

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read as the bus gives it."""
        return self.device.config_read(offset, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write as the bus gives it."""
        self.device.config_write(offset, size, value, attributes)


class _LegacySpace:
    """BAR 0: registers, and behind them the device's configuration space, which MSI-X moves."""

    def __init__(self, pci: VirtioPci, bank: Bank) -> None:
        self.pci = pci
        self.bank = bank

    def _start(self) -> int:
        return LEGACY_CONFIG + (4 if self.pci.msix_active else 0)

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read as the bus gives it."""
        start = self._start()
        if offset < start:
            return self.bank.read(offset, size, attributes)
        return self.pci.device.config_read(offset - start, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write as the bus gives it."""
        start = self._start()
        if offset < start:
            self.bank.write(offset, size, value, attributes)
        else:
            self.pci.device.config_write(offset - start, size, value, attributes)
