"""A board is a list of placed devices: what it is called, where its windows are, which interrupt it has.

    Placed("uart", "pl011", {"": 0x0900_0000}, irq=1, console=True)

`build` makes a machine of it. Maps for people, nodes of the device tree and ACPI's tables follow from the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dbt.machine.boards.devicetree import Node, cells, strings, wide
from dbt.machine.device import Device
from dbt.machine.devices import DEVICES, load
from dbt.machine.lines import Line
from dbt.machine.machine import MEMORY, Machine
from dbt.machine.memory import ROM, ROMDevice, Unassigned
from dbt.machine.pci import PciFunction
from dbt.machine.pci.assign import Ranges, assign
from dbt.machine.virtio import VirtioDevice
from dbt.machine.virtio.pci import VirtioPci

from dbt.errors import UsageError
from dbt.wording import listed

if TYPE_CHECKING:
    import threading

    from dbt.machine.block.disk import Disk
    from dbt.machine.chardev import CharBackend
    from dbt.machine.clock import Clock
    from dbt.machine.input import Input
    from dbt.machine.log import Log
    from dbt.machine.memory import AddressSpace
    from dbt.machine.net.backend import NetBackend
    from dbt.machine.pci import PciBus

MIB = 1 << 20
MAC = 0x52_54_00_12_34_56  # of the first network card; the others follow
T = TypeVar("T", bound=Device)
Inputs = Callable[[int], Line]  # the wire of an interrupt's number on the board


@dataclass(frozen=True, slots=True)
class Tree:
    """What a device's node has besides its addresses and interrupt. `clocks`: names of inputs of the board's clock."""

    name: str
    compatible: tuple[str, ...]
    clocks: tuple[str, ...] = ()
    more: Mapping[str, bytes] = field(default_factory=dict)
    edge: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """One device. `at`: window to address, `""` is its only one; `console`: whether it has a character back end.

    `irq`: the interrupt of its argument of that name; `irqs`: further ones by their arguments' names.
    `slot`: slot and function on the root PCI bus. `tree`: how guests are told of it by a device tree, neighbours with
    the same Tree are one node with several addresses; `acpi`: the same by ACPI, hardware and unique identifier.
    """

    name: str
    kind: str
    at: Mapping[str, int] = field(default_factory=dict)
    irq: int | None = None
    irqs: Mapping[str, int] = field(default_factory=dict)
    space: str = MEMORY
    console: bool = False
    slot: tuple[int, int] | None = None
    tree: Tree | None = None
    acpi: tuple[str, int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plugged:
    """A device that users add, on PCI. `bus`: the name of a bridge that was plugged before; the root bus otherwise.

    A virtio device gets the transport that belongs to its bus. `arguments` may be a function of the machine that gives
    them: drives of a controller are devices of the machine themselves.
    """

    kind: str
    name: str = ""
    slot: int | None = None  # the first free one
    function: int = 0
    bus: str = ""
    arguments: Mapping[str, Any] | Callable[[Machine], Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Options:
    """What users choose. `consoles` go to the devices that have one, in the order of the list.

    `disks` and `nets` go to what the board has for them: IDE and e1000 on PCs, virtio elsewhere. `firmware` is what the
    ROM or flash at the reset vector has. Back ends that have a thread are made with the `lock` that the machine gets.
    """

    ram: int = 128 * MIB
    cpus: int = 1
    consoles: tuple[CharBackend, ...] = ()
    disks: tuple[Disk, ...] = ()
    cds: tuple[Disk | None, ...] = ()  # None: a drive without a disc
    nets: tuple[NetBackend, ...] = ()
    devices: tuple[Plugged, ...] = ()
    firmware: bytes = b""
    user: Input | None = None  # whose keys and movements keyboard and mouse get
    gic: int = 2  # version of an Arm board's interrupt controller
    highmem: bool = True  # whether an Arm board has something above 4 GiB
    epoch: int = 0
    clock: Clock | None = None
    log: Log | None = None
    lock: threading.RLock | None = None


def is_pluggable(name: str) -> bool:
    """Whether a kind of device needs nothing but a place on PCI."""
    kind = load(name)
    taken = signature(kind).parameters.values()
    needed = {one.name for one in taken if one.default is one.empty and one.kind != one.VAR_KEYWORD}
    return issubclass(kind, (VirtioDevice, PciFunction)) and needed <= {"name", "machine", "bus", "slot"}


def made(machine: Machine, kind: type[T], name: str, plugged: Plugged, **place: object) -> T:
    """A device with what users give as its arguments; UsageError if it takes others."""
    given = plugged.arguments(machine) if callable(plugged.arguments) else plugged.arguments
    arguments = {**place, **given}
    taken = signature(kind).parameters
    ints = {key for key, one in taken.items() if {"int", "bool"} & {*str(one.annotation).split()}}
    numbers = sorted(ints - {"bus", "slot", "function"})
    if unknown := given.keys() - taken.keys():  # where a function is plugged is not theirs to say
        raise UsageError(f"{plugged.kind} has no argument {min(unknown)!r}", listed("its numbers", numbers))
    try:
        signature(kind).bind(name, machine, **arguments)
    except TypeError as error:
        raise UsageError(f"{name}: {error}") from error
    for key, value in given.items():  # the command gives numbers only
        if isinstance(value, int) and key not in ints:
            raise UsageError(f"{name}: {key} is not a number, but {taken[key].annotation}")
    return kind(name, machine, **arguments)


def mac(number: int) -> bytes:
    """The address of a network card."""
    return (MAC + number).to_bytes(6, "big")


def load_firmware(region: ROM | ROMDevice, image: bytes, *, top: bool) -> None:
    """Put the image at the start of a region, or at its top."""
    if len(image) > region.size:
        raise UsageError(f"the firmware has {len(image):,} bytes, there is room for {region.size:,}")
    at = region.size - len(image) if top else 0
    region.memory.view[at : at + len(image)] = image


class BoardMachine(Machine):
    """A machine that was built from a board: `placed` are its fixed devices, `pci` is its root bus."""

    def __init__(self, board: Board, options: Options) -> None:
        super().__init__(
            board.NAME, clock=options.clock, log=options.log, epoch=options.epoch, unassigned=board.UNASSIGNED,
            lock=options.lock,
        )  # fmt: skip
        self.board = board
        self.options = options
        self.placed: list[Placed] = []
        self.pci: PciBus | None = None
        self.spaces: list[AddressSpace] = []  # of CPUs that see more than `memory`
        self.a20 = Line("a20")  # of a PC: whether CPUs see address line 20
        self.consoles = list(options.consoles)  # that no device has yet
        self.inputs: Inputs = lambda number: Line(f"irq{number}")


class Board:
    """The base of all; see `virt.py` for one."""

    NAME: ClassVar[str]
    ABOUT: ClassVar[str]
    CPUS: ClassVar[int] = 1
    RAM: ClassVar[tuple[int, int]] = (MIB, 255 << 30)  # the least and the most
    UNASSIGNED: ClassVar[Unassigned] = Unassigned.ERROR
    DEVICES: ClassVar[tuple[Placed, ...]] = ()

    def memory(self, machine: BoardMachine) -> None:
        """Place RAM and ROM."""
        raise NotImplementedError

    def controller(self, machine: BoardMachine) -> Inputs:
        """Make the interrupt controller; the result gives the wire of a number."""
        raise NotImplementedError

    def buses(self, machine: BoardMachine) -> None:
        """Make the root PCI bus, if there is one: its wires go to `machine.inputs`."""

    def devices(self, machine: BoardMachine) -> tuple[Placed, ...]:
        """The list, as the options have it."""
        del machine
        return self.DEVICES

    def connect(self, machine: BoardMachine) -> None:
        """Make the devices of the options' back ends."""
        if machine.options.nets:
            raise UsageError(f"{machine.name} has no network cards")

    def finish(self, machine: BoardMachine) -> None:
        """Everything is there: tell firmware of it."""

    def ranges(self, machine: BoardMachine) -> Ranges:
        """Where PCI functions may be."""
        raise UsageError(f"{machine.name} has no PCI")

    def interrupt_line(self, slot: int, pin: int) -> int:
        """What firmware writes into the interrupt line register of a function."""
        del slot, pin
        return 0

    def device_tree(self, machine: BoardMachine) -> Node:
        """What a guest is told about a machine of this board. UsageError if the board has no such thing."""
        raise UsageError(f"{machine.name} has no device tree")

    def acpi(self, machine: BoardMachine) -> dict[str, bytes]:
        """The same as ACPI's tables, by signature. UsageError if the board has no such thing."""
        raise UsageError(f"{machine.name} has no ACPI")

    def add_nodes(self, machine: BoardMachine, root: Node, clock: int) -> None:
        """Nodes of the list's devices; `clock` is the phandle of what clocks them."""
        done: list[Tree] = []
        for placed in machine.placed:
            tree = placed.tree
            if tree is None or any(tree is other for other in done):
                continue
            done.append(tree)
            windows = [
                (at, (device.regions[window] if window else device.region).size)
                for other in machine.placed
                if other.tree is tree
                for device in [machine.devices[other.name]]
                for window, at in other.at.items()
            ]
            node = root.add(f"{tree.name}@{windows[0][0]:x}", {
                "compatible": strings(*tree.compatible),
                "reg": b"".join(wide(*window) for window in windows),
                **tree.more,
            })  # fmt: skip
            if placed.irq is not None:
                node.properties["interrupts"] = cells(0, placed.irq, 1 if tree.edge else 4)  # shared; active-high
            if tree.clocks:
                node.properties["clocks"] = cells(*(clock for _ in tree.clocks))
                node.properties["clock-names"] = strings(*tree.clocks)

    def build(self, options: Options | None = None) -> BoardMachine:
        """The machine, reset. UsageError if the board has no such memory or CPUs.

        On an error, disks and folders that devices had already are closed, as by `Machine.close`.
        """
        options = options or Options()
        self.check(options)
        machine = BoardMachine(self, options)
        try:
            with machine.system.changes(), machine.io.changes():
                self._fill(machine)
                machine.reset()
        except BaseException:
            machine.close()
            raise
        return machine

    def _fill(self, machine: BoardMachine) -> None:
        self.memory(machine)
        machine.inputs = self.controller(machine)
        self.buses(machine)
        for placed in self.devices(machine):
            self.put(machine, placed)
        self.connect(machine)
        for plugged in machine.options.devices:
            self.plug(machine, plugged)
        self.finish(machine)

    def check(self, options: Options) -> None:
        """UsageError if this cannot be."""
        if not 1 <= options.cpus <= self.CPUS:
            raise UsageError(f"{self.NAME} has 1 to {self.CPUS} CPUs, not {options.cpus}")
        least, most = self.RAM
        if not least <= options.ram <= most or options.ram % MIB:
            wrong = f"{options.ram:,} bytes" if options.ram % MIB else f"{options.ram // MIB:,}"
            raise UsageError(f"{self.NAME} has {least // MIB} to {most // MIB:,} MiB of memory, not {wrong}")

    def put(self, machine: BoardMachine, placed: Placed) -> Device:
        """Make one device and place it."""
        arguments = dict(placed.arguments)
        if placed.irq is not None and placed.slot is None:
            arguments["irq"] = machine.inputs(placed.irq)
        arguments.update((argument, machine.inputs(number)) for argument, number in placed.irqs.items())
        if placed.console and machine.consoles:
            arguments["chars"] = machine.consoles.pop(0)
        if placed.slot is not None:
            arguments.update(bus=machine.pci, slot=placed.slot[0], function=placed.slot[1])
        device = load(placed.kind)(placed.name, machine, **arguments)
        for window, at in placed.at.items():
            machine.place(device, at, placed.space, window)
        machine.placed.append(placed)
        return device

    def plug(self, machine: BoardMachine, plugged: Plugged) -> None:
        """Make one device of the options."""
        if machine.pci is None:
            raise UsageError(f"{self.NAME} has no PCI bus to plug {plugged.kind} into")
        bus = machine.pci
        if plugged.bus:
            found = machine.devices.get(plugged.bus)
            bridge = found.as_bridge() if isinstance(found, PciFunction) else None
            if bridge is None:
                raise UsageError(f"there is no PCI bridge {plugged.bus!r}", "plug it before what is behind it")
            bus = bridge.secondary
        slot = bus.free_slot() if plugged.slot is None else plugged.slot
        name, kind = plugged.name or self.free_name(machine, plugged.kind), load(plugged.kind)
        place: dict[str, Any] = {"bus": bus, "slot": slot, "function": plugged.function}
        if issubclass(kind, VirtioDevice):
            VirtioPci(f"{name}.pci", machine, made(machine, kind, name, plugged), **place)
        elif issubclass(kind, PciFunction):
            made(machine, kind, name, plugged, **place)
        else:
            raise UsageError(f"{plugged.kind} cannot be plugged in", listed("can be", filter(is_pluggable, DEVICES)))

    @staticmethod
    def free_name(machine: BoardMachine, kind: str) -> str:
        """The kind with the first number that is not taken."""
        stem, number = f"{kind}-" if kind[-1:].isdigit() else kind, 0
        while f"{stem}{number}" in machine.devices:
            number += 1
        return f"{stem}{number}"

    def assign(self, machine: BoardMachine) -> None:
        """What firmware does with PCI: bus numbers, BARs, windows, interrupt lines."""
        if machine.pci is not None:
            with machine.lock, machine.system.changes(), machine.io.changes():
                assign(machine.pci, self.ranges(machine), self.interrupt_line)
