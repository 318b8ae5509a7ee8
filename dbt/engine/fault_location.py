"""Which guest access a host fault was: its address, and whether it was a write."""

from __future__ import annotations

from .layout import EXIT_BUS, EXIT_FAULT
from .memory import LARGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cpu import Cpu

WRITE_FAULT = 2  # bit of Env.fault_error


class FaultLocation:
    """Looks at the last fault of a CPU, as the host's handler has left it in Env."""

    __slots__ = ("_cpu",)

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu

    def find(self) -> int:
        """Set env.value to the guest address of a fault in translated code; returns env.exit.

        EXIT_BUDGET: the guest has changed the code since, and what is there now has run without a fault; or base and
        index of the access are on two sides of an end of the range, and their sum is not.
        """
        cpu = self._cpu
        env, memory = cpu.env, cpu.memory
        address = env.fault_address - memory.base
        inside = 0 <= address < memory.limit
        if inside and memory.limit == LARGEST:
            env.value = address
            return int(env.exit)
        # The host does not tell: a non-canonical address, a guard zone, or one that a smaller range has cut to size.
        # The instruction has not changed anything, so the reference engine meets the same fault again and knows.
        reason, error = int(env.exit), int(env.fault_error)
        engine = cpu.reference()
        before, engine.before = engine.before, None  # what is inserted has run already
        try:
            found = cpu.interpret(1)
        finally:
            engine.before = before
        if found in (EXIT_FAULT, EXIT_BUS):
            env.exit = reason
            if inside:
                env.fault_error = error  # the host knows which access of several it was; of others it says nothing
            return reason
        if cpu.baseline is not None:
            cpu.baseline.misjudged()
        return found

    def is_write(self) -> bool:
        """After EXIT_FAULT or EXIT_BUS: whether it was a write.

        The host says so of all atomic accesses; Arm's ESR_EL1.WnR only if a read of the same place would have worked.
        """
        cpu = self._cpu
        if not cpu.env.fault_error & WRITE_FAULT:
            return False
        if cpu.baseline is None:
            return True
        area = cpu.memory.area_at(cpu.memory.untagged(int(cpu.env.value)))
        return (area is not None and bool(area.prot)) or not cpu.baseline.updates(int(cpu.env.pc))
