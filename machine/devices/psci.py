"""Arm Power State Coordination Interface, version 1.1 (DEN0022): what SMC or HVC ask firmware for.

`call` is what a CPU does with such an instruction whose function is one of PSCI's. CPUs are those of the machine
(machine/power.py); `affinity` is MPIDR's. Power states are in the original format (section 5.4.2.1). There is no
trusted OS, so nothing migrates. System suspend, statistics and the like are optional and absent: FEATURES says so.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.power import CpuState

if TYPE_CHECKING:
    from dbt.machine.power import PoweredCpu

VERSION_1_1 = 0x0001_0001
SMC64 = 0x4000_0000
AFFINITY = 0xFF_00FF_FFFF  # Aff3, Aff2 to Aff0
POWER_LEVEL, POWERDOWN = 0x300_0000, 0x1_0000
POWER_STATE = POWER_LEVEL | POWERDOWN | 0xFFFF
VENDOR_RESET = 0x8000_0000
WARM_RESET = 1  # the code of a request that SYSTEM_RESET2 made


class Function(IntEnum):
    """Function identifiers (section 5.2); those with 64 bits also exist with SMC64 set."""

    PSCI_VERSION = 0x8400_0000
    CPU_SUSPEND = 0x8400_0001
    CPU_OFF = 0x8400_0002
    CPU_ON = 0x8400_0003
    AFFINITY_INFO = 0x8400_0004
    MIGRATE_INFO_TYPE = 0x8400_0006
    SYSTEM_OFF = 0x8400_0008
    SYSTEM_RESET = 0x8400_0009
    PSCI_FEATURES = 0x8400_000A
    SYSTEM_RESET2 = 0x8400_0012


KNOWN = frozenset(int(function) for function in Function)
WIDE = frozenset({Function.CPU_SUSPEND, Function.CPU_ON, Function.AFFINITY_INFO, Function.SYSTEM_RESET2})


class Status(IntEnum):
    """What functions return (section 5.2.2)."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    DENIED = -3
    ALREADY_ON = -4
    ON_PENDING = -5
    INTERNAL_FAILURE = -6
    NOT_PRESENT = -7
    DISABLED = -8
    INVALID_ADDRESS = -9


class Psci(Device):
    """Power State Coordination Interface 1.1 (DEN0022)."""

    @staticmethod
    def known(function: int) -> Function | None:
        """The function of that identifier, if it is one of those that are here."""
        narrow = function & ~SMC64
        if narrow not in (WIDE if function & SMC64 else KNOWN):
            return None
        return Function(narrow)

    def call(self, cpu: int, function: int, x1: int = 0, x2: int = 0, x3: int = 0) -> int | None:
        """What X0 of the CPU becomes; None: the CPU does not come back from it. Under the machine's lock."""
        which = self.known(function)
        if which is None:
            self.unimplemented(f"PSCI function {function & 0xFFFF_FFFF:#010x}")
            return Status.NOT_SUPPORTED
        bits = (1 << (64 if function & SMC64 else 32)) - 1
        x1, x2, x3 = x1 & bits, x2 & bits, x3 & bits
        me = self.machine.cpus[cpu]
        match which:
            case Function.PSCI_VERSION:
                return VERSION_1_1
            case Function.PSCI_FEATURES:
                return self._features(x1)
            case Function.MIGRATE_INFO_TYPE:
                return 2  # there is no trusted OS
            case Function.CPU_ON:
                return self._on(x1, x2, x3)
            case Function.AFFINITY_INFO:
                return self._affinity_info(x1, x2)
            case Function.CPU_SUSPEND:
                return self._suspend(me, x1, x2, x3)
            case Function.CPU_OFF:
                me.stop()
            case Function.SYSTEM_OFF:
                self.machine.power.off(self.name)
            case Function.SYSTEM_RESET:
                self.machine.power.reset(self.name)
            case Function.SYSTEM_RESET2:
                if x1:  # others than the architectural warm reset, and vendors'
                    return Status.NOT_SUPPORTED if x1 & VENDOR_RESET else Status.INVALID_PARAMETERS
                self.machine.power.reset(self.name, WARM_RESET)
        return None

    def _features(self, function: int) -> int:
        """Zero: it is there; CPU_SUSPEND takes the original format and no OS-initiated mode."""
        return Status.NOT_SUPPORTED if self.known(function) is None else 0

    def _on(self, target: int, entry: int, context: int) -> int:
        cpu = next((cpu for cpu in self.machine.cpus if cpu.affinity == target), None)
        if cpu is None:
            return Status.INVALID_PARAMETERS
        if cpu.power_state == CpuState.PENDING:
            return Status.ON_PENDING
        if cpu.power_state != CpuState.OFF:
            return Status.ALREADY_ON
        if not self._is_memory(entry):
            return Status.INVALID_ADDRESS
        cpu.start(entry, context)
        return Status.SUCCESS

    def _is_memory(self, address: int) -> bool:
        section = self.machine.memory.view.find(address)
        return section is not None and section.reads_direct

    def _affinity_info(self, target: int, level: int) -> int:
        """Whether any CPU of an affinity instance is on (0) or becomes so (2), else 1."""
        if level > 3 or target & ~AFFINITY:
            return Status.INVALID_PARAMETERS
        shift = (0, 8, 16, 32)[level]
        states = [cpu.power_state for cpu in self.machine.cpus if cpu.affinity >> shift == target >> shift]
        if not states:
            return Status.INVALID_PARAMETERS
        if any(state not in (CpuState.OFF, CpuState.PENDING) for state in states):
            return 0
        return 2 if CpuState.PENDING in states else 1

    def _suspend(self, cpu: PoweredCpu, state: int, entry: int, context: int) -> int | None:
        """Standby comes back with SUCCESS, power-down does not: it begins at `entry`. Deeper levels are not there."""
        if state & ~POWER_STATE or state & POWER_LEVEL:
            return Status.INVALID_PARAMETERS
        if not state & POWERDOWN:
            cpu.suspend()
            return Status.SUCCESS
        if not self._is_memory(entry):
            return Status.INVALID_ADDRESS
        cpu.power_down(entry, context)
        return None
