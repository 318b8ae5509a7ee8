"""One virtual CPU: its state, the engine that runs it, and what the Linux personality and the API need of both.

The state lives in Env (layout.py) for every engine, so an engine can be left and another entered at any boundary.
"""

from __future__ import annotations

from dbt.errors import InternalError, Unimplemented, UserError

from . import hostmem
from .boundary import Boundary
from .fault_location import FaultLocation
from .guests import GuestInfo, guest_info
from .layout import EXIT_BUDGET, EXIT_BUS, EXIT_FAULT, EXIT_FETCH, EXIT_ICACHE, EXIT_NAMES, EXIT_UNTIL, Env
from .memory import AddressSpace
from .registers import Registers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .baseline import Baseline
    from .cache import Store
    from .instrumentation import Instrumentation

_TRAPPED = (EXIT_FAULT, EXIT_BUS, EXIT_FETCH)
ENGINES = ("baseline", "optimizer", "interpreter", "reference")
CACHE_LINE = 64  # bytes, as CTR_EL0 says


class Bus:
    """Where loads and stores of the reference engine go. A tool may put others in (dbt/control/traps.py)."""

    def __init__(self, memory: AddressSpace) -> None:
        self.read: Callable[[int, int], bytes] = memory.read
        self.write: Callable[[int, bytes], None] = memory.write


class Cpu:
    """A virtual CPU with its own address space. `engine` is one of ENGINES."""

    def __init__(
        self,
        guest: str = "aarch64",
        engine: str = "baseline",
        store: Store | None = None,
        *,
        address_bits: int | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise UserError(f"there is no engine {engine!r}", f"Engines: {', '.join(ENGINES)}.")
        self.info: GuestInfo = guest_info(guest)
        self.engine = engine
        self.memory = AddressSpace(address_bits)
        self.env_address = hostmem.map_anonymous(Env.size)
        self.env: Any = Env.at(self.env_address)
        self.env.base = self.memory.base
        self.env.mask = self.memory.mask
        self.env.host_mxcsr = self.info.host_fp_default
        self.registers = Registers(self.env_address, self.info)
        self.x: Any = self.registers.words[:31]
        self.bus = Bus(self.memory)
        self.faults = FaultLocation(self)
        self.traps: Any = None  # watchpoints and I/O (dbt/control/traps.py), if there are any
        self._reference: Any = None
        self.instrumentation: Instrumentation | None = None  # see instrument()
        self.baseline: Baseline | None = None
        self.boundary = Boundary(self._hurry)
        self._stops: frozenset[int] = frozenset()
        self._stop_wanted = False
        self.counting = False  # count instructions (Env.budget goes down) in runs without a budget as well
        self.executed = 0  # instructions, as far as they are counted
        if engine != "reference":
            from .cache import open_store

            self.baseline = native_engine(engine)(self, store or open_store())
            self.kernel: Any = self.baseline.kernel
            self.signals: Any = self.baseline.signals
        else:
            from .plain import PlainKernel, PlainSignals

            self.kernel = PlainKernel(self.env)
            self.signals = PlainSignals(self.env)
        self.memory.on_code_change = self._code_change
        self.registers.clear()

    # ---- life

    def opened(self) -> Cpu:
        """This CPU; raises UserError if it is closed."""
        if not self.env_address:
            raise UserError("this CPU is closed", "Open another one.")
        return self

    def close(self) -> None:
        """Give back all host resources. The Cpu cannot be used afterwards. Raises UserError while it runs."""
        if not self.boundary.close():
            return
        if self.baseline is not None:
            self.baseline.close()
            self.baseline = None
        elif self.engine == "reference":
            self.signals.stop()
        self._reference = None
        if self.instrumentation is not None:
            self.instrumentation.close()
            self.instrumentation = None
        self.memory.close()
        del self.x
        self.registers.close()
        env_address, self.env_address = self.env_address, 0
        hostmem.unmap_memory(env_address, Env.size)

    def reset(self) -> None:
        """For exec: no memory mapped, no translations, all registers zero."""
        if self.instrumentation is not None:
            self.instrumentation.replaced()
        if self.baseline is not None:
            self.baseline.expect_exec()
        self.memory.clear()
        if self._reference is not None:
            self._reference.invalidate(0, self.memory.limit)
        self.registers.clear()

    # ---- registers

    def clear_exclusive(self) -> None:
        """Clear the exclusive monitor, as a context switch does."""
        self.registers.clear_exclusive()

    def reg(self, name: str) -> int:
        """A register by name: x0.., w0.., sp, pc, v0.., nzcv (bits 31..28), fpcr, fpsr, tpidr_el0."""
        return self.registers.get(name)

    def set_reg(self, name: str, value: int) -> None:
        """Set a register by name. Writing w<n> clears the upper half of x<n>."""
        self.registers.set(name, value)

    # ---- running

    def run(self, budget: int | None = None) -> int:
        """Run from pc until something is for the caller: an EXIT_ reason, with env.pc and env.value as it says.

        `budget`: at most so many instructions (exact), then EXIT_BUDGET.
        """
        with self.boundary:
            before = self.executed
            while True:
                left = None if budget is None else budget - (self.executed - before)
                traps = self.traps
                reason = self.run_engine(left) if traps is None else int(traps.run(left))
                # A page that was trapped while this ran, by a callback: now there are traps to deal with it.
                if traps is not None or self.traps is None or reason not in _TRAPPED:
                    return reason

    def run_engine(self, budget: int | None = None) -> int:
        """As `run`, also stopping for what `traps` would deal with."""
        if self.baseline is None:
            if int(self.env.pc) in self._stops:
                self.env.exit = EXIT_UNTIL
                return EXIT_UNTIL
            return self.interpret(budget)
        while True:
            before = self.executed
            if budget is None:
                # Counting goes on after a run with a budget, for the next one, until a run without.
                self.baseline.count_instructions(on=self.counting)
                reason = self.baseline.run()
            else:
                reason = self.baseline.run_budget(budget)
            if reason not in (EXIT_FAULT, EXIT_BUS):
                return reason
            reason = self.faults.find()
            if reason != EXIT_BUDGET:
                return reason
            if budget is not None:
                budget -= self.executed - before
                if budget <= 0:
                    return reason

    def step(self) -> int:
        """Run exactly one instruction, also one at a stop address; EXIT_BUDGET if nothing else happened."""
        with self.boundary:
            return int(self.traps.step()) if self.traps is not None else self.step_engine()

    def step_engine(self) -> int:
        """As `step`, also stopping for what `traps` would deal with."""
        reason = self.interpret(1) if self.baseline is None else self.baseline.step()
        return EXIT_BUDGET if reason == EXIT_UNTIL else reason

    def step_reference(self) -> int:
        """As `step`, on the reference engine whatever else there is: loads and stores go to `bus`."""
        return self.interpret(1)

    def interpret(self, budget: int | None) -> int:
        """Run on the reference engine, whatever the engine is: exactly `budget` instructions, or without limit."""
        engine = self.reference()
        self.registers.fold_status()
        before = engine.executed
        while True:
            spent = engine.executed - before
            reason = int(engine.run(None if budget is None else budget - spent))
            if reason != EXIT_ICACHE:
                break
            line = self.env.value & -CACHE_LINE
            self._code_change(line, line + CACHE_LINE)
        self.executed += engine.executed - before
        self.registers.set_host_control()
        return reason

    def reference(self) -> Any:
        """The reference engine over the same state."""
        if self._reference is None:
            from dbt.backends.reference.engine import ReferenceEngine
            from dbt.frontends.guest import load_guest

            self._reference = ReferenceEngine(
                load_guest(self.info.name).tables,
                self.memory,
                self.env_address,
                executable=self.memory.executable,
                data=self.bus,
            )
            self._reference.stops = self._stops
            if self.instrumentation is not None:
                self._reference.before = self.instrumentation.before
        return self._reference

    def keep_flags(self, *, on: bool) -> None:
        """Have all flags exact wherever the CPU may stop, not only those that the guest will look at."""
        if self.baseline is not None:
            self.baseline.keep_flags(on=on)

    def instrument(self) -> Instrumentation:
        """What tools insert into guest code, and the way to insert it; made when it is first asked for."""
        if self.instrumentation is None:
            from .instrumentation import Instrumentation

            self.instrumentation = Instrumentation(self)
        return self.instrumentation

    def after_fork(self) -> None:
        """In a forked child, before its guest goes on."""
        if self.instrumentation is not None:
            self.instrumentation.forked()

    def set_stops(self, addresses: Iterable[int]) -> None:
        """Have `run` stop before instructions at these addresses (EXIT_UNTIL), also before the first one.

        Only at a boundary: see `boundary`. Raises UserError where they are too many.
        """
        stops = frozenset(addresses)
        if stops == self._stops:
            return
        if self.baseline is not None:
            self.baseline.set_stops(stops)
        self._stops = stops
        if self._reference is not None:
            self._reference.stops = stops

    @property
    def hwcap(self) -> tuple[int, int]:
        """AT_HWCAP and AT_HWCAP2: what the rows implement."""
        if self.baseline is not None:
            return self.baseline.hwcap()
        from dbt.frontends.guest import load_guest

        return load_guest(self.info.name).hwcap

    def pass_calls(self, rows: Any, fd_limit: int) -> None:
        """Let native code make the system calls of dbt/linux/passthrough.py by itself, where there is native code."""
        if self.baseline is not None:
            self.baseline.pass_calls(rows, fd_limit)

    def describe_exit(self, reason: int) -> str:
        """A line for people."""
        name = EXIT_NAMES[reason] if reason < len(EXIT_NAMES) else str(reason)
        return f"{name} at {self.env.pc:#x} (value {self.env.value:#x})"

    def unimplemented(self) -> Unimplemented:
        """The error for EXIT_UNIMPLEMENTED at pc."""
        return Unimplemented(f"{self.info.name}: what the instruction at {self.env.pc:#x} asks for is not implemented")

    def stop(self) -> None:
        """Make `run` return EXIT_POLL soon; from a signal handler or another thread."""
        self._stop_wanted = True
        self._hurry()

    def take_stop(self) -> bool:
        """After EXIT_POLL: whether `stop` was called since the last time; else somebody changes things: go on."""
        wanted, self._stop_wanted = self._stop_wanted, False
        return wanted

    def _hurry(self) -> None:
        if self.env_address:
            self.env.poll = 1
            if self.baseline is not None:
                self.baseline.hurry()

    def _code_change(self, start: int, end: int) -> None:
        if self.baseline is not None:
            self.baseline.invalidate(start, end)
        if self._reference is not None:
            self._reference.invalidate(start, end)

    def check(self, reason: int) -> None:
        """Raise InternalError for a reason that must not reach a user."""
        if reason >= len(EXIT_NAMES):
            raise InternalError(f"exit reason {reason} at {self.env.pc:#x}")


def native_engine(name: str) -> type[Baseline]:
    """The class of an engine that needs the native runtime; only that one is imported."""
    if name == "optimizer":
        from .optimizer import Optimizer

        return Optimizer
    if name == "interpreter":
        from .interpreter import Interpreter

        return Interpreter
    from .baseline import Baseline

    return Baseline
