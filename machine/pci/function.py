"""A PCI function: a device that software finds, and whose windows it places, through configuration space.

    class E1000(PciFunction):
        PCI = Identity(vendor=0x8086, device=0x100E, class_code=0x020000, revision=3, pin=1)
        REGS = Window(0x20000)
        IO = Window(0x40)
        BARS = (Bar(0, "REGS"), Bar(1, "IO", io=True))

`self.dma` reaches memory while the function may be a bus master; `self.intx` is its interrupt pin. A device that has
messages calls `add_msi` or `add_msix` in its constructor, and `interrupt(vector)` when `msi_active` or `msix_active`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NotRequired, Protocol, TypedDict

from dbt.machine.device import Device
from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.lines import Line
from dbt.machine.log import TRACE
from dbt.machine.memory import DmaPort, Region
from dbt.machine.pci.bar import ROM, Bar, BaseAddress
from dbt.machine.pci.config import (
    CAPABILITIES_LIST,
    CONVENTIONAL,
    EXPRESS,
    INTERRUPT_STATUS,
    INTX_DISABLE,
    MASTER,
    MULTIFUNCTION,
    Capability,
    ConfigSpace,
    Header,
    Type0,
)
from dbt.machine.pci.msi import Msi, Msix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.device import Saved
    from dbt.machine.machine import Machine
    from dbt.machine.pci.bridge import PciBridge
    from dbt.machine.pci.bus import PciBus

    class Touched(Protocol):
        """What is called for an access to a capability: offset within it, and size."""

        def __call__(self, offset: int, size: int, /) -> None: ...


FIRST_CAPABILITY = 0x40


@dataclass(frozen=True, slots=True)
class Identity:
    """What a function says it is. `class_code`: class, subclass, programming interface; `pin`: 1 is INTA#, 0 is none.

    `express`: it has the 4 KiB of configuration space of PCI Express.
    """

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0x1AF4
    subsystem: int = 0x1100
    pin: int = 0
    multifunction: bool = False
    express: bool = False


class Where(TypedDict):
    """Where a function is plugged, as keywords of its constructor: those of subclasses pass them on."""

    bus: PciBus
    slot: int
    function: NotRequired[int]


class PciFunction(Device):
    """The base of all. `bars` and `identity`: instead of the class's, where they depend on arguments."""

    PCI: ClassVar[Identity]
    BARS: ClassVar[tuple[Bar, ...]] = ()
    HEADER: ClassVar[type[Header]] = Type0
    CONFIG: ClassVar[tuple[type, ...]] = ()  # classes of registers in the device's own part of configuration space

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        bus: PciBus,
        slot: int,
        function: int = 0,
        bars: Iterable[Bar] | None = None,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(name, machine)
        self.bus = bus
        if not (0 <= slot < 32 and 0 <= function < 8):
            raise MapError(f"{name}: {bus.name} has no slot {slot}.{function}")
        self.devfn = slot << 3 | function
        self.identity = identity or self.PCI
        self.config = ConfigSpace(EXPRESS if self.identity.express else CONVENTIONAL)
        self.dma = DmaPort(name, machine.memory, enabled=False)
        self.intx = Line(f"{name}.intx", self._intx_changed)
        self.bars: dict[int, BaseAddress] = {}
        self.msi: Msi | None = None
        self.msix: Msix | None = None
        self._capabilities: list[tuple[int, int, Touched | None, Touched | None]] = []  # start, end, on read, on write
        self._pin = False  # what the bus sees
        self._header()
        for bar in self.BARS if bars is None else bars:
            self.add_bar(bar)
        bus.add(self)

    def _header(self) -> None:
        identity, config = self.identity, self.config
        for layout in (self.HEADER, *self.CONFIG):
            config.install(layout)
        config.preset(Header.VENDOR_ID, identity.vendor)
        config.preset(Header.DEVICE_ID, identity.device)
        config.preset(Header.REVISION_ID, identity.revision)
        config.preset(Header.CLASS_CODE, identity.class_code)
        config.preset(Header.INTERRUPT_PIN, identity.pin)
        kind = (0 if issubclass(self.HEADER, Type0) else 1) | (MULTIFUNCTION if identity.multifunction else 0)
        config.preset(Header.HEADER_TYPE, kind)
        if issubclass(self.HEADER, Type0):
            config.preset(Type0.SUBSYSTEM_VENDOR_ID, identity.subsystem_vendor)
            config.preset(Type0.SUBSYSTEM_ID, identity.subsystem)
        config.fix(0, 4)

    def as_bridge(self) -> PciBridge | None:
        """This function, if there is a bus behind it."""
        return None

    @property
    def requester_id(self) -> int:
        """Who it is in its messages."""
        return self.bus.number << 8 | self.devfn

    # BARs

    def add_bar(self, bar: Bar) -> BaseAddress:
        """A BAR that the class does not declare."""
        taken = {index for base in self.bars.values() for index in base.numbers()}
        wanted = {bar.index, bar.index + 1} if bar.bits == 64 else {bar.index}
        last = ROM - 1 if issubclass(self.HEADER, Type0) else 1
        good = bar.bits in {32, 64} and (bar.index == ROM or wanted <= set(range(last + 1)))
        if not good or wanted & taken or (bar.bits == 64 and (bar.io or bar.index == ROM)):
            raise MapError(f"{self.name}: there is no free BAR {bar.index} of {bar.bits} bits")
        region = bar.shows if isinstance(bar.shows, Region) else self.regions[bar.shows] if bar.shows else None
        base = self.bars[bar.index] = BaseAddress(self, bar, region)
        return base

    def base_address(self, index: int) -> BaseAddress:
        """BAR `index`."""
        if index not in self.bars:
            raise MapError(f"{self.name} has no BAR {index}")
        return self.bars[index]

    def all_regions(self) -> Iterator[Region]:
        """Those of windows and of BARs."""
        yield from super().all_regions()
        for base in self.bars.values():
            yield base.contents

    # Capabilities

    def add_capability(
        self,
        number: int,
        body: bytes,
        mask: bytes = b"",
        *,
        layout: type[Capability] | None = None,
        prefix: str = "",
        at: int = 0,
        on_read: Touched | None = None,
        on_write: Touched | None = None,
    ) -> int:
        """A capability of `body` behind its identifier and link; the result is its offset.

        `mask`: the bits of the body that software may write. `layout` declares registers in it, with their values and
        masks, and names for traces. The functions are called before reads and after writes that touch it, with the
        offset from its start. The newest capability is the first in the list.
        """
        config, size = self.config, 2 + len(body)
        at = at or self._room(size)
        if at % 4 or at < FIRST_CAPABILITY or at + size > CONVENTIONAL or self._taken(at, at + size):
            raise MapError(f"{self.name}: no capability of {size} bytes fits at {at:#x}")
        config.initial[at + 2 : at + size] = config.data[at + 2 : at + size] = body
        config.mask[at + 2 : at + size] = mask.ljust(len(body), b"\0")
        config.install(layout or Capability, at, prefix)
        config.preset(Capability.CAPABILITY_ID, number, at)
        config.preset(Capability.NEXT, config.get(Header.CAPABILITIES_POINTER), at)
        config.preset(Header.CAPABILITIES_POINTER, at)
        config.preset(Header.STATUS, config.get(Header.STATUS) | CAPABILITIES_LIST)
        config.fix(at, 2)
        self._capabilities.append((at, at + size, on_read, on_write))
        return at

    def _taken(self, start: int, end: int) -> bool:
        return any(start < there_end and there < end for there, there_end, _, _ in self._capabilities)

    def _room(self, size: int) -> int:
        for at in range(FIRST_CAPABILITY, CONVENTIONAL - size + 1, 4):
            if not self._taken(at, at + size):
                return at
        raise MapError(f"{self.name}: there is no room for a capability of {size} bytes")

    def add_msi(self, vectors: int = 1, *, wide: bool = True, masking: bool = False, at: int = 0) -> Msi:
        """MSI with so many vectors; `wide`: 64 bits of address."""
        self.msi = Msi(self, vectors, wide=wide, masking=masking, at=at)
        return self.msi

    def add_msix(
        self, vectors: int, bar: int, *, table: int = 0, pba: int | None = None, pba_bar: int | None = None, at: int = 0
    ) -> Msix:
        """MSI-X with so many vectors, table and pending bits in `bar`, which is made if the class declares none."""
        if bar not in self.bars:
            pages = 1 << max(16 * vectors * 2 - 1, 0xFFF).bit_length()
            self.add_bar(Bar(bar, "", size=pages))
        self.msix = Msix(self, vectors, bar=bar, table=table, pba=pba, pba_bar=pba_bar, at=at)
        return self.msix

    # Interrupts

    @property
    def msi_active(self) -> bool:
        """Whether MSI is what the driver wants."""
        return self.msi is not None and self.msi.enabled and not self.msix_active

    @property
    def msix_active(self) -> bool:
        """Whether MSI-X is what the driver wants."""
        return self.msix is not None and self.msix.enabled

    def interrupt(self, vector: int = 0) -> None:
        """Send the message of a vector, if messages are enabled."""
        if self.msix is not None and self.msix.enabled:
            self.msix.interrupt(vector)
        elif self.msi is not None and self.msi.enabled:
            self.msi.interrupt(vector)

    def send_message(self, address: int, data: int) -> None:
        """A message is a write of a bus master."""
        if self.dma.enabled:
            self.machine.msi.send(address, data, self.requester_id)
        else:
            self.guest_error("a message, but it may not be a bus master")

    def _intx_changed(self, level: bool) -> None:
        status = self.config.get(Header.STATUS) & ~INTERRUPT_STATUS
        self.config.set(Header.STATUS, status | (INTERRUPT_STATUS if level else 0))
        self._drive_pin()

    def _drive_pin(self) -> None:
        config = self.config
        level = self.intx.level and not config.get(Header.COMMAND) & INTX_DISABLE
        level = level and not (self.msi_active or self.msix_active) and self.identity.pin > 0
        if level != self._pin:
            self._pin = level
            self.bus.drive(self.devfn >> 3, self.identity.pin - 1, level)

    # Configuration space

    def on_config_write(self, offset: int, size: int) -> None:
        """Configuration space has been written, the generic part is done."""

    def config_read(self, offset: int, size: int) -> int:
        """What software reads."""
        for start, end, on_read, _ in self._capabilities:
            if on_read and offset < end and start < offset + size:
                on_read(offset - start, size)
        value = self.config.read(offset, size)
        if self.config.traced:
            self._trace(offset, size, value, "->")
        return value

    def config_write(self, offset: int, size: int, value: int) -> None:
        """What software writes."""
        if self.config.traced:
            self._trace(offset, size, value, "<-")
        self.config.write(offset, size, value)
        self._refresh()
        for start, end, _, on_write in self._capabilities:
            if on_write and offset < end and start < offset + size:
                on_write(offset - start, size)
        self.on_config_write(offset, size)

    def _refresh(self) -> None:
        """Do what the registers say."""
        moved = [base for base in self.bars.values() if base.wanted != base.at]
        if moved:
            with self.bus.memory.changes(), self.bus.io.changes():
                for base in moved:
                    base.update()
        self.remaster()
        self._drive_pin()

    def remaster(self) -> None:
        """See whether DMA is allowed."""
        self.dma.enabled = bool(self.config.get(Header.COMMAND) & MASTER) and self.bus.masters()

    def _trace(self, offset: int, size: int, value: int, arrow: str) -> None:
        for name, text in self.config.touched(offset, size, value):
            self.machine.log.say(TRACE, self.name, f"config {name} {arrow} {text}")

    def traceable(self) -> Iterator[tuple[set[str], set[str]]]:
        """The registers of windows, and those of configuration space."""
        yield from super().traceable()
        yield self.config.traced, {name for _, name, _ in self.config.names}

    # Reset and saved states

    def reset(self) -> None:
        """Registers and configuration space are as after power-on."""
        self.config.reset()
        if self.msix:
            self.msix.reset()
        self._refresh()
        super().reset()
        self._intx_changed(self.intx.level)

    def bus_reset(self) -> None:
        """The slot's reset while the machine runs. Functions in front of other devices reset those as well."""
        self.reset()

    def save(self) -> Saved:
        """Registers, states, configuration space and the table of MSI-X."""
        saved = super().save()
        saved["config"] = self.config.data.hex()
        if self.msix:
            saved["msix"] = self.msix.save()
        return saved

    def check(self, saved: object) -> Saved:
        """The values of a saved state."""
        values = super().check(saved)
        if not isinstance(saved, dict) or ("msix" in saved) != (self.msix is not None):
            raise SnapshotError(f"{self.name}: the saved function has other capabilities")
        self.config.check(saved.get("config"), self.name)
        if self.msix:
            self.msix.check(saved["msix"])
        return values

    def load(self, saved: Saved) -> None:
        """The configuration space and MSI-X's table as well."""
        super().load(saved)
        self.config.data[:] = self.config.check(saved["config"], self.name)
        if self.msix:
            self.msix.restore(self.msix.check(saved["msix"]))

    def wire(self, saved: Saved) -> None:
        """BARs are where the registers say."""
        self._refresh()
        super().wire(saved)
        self._intx_changed(self.intx.level)
