"""Power: what asked for the machine to go off or to start anew, and which of its CPUs run.

Devices and firmware services only ask. Whoever runs the machine takes the request at the next boundary, since a device
cannot be reset from within itself; without a runner it stays on record. CPUs say what they are by `PoweredCpu`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Protocol

from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.registers import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine


class PowerKind(Enum):
    """What can be asked for."""

    OFF = "off"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class PowerRequest:
    """`source`: the device or service that asked; `code`: what it said about why, 0: all is well."""

    kind: PowerKind
    source: str
    code: int = 0


class Power:
    """A machine's. The first request counts until it is taken; `button` is the wire of the power button."""

    def __init__(self, machine: str) -> None:
        self.button = Line(f"{machine}.power-button")
        self.request: PowerRequest | None = None
        self._listeners: tuple[Callable[[PowerRequest], None], ...] = ()

    def listen(self, listener: Callable[[PowerRequest], None]) -> None:
        """Tell the runner of each new request, under the machine's lock."""
        self._listeners = (*self._listeners, listener)

    def ask(self, kind: PowerKind, source: str, code: int = 0) -> None:
        """Ask for something."""
        if self.request is None:
            self.request = PowerRequest(kind, source, code)
            for listener in self._listeners:
                listener(self.request)

    def off(self, source: str, code: int = 0) -> None:
        """Ask for the power to go off."""
        self.ask(PowerKind.OFF, source, code)

    def reset(self, source: str, code: int = 0) -> None:
        """Ask for a reset of all."""
        self.ask(PowerKind.RESET, source, code)

    def take(self) -> PowerRequest | None:
        """What was asked for, which is then answered."""
        request, self.request = self.request, None
        return request


class CpuState(IntEnum):
    """`PENDING`: switched on, but not in its first instruction yet. `STANDBY` waits and goes on; `DOWN` starts anew."""

    OFF = 0
    PENDING = 1
    ON = 2
    STANDBY = 3
    DOWN = 4


class PoweredCpu(Protocol):
    """What power services need of a CPU. `affinity`: who it is among others, in its architecture's terms."""

    number: int
    affinity: int

    @property
    def power_state(self) -> CpuState:
        """What it does now."""

    def start(self, entry: int, context: int) -> None:
        """Begin at `entry` with `context` as the first argument."""

    def stop(self) -> None:
        """Do nothing, until it is started."""

    def suspend(self) -> None:
        """Wait for an interrupt, and go on."""

    def power_down(self, entry: int, context: int) -> None:
        """Wait for an interrupt, then begin as `start` says."""


class RecordedCpu(Device):
    """A CPU that only keeps account of what it was told: the machine's, as long as none runs.

    `irq` and `fiq` are its inputs; either wakes it. `begin` is what a CPU does with its first instruction.
    """

    state = State(bits=3)
    entry = State(bits=64)
    context = State(bits=64)

    def __init__(self, name: str, machine: Machine, *, number: int, affinity: int | None = None) -> None:
        super().__init__(name, machine)
        self.number = number
        self.affinity = number if affinity is None else affinity
        self.irq = Line(f"{name}.irq", self._wake)
        self.fiq = Line(f"{name}.fiq", self._wake)
        machine.cpus.append(self)

    def on_reset(self) -> None:
        """The first CPU runs, the others wait to be started."""
        self.state = CpuState.OFF if self.number else CpuState.ON

    def on_restore(self) -> None:
        """Its inputs are set by what drives them."""

    @property
    def power_state(self) -> CpuState:
        """What it does now."""
        return CpuState(min(self.state, CpuState.DOWN))

    def start(self, entry: int, context: int) -> None:
        """Keep where it is to begin."""
        self.entry, self.context, self.state = entry, context, CpuState.PENDING

    def begin(self) -> None:
        """It is in its first instruction."""
        if self.state == CpuState.PENDING:
            self.state = CpuState.ON

    def stop(self) -> None:
        """It is off."""
        self.state = CpuState.OFF

    def suspend(self) -> None:
        """It waits, unless there is an interrupt."""
        self.state = CpuState.STANDBY
        self._wake(self.irq.level or self.fiq.level)

    def power_down(self, entry: int, context: int) -> None:
        """It waits without its registers, unless there is an interrupt."""
        self.entry, self.context, self.state = entry, context, CpuState.DOWN
        self._wake(self.irq.level or self.fiq.level)

    def _wake(self, level: bool) -> None:
        if level and self.state == CpuState.STANDBY:
            self.state = CpuState.ON
        elif level and self.state == CpuState.DOWN:
            self.state = CpuState.PENDING
