"""A board is a list of placed devices: what it is called, where its windows are, which interrupt it has.

    Placed("uart", "pl011", {"": 0x0900_0000}, irq=1, console=True)

`build` makes a machine of it. Maps for people and nodes of the device tree follow from the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dbt.machine.boards.devicetree import Node, cells, strings, wide
from dbt.machine.devices import load
from dbt.machine.lines import Line
from dbt.machine.machine import MEMORY, Machine
from dbt.machine.memory import Unassigned

from dbt.errors import UsageError

if TYPE_CHECKING:
    from dbt.machine.chardev import CharBackend
    from dbt.machine.clock import Clock
    from dbt.machine.device import Device
    from dbt.machine.log import Log

MIB = 1 << 20
Inputs = Callable[[int], Line]  # the wire of an interrupt's number on the board


@dataclass(frozen=True, slots=True)
class Tree:
    """What a device's node has besides its addresses and interrupt. `clocks`: names of inputs of the board's clock."""

    name: str
    compatible: tuple[str, ...]
    clocks: tuple[str, ...] = ()
    more: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """One device. `at`: window to address, `""` is its only one; `console`: whether it has a character back end.

    `tree`: how guests are told of it; neighbours with the same Tree are one node with several addresses.
    """

    name: str
    kind: str
    at: Mapping[str, int]
    irq: int | None = None
    space: str = MEMORY
    console: bool = False
    tree: Tree | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Options:
    """What users choose. `consoles` go to the devices that have one, in the order of the list."""

    ram: int = 128 * MIB
    cpus: int = 1
    consoles: tuple[CharBackend, ...] = ()
    epoch: int = 0
    clock: Clock | None = None
    log: Log | None = None


class Board:
    """The base of all; see `virt.py` for one."""

    NAME: ClassVar[str]
    ABOUT: ClassVar[str]
    CPUS: ClassVar[int] = 1
    RAM: ClassVar[tuple[int, int]] = (MIB, 255 << 30)  # the least and the most
    UNASSIGNED: ClassVar[Unassigned] = Unassigned.ERROR
    DEVICES: ClassVar[tuple[Placed, ...]] = ()

    def controller(self, machine: Machine, options: Options) -> Inputs:
        """Make the interrupt controller; the result gives the wire of a number."""
        raise NotImplementedError

    def memory(self, machine: Machine, options: Options) -> None:
        """Place RAM and ROM."""
        raise NotImplementedError

    def device_tree(self, machine: Machine) -> Node:
        """What a guest is told about a machine of this board. UsageError if the board has no such thing."""
        raise UsageError(f"{machine.name} has no device tree")

    def add_nodes(self, machine: Machine, root: Node, clock: int) -> None:
        """Nodes of the list's devices; `clock` is the phandle of what clocks them."""
        done: list[Tree] = []
        for placed in self.DEVICES:
            tree = placed.tree
            if tree is None or tree in done:
                continue
            done.append(tree)
            windows = [
                (at, (device.regions[window] if window else device.region).size)
                for other in self.DEVICES
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
                node.properties["interrupts"] = cells(0, placed.irq, 4)  # shared, active-high level
            if tree.clocks:
                node.properties["clocks"] = cells(*(clock for _ in tree.clocks))
                node.properties["clock-names"] = strings(*tree.clocks)

    def build(self, options: Options | None = None) -> Machine:
        """The machine, reset. UsageError if the board has no such memory or CPUs."""
        options = options or Options()
        if not 1 <= options.cpus <= self.CPUS:
            raise UsageError(f"{self.NAME} has 1 to {self.CPUS} CPUs, not {options.cpus}")
        least, most = self.RAM
        if not least <= options.ram <= most or options.ram % MIB:
            raise UsageError(
                f"{self.NAME} has {least // MIB} to {most // MIB:,} MiB of memory, not {options.ram:,} bytes"
            )
        machine = Machine(
            self.NAME, clock=options.clock, log=options.log, epoch=options.epoch, unassigned=self.UNASSIGNED
        )
        with machine.system.changes(), machine.io.changes():
            self.memory(machine, options)
            inputs = self.controller(machine, options)
            consoles = list(options.consoles)
            for placed in self.DEVICES:
                self.put(machine, placed, inputs, consoles)
        machine.reset()
        return machine

    @staticmethod
    def put(machine: Machine, placed: Placed, inputs: Inputs, consoles: list[CharBackend]) -> Device:
        """Make one device and place it."""
        arguments = dict(placed.arguments)
        if placed.irq is not None:
            arguments["irq"] = inputs(placed.irq)
        if placed.console and consoles:
            arguments["chars"] = consoles.pop(0)
        device = load(placed.kind)(placed.name, machine, **arguments)
        for window, at in placed.at.items():
            machine.place(device, at, placed.space, window)
        return device
