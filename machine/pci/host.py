"""How processors reach configuration space: the window of PCI Express (ECAM), and the ports 0xCF8 and 0xCFC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.memory import MMIO, AccessSizes, Alias, Container
from dbt.machine.registers import RW, Register, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.memory import Attributes, Handler, Region
    from dbt.machine.pci.bus import PciBus

ANY = AccessSizes((1, 8), (1, 4))
ENABLE = 1 << 31


class Ones:
    """What a master abort reads as: a host bridge puts it below its windows, where nobody answers."""

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """Ones."""
        del offset, attributes
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """Nothing."""


def window(name: str, bus: Region, at: int, size: int) -> Container:
    """A part of a bus's space as processors see it: what nobody answers is a master abort, not what lies below."""
    container = Container(name, size)
    container.place(Alias(f"{name}.bus", bus, at, size), 0)
    container.place(MMIO(f"{name}.abort", size, Ones()), 0, -1)
    return container


class Ecam:
    """The handler of an ECAM window (PCI Express 3.0, 7.2.2): offset is bus, device, function, register."""

    def __init__(self, bus: PciBus) -> None:
        self.bus = bus

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read of configuration space."""
        del attributes
        return self.bus.config_read(offset >> 20, offset >> 12 & 0xFF, offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write."""
        del attributes
        self.bus.config_write(offset >> 20, offset >> 12 & 0xFF, offset & 0xFFF, size, value)


def ecam(name: str, bus: PciBus, buses: int = 256) -> MMIO:
    """The window of so many buses, 1 MiB each."""
    return MMIO(name, buses << 20, Ecam(bus), ANY)


class ConfigPorts(Device):
    """Configuration mechanism #1 of PCs (PCI Local Bus 3.0, 3.2.2.3.2): windows ADDRESS at 0xCF8 and DATA at 0xCFC.

    `others` gets what is not 32 bits wide at the address port, as that is no configuration access: PCs have their
    reset control at 0xCF9.
    """

    ADDRESS = Window(4, AccessSizes((1, 4)))
    DATA = Window(4, ANY)
    CONFIG_ADDRESS = Register(
        0, RW, "what the data port shows", mask=0x80FFFFFC, window=ADDRESS,
        fields={"ENABLE": 31, "BUS": (23, 16), "DEVICE": (15, 11), "FUNCTION": (10, 8), "REGISTER": (7, 2)},
    )  # fmt: skip

    def __init__(self, name: str, machine: Machine, bus: PciBus, others: Handler | None = None) -> None:
        super().__init__(name, machine)
        self.bus = bus
        address = AddressPort(self.banks["ADDRESS"], others or Ones())
        self.regions["ADDRESS"] = MMIO(f"{name}.ADDRESS", 4, address, self.ADDRESS.sizes)
        self.regions["DATA"] = MMIO(f"{name}.DATA", 4, DataPort(self), self.DATA.sizes)


class AddressPort:
    """The port 0xCF8."""

    def __init__(self, bank: Handler, others: Handler) -> None:
        self._bank = bank
        self._others = others

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """The address."""
        return (self._bank if size == 4 else self._others).read(offset, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A new address."""
        (self._bank if size == 4 else self._others).write(offset, size, value, attributes)


class DataPort:
    """The ports 0xCFC to 0xCFF."""

    def __init__(self, ports: ConfigPorts) -> None:
        self._ports = ports

    def _place(self, offset: int) -> tuple[int, int, int]:
        address = self._ports.CONFIG_ADDRESS
        return address >> 16 & 0xFF, address >> 8 & 0xFF, address & 0xFC | offset

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """Configuration space, if the address is enabled."""
        del attributes
        if not self._ports.CONFIG_ADDRESS & ENABLE:
            return (1 << 8 * size) - 1
        return self._ports.bus.config_read(*self._place(offset), size)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """Configuration space, if the address is enabled."""
        del attributes
        if self._ports.CONFIG_ADDRESS & ENABLE:
            self._ports.bus.config_write(*self._place(offset), size, value)
