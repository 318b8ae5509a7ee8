"""The library: programs and bare CPUs that Python drives.

Addresses and register values are ints; sizes are in bytes. What a guest does wrong is a value (dbt.exits), what the
caller does wrong raises dbt.errors.UserError.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Final, Self

import dbt
from dbt.control import arguments as check
from dbt.control.hooks import FAULT, SYSTEM_CALL, UNDEFINED, CallersInterrupt, Hook, Hooks, ProcessTools
from dbt.control.snapshot import Snapshot, restore, take
from dbt.control.traps import EXIT_WATCH, READ, Io, Traps, Watch
from dbt.engine import hostmem, layout
from dbt.engine.cpu import Cpu as EngineCpu
from dbt.errors import GuestFault, InternalError, UserError
from dbt.exits import (
    AccessRefused,
    Breakpoint,
    BudgetSpent,
    Exit,
    Exited,
    Interrupted,
    Killed,
    MemoryFault,
    Misaligned,
    Reached,
    SystemCall,
    Undefined,
    Unsupported,
    Watched,
)
from dbt.linux.process import Process

if TYPE_CHECKING:
    from types import TracebackType

    from dbt.control.code_hooks import BlockEntry, CodeHook, CodeHooks, InstructionEntry, MemoryAccess
    from dbt.instrument import Plugin

__all__ = [
    "CPU",
    "AccessRefused",
    "Breakpoint",
    "BudgetSpent",
    "Exit",
    "Exited",
    "Interrupted",
    "Killed",
    "Memory",
    "MemoryFault",
    "Misaligned",
    "Program",
    "Reached",
    "Registers",
    "Snapshot",
    "SystemCall",
    "Undefined",
    "Unsupported",
    "Watched",
    "open_cpu",
    "open_program",
]

_PROTECTION: Final = {"r": hostmem.PROT_READ, "w": hostmem.PROT_WRITE, "x": hostmem.PROT_EXEC, "-": 0}
_WORD: Final = 4


def _protection(text: str) -> int:
    check.text(text, "a protection")
    if not set(text) <= set(_PROTECTION):
        raise UserError(f"{text!r} is not a protection", 'Use letters of "rwx".')
    return sum(_PROTECTION[letter] for letter in set(text))


class Memory:
    """The guest's memory. Reads and writes raise GuestFault (with `address`) where it is not mapped for that."""

    def __init__(self, cpu: EngineCpu, traps: Traps | None = None) -> None:
        self._space = cpu.memory
        self._traps = traps or Traps(cpu)

    @property
    def limit(self) -> int:
        """Guest addresses are below this."""
        return self._space.limit

    def map(self, address: int, size: int, protection: str = "rw") -> None:
        """Map zeroed pages for [address, address + size), replacing what is there; both are rounded out to pages."""
        start, length = self._pages(address, size)
        prot = _protection(protection)
        try:
            self._space.map(start, length, prot)
        except OSError as error:
            raise UserError(f"the host cannot map {size} bytes: {error.strerror}", "Map less.") from None

    def unmap(self, address: int, size: int) -> None:
        """Take whole pages away."""
        self._space.unmap(*self._pages(address, size))

    def protect(self, address: int, size: int, protection: str) -> None:
        """Change the protection of mapped pages."""
        start, length = self._pages(address, size)
        prot = _protection(protection)
        try:
            self._space.protect(start, length, prot)
        except OSError:
            raise UserError(f"not all of {address:#x}..{address + size:#x} is mapped", "Map it first.") from None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`."""
        check.address(address)
        check.number(size, "a size", 0, check.LARGEST_READ)
        try:
            return self._space.read(address, size)
        except MemoryError:
            raise UserError(f"there is no memory for {size} bytes", "Read less at once.") from None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes. Code that was translated from them is dropped."""
        check.address(address)
        raw = check.data(data, "what is written")
        self._space.write(address, raw)
        self._space.on_code_change(address, address + len(raw))

    def map_io(
        self,
        address: int,
        size: int,
        *,
        read: Callable[[int, int], int] | None = None,
        write: Callable[[int, int, int], None] | None = None,
        sizes: Collection[int] = (1, 2, 4, 8),
    ) -> Io:
        """Have functions answer for [address, address + size): `read(offset, size)`, `write(offset, size, value)`.

        They are called for the guest's loads and stores of one of `sizes`, whole; any other access, and one for which
        there is no function, stops with AccessRefused. What they raise comes out of `run`, with the guest as it was
        before the instruction. The result's `remove()` takes the device away.
        """
        return self._traps.map_io(address, size, read, write, sizes)

    def mappings(self) -> list[tuple[int, int, str, str]]:
        """What is mapped, in order: (start, end, protection, name)."""
        return [
            (start, end, "".join(c if prot & _PROTECTION[c] else "-" for c in "rwx"), name)
            for start, end, prot, name, _offset in self._space.mappings()
        ]

    def _pages(self, address: int, size: int) -> tuple[int, int]:
        """(start, length) of the whole pages that hold a range."""
        check.number(address, "an address", 0)
        end = address + check.number(size, "a size", 1)
        if end > self.limit:
            raise UserError(
                f"{address:#x}..{end:#x} is not a range of guest addresses", f"They go from 0 to {self.limit:#x}."
            )
        start = address & -layout.PAGE_SIZE
        return start, (end + layout.PAGE_SIZE - 1 & -layout.PAGE_SIZE) - start


class Registers(MutableMapping[str, int]):
    """Registers by name: x0..x30, w0..w30, sp, pc, nzcv, v0..v31, fpcr, fpsr, tpidr_el0."""

    def __init__(self, cpu: EngineCpu) -> None:
        self._cpu = cpu

    def __getitem__(self, name: str) -> int:
        return self._cpu.reg(check.text(name, "the name of a register"))

    def __setitem__(self, name: str, value: int) -> None:
        check.text(name, "the name of a register")
        self._cpu.set_reg(name, check.number(value, f"register {name}"))

    def __delitem__(self, name: str) -> None:
        raise UserError(f"register {name} cannot be deleted", "Set it to 0 instead.")

    def __iter__(self) -> Iterator[str]:
        yield from ("pc", "nzcv")
        yield from (name for name in self._cpu.info.registers if name[0] != "w")

    def __len__(self) -> int:
        return sum(1 for _ in self)


class CPU:
    """A virtual CPU with memory of its own. Close it, or use it in a `with` statement."""

    def __init__(self, guest: str = "aarch64", engine: str = "baseline", *, address_bits: int = 46) -> None:
        check.text(guest, "a guest")
        check.text(engine, "an engine")
        if not 32 <= check.number(address_bits, "address_bits") <= 46:
            raise UserError(f"{address_bits} bits of addresses are not possible", "Choose from 32 to 46.")
        self._cpu = EngineCpu(guest, engine, address_bits=address_bits)
        self._cpu.keep_flags(on=True)
        self._traps = Traps(self._cpu)
        self._hooks = Hooks(self._cpu)
        self._code: CodeHooks | None = None
        self._breakpoints: set[int] = set()
        self.memory = Memory(self._cpu, self._traps)
        self.registers = Registers(self._cpu)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back all memory. Closing twice does no harm."""
        if self._cpu.env_address:
            self._cpu.close()

    @property
    def guest(self) -> str:
        return self._cpu.info.name

    @property
    def engine(self) -> str:
        return self._cpu.engine

    @property
    def executed(self) -> int:
        """Instructions that ran in calls with a budget, and in `step`."""
        return self._cpu.executed

    def run(self, start: int | None = None, *, until: int | Iterable[int] = (), budget: int | None = None) -> Exit:
        """Run from `start` (default: where it stopped) until something happens, and say what.

        `until`: stop before an instruction at one of these addresses (not before the first one that runs).
        `budget`: run at most so many instructions. Raises KeyboardInterrupt on Ctrl-C, between two instructions.
        """
        cpu = self._cpu
        self._require_open()
        if budget is not None:
            check.number(budget, "a budget", 0, 1 << 63)
        stops = self._stops(until)
        if start is not None:
            cpu.set_reg("pc", check.address(start))
        first = cpu.executed
        while True:
            left = None if budget is None else budget - (cpu.executed - first)
            found = self._run(stops, left)
            if not self._hooks.offer(found):
                return found
            pc = cpu.reg("pc")
            stops = self._stops(until)  # a hook may have changed them
            if pc in stops and (pc != found.pc or isinstance(found, SystemCall)):
                return Reached(pc)

    def _stops(self, until: int | Iterable[int]) -> set[int]:
        return self._breakpoints | check.addresses(until, "until")

    def _run(self, stops: set[int], budget: int | None) -> Exit:
        """Run until something happens, hooks or not."""
        cpu = self._cpu
        if budget is not None and budget <= 0:
            return BudgetSpent(cpu.reg("pc"))
        if cpu.reg("pc") in stops:
            reason = cpu.step()
            if reason != layout.EXIT_BUDGET:
                return self._exit(reason)
            if budget == 1 or cpu.reg("pc") in stops:
                return Reached(cpu.reg("pc")) if cpu.reg("pc") in stops else BudgetSpent(cpu.reg("pc"))
            budget = None if budget is None else budget - 1
        cpu.set_stops(stops)
        cpu.signals.take_faults()
        with _Interrupts(cpu):
            reason = cpu.run(budget)
        return self._exit(reason)

    def instrument(self, plugin: Plugin) -> None:
        """Have `plugin` see all code and insert its own, from the next boundary on: see dbt.instrument.

        For the thread that runs this CPU, while it is stopped or in a callback.
        """
        self._require_open()
        check.instance(plugin, dbt.Plugin, "plugin")
        self._cpu.instrument().add(plugin)

    def remove(self, plugin: Plugin) -> None:
        """Take away what `plugin` has inserted, from the next boundary on."""
        self._require_open()
        self._cpu.instrument().remove(plugin)

    def step(self) -> Exit:
        """Run one instruction; BudgetSpent if nothing else happened."""
        self._require_open()
        self._cpu.set_stops(())
        found = self._exit(self._cpu.step())
        return BudgetSpent(self._cpu.reg("pc")) if self._hooks.offer(found) else found

    def serve_gdb(self, where: str | int) -> None:
        """Let one gdb drive this CPU: on a port of 127.0.0.1, HOST:PORT, or a Unix socket's path. See docs/gdb.md."""
        from dbt.gdb.server import listen, serve

        self._require_open()
        serve(self._cpu, None, listen(where), traps=self._traps)

    def break_at(self, address: int) -> Stop:
        """Have every `run` stop before the instruction at an address (Reached), until the result is removed."""
        return Stop(self._breakpoints, check.address(address))

    def watch(self, address: int, size: int, access: str = "write", *, before: bool = False) -> Watch:
        """Stop (Watched) where an instruction touches [address, address + size): a "read", "write" or "access" (both).

        It stops behind the instruction, or `before` it, with nothing done. The kernel's own accesses do not count.
        """
        return self._traps.watch(address, size, access, before=before)

    def on_system_call(self, function: Callable[[SystemCall], int | None]) -> Hook:
        """Call a function for each system call: None lets it happen, a number is its result instead."""
        return self._hooks.add(SYSTEM_CALL, function)

    def on_fault(self, function: Callable[[MemoryFault | Misaligned], object]) -> Hook:
        """Call a function for each fault: if it returns a true value the instruction is tried again."""
        return self._hooks.add(FAULT, function)

    def on_undefined(self, function: Callable[[Undefined | Unsupported | Breakpoint], object]) -> Hook:
        """Call a function for each instruction that cannot be run: a true value means that it has done the work.

        Then the guest goes on behind the instruction, or where the function has set pc.
        """
        return self._hooks.add(UNDEFINED, function)

    def on_block(self, function: Callable[[BlockEntry], object], start: int = 0, end: int | None = None) -> CodeHook:
        """Call a function before each block that has bytes in [start, end) runs. See docs/library.md, 'Hooks'.

        A block is what the engine takes for one: instructions in a row, the last one usually a branch.
        """
        self._require_open()
        return self._code_hooks().add("block", function, start, end)

    def on_instruction(
        self, function: Callable[[InstructionEntry], object], start: int = 0, end: int | None = None
    ) -> CodeHook:
        """Call a function before each instruction in [start, end)."""
        self._require_open()
        return self._code_hooks().add("instruction", function, start, end)

    def on_memory(
        self,
        function: Callable[[MemoryAccess], object],
        start: int = 0,
        end: int | None = None,
        access: str = "access",
    ) -> CodeHook:
        """Call a function before each "read", "write" or "access" (both) of bytes in [start, end)."""
        self._require_open()
        return self._code_hooks().add("memory", function, start, end, access)

    def _code_hooks(self) -> CodeHooks:
        if self._code is None:
            from dbt.control.code_hooks import CodeHooks

            self._code = CodeHooks(self._cpu)
        return self._code

    def snapshot(self) -> Snapshot:
        """Registers, mappings and memory as they are now. Breakpoints, hooks and devices are not in it."""
        self._require_open()
        return take(self._cpu)

    def restore(self, snapshot: Snapshot) -> None:
        """Make registers, mappings and memory what they were, in time that grows with what was written to since."""
        self._require_open()
        check.instance(snapshot, Snapshot, "snapshot")
        restore(self._cpu, snapshot)

    def stop(self) -> None:
        """Make `run` return Interrupted soon; from another thread."""
        self._cpu.stop()

    def _require_open(self) -> None:
        if not self._cpu.env_address:
            raise UserError("this CPU is closed", "Open another one.")

    def _exit(self, reason: int) -> Exit:
        return describe(self._cpu, reason, self._traps)


class Stop:
    """A breakpoint of `break_at`; `remove` it at any time."""

    def __init__(self, places: set[int], address: int) -> None:
        self._places = places
        self.address = address
        places.add(address)

    def remove(self) -> None:
        """Stop there no more."""
        self._places.discard(self.address)


class _Interrupts:
    """While a CPU runs in the main thread, Ctrl-C makes it leave, and Python's handler is called then."""

    def __init__(self, cpu: EngineCpu) -> None:
        self._cpu = cpu

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()  # the one that Python handles signals in
        if self._main:
            self._cpu.signals.borrow(signal.SIGINT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._main:
            return
        self._cpu.signals.give_back(signal.SIGINT)
        noted = self._cpu.signals.take()
        if noted:
            self._cpu.signals.unblock()
        for signo, _info in noted:
            handler = signal.getsignal(signo)
            if callable(handler):
                handler(signo, None)


def describe(cpu: EngineCpu, reason: int, traps: Traps) -> Exit:
    """The exit reason of an engine as a value."""
    pc = cpu.reg("pc")
    value = int(cpu.env.value)
    if reason == EXIT_WATCH and traps.hit is not None:
        touched = traps.hit.access
        kind = "read" if touched.kind == READ else "write"
        return Watched(pc, touched.address, touched.size, kind, traps.hit.instruction)
    if reason == layout.EXIT_BUS and traps.refused is not None:
        return AccessRefused(pc, value, "read" if traps.refused.kind == READ else "write", traps.refused.size)
    match reason:
        case layout.EXIT_UNTIL:
            return Reached(pc)
        case layout.EXIT_BUDGET:
            return BudgetSpent(pc)
        case layout.EXIT_POLL:
            cpu.env.poll = 0
            return Interrupted(pc)
        case layout.EXIT_SYSCALL:
            info = cpu.info
            read = [int(cpu.x[place // 8]) for place in (info.syscall_number, *info.syscall_args)]
            return SystemCall(pc, read[0], tuple(read[1:]))
        case layout.EXIT_FAULT | layout.EXIT_BUS:
            return MemoryFault(pc, value, "write" if cpu.fault_is_write() else "read")
        case layout.EXIT_FETCH:
            return MemoryFault(pc, pc, "fetch")
        case layout.EXIT_ALIGNMENT:
            return Misaligned(pc, value)
        case layout.EXIT_BREAKPOINT:
            return Breakpoint(pc, value)
        case layout.EXIT_UNDEFINED | layout.EXIT_UNIMPLEMENTED:
            try:
                code = cpu.memory.read(pc, _WORD)
            except GuestFault:
                code = b""
            return Undefined(pc, code) if reason == layout.EXIT_UNDEFINED else Unsupported(pc, code)
    raise InternalError(f"unexpected exit: {cpu.describe_exit(reason)}")


def open_cpu(guest: str = "aarch64", engine: str = "baseline", *, address_bits: int = 46) -> CPU:
    """A bare CPU with empty memory. `engine` is one of those that `dragoman features` lists.

    `baseline` is for speed; `interpreter` runs budgets and single steps exactly and natively, and needs no memory that
    is both writable and executable; `reference` is plain Python.
    """
    return CPU(guest, engine, address_bits=address_bits)


class Program:
    """A Linux program of the guest architecture, loaded and ready to run in this process.

    Its system calls have the rights of this process, its descriptors are this process's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        arguments: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        engine: str = "baseline",
        root: str = "",
    ) -> None:
        name = check.path(path, "a program")
        argv = check.strings([name] if arguments is None else arguments, "an argument")
        env = os.environ if environment is None else environment
        if not isinstance(env, Mapping):
            raise UserError(f"an environment cannot be {env!r}", "Give a dict.")
        pairs = zip(check.strings(env.keys(), "a name"), check.strings(env.values(), "a value"), strict=True)
        check.text(root, "root")
        self.cpu = CPU("aarch64", engine)
        cpu = self.cpu._cpu  # noqa: SLF001 - one module
        try:
            hwcap, hwcap2 = cpu.hwcap
            self._process = Process(cpu, root=root, hwcap=hwcap, hwcap2=hwcap2)
            self._process.load(name, argv, [key + b"=" + value for key, value in pairs])
        except BaseException:
            self.cpu.close()
            raise
        hooks, traps = self.cpu._hooks, self.cpu._traps  # noqa: SLF001
        self._tools = self._process.tools = ProcessTools(self._process, hooks, lambda c, r: describe(c, r, traps))
        self._signals = cpu.signals = CallersInterrupt(cpu.signals, cpu.env)
        hooks.changed = traps.changed = self._tools.changed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back all memory."""
        self._process.close()
        self.cpu.close()

    @property
    def memory(self) -> Memory:
        return self.cpu.memory

    @property
    def registers(self) -> Registers:
        return self.cpu.registers

    def instrument(self, plugin: Plugin) -> None:
        """Have `plugin` see all code and insert its own: see CPU.instrument."""
        self.cpu.instrument(plugin)

    def remove(self, plugin: Plugin) -> None:
        """Take away what `plugin` has inserted."""
        self.cpu.remove(plugin)

    def run(self, *, until: int | Iterable[int] = ()) -> Exited | Killed | Exit:
        """Run until the program ends, or before an instruction at one of the addresses in `until`.

        Raises KeyboardInterrupt on Ctrl-C, between two instructions.
        """
        cpu = self.cpu._cpu  # noqa: SLF001
        self.cpu._require_open()  # noqa: SLF001
        stops = self.cpu._stops(until)  # noqa: SLF001
        process, tools = self._process, self._tools
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            if cpu.reg("pc") in stops and process.status is None:
                cpu.set_stops(())
                reason = cpu.step()
                if reason == EXIT_WATCH:
                    return describe(cpu, reason, self.cpu._traps)  # noqa: SLF001
                process.handle(layout.EXIT_NONE if reason == layout.EXIT_BUDGET else reason)
                if cpu.reg("pc") in stops and process.status is None:
                    return Reached(cpu.reg("pc"))
            cpu.set_stops(stops)
            cpu.signals.take_faults()
            with self._signals:
                status = process.run()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if status is None:
            return describe(cpu, tools.stopped, self.cpu._traps)  # noqa: SLF001
        return Killed(-status) if status < 0 else Exited(status)

    def stop(self) -> None:
        """Make `run` return Interrupted soon; from another thread, or from a hook."""
        self._tools.interrupt()

    def snapshot(self) -> Snapshot:
        """Registers, private memory, mappings, heap limits and signal dispositions, as they are now.

        Not in it: descriptors and what is in files, shared memory, other processes, pending signals, timers.
        """
        return take(self.cpu._cpu, self._process)  # noqa: SLF001

    def restore(self, snapshot: Snapshot) -> None:
        """Make all that is in a snapshot what it was; also after the program has ended."""
        check.instance(snapshot, Snapshot, "snapshot")
        restore(self.cpu._cpu, snapshot, self._process)  # noqa: SLF001

    def serve_gdb(self, where: str | int) -> None:
        """As CPU.serve_gdb; the program stands still again when gdb has gone. `run` goes on, or says how it ended."""
        from dbt.gdb.server import listen, serve

        serve(self.cpu._cpu, self._process, listen(where), traps=self.cpu._traps)  # noqa: SLF001

    def break_at(self, address: int) -> Stop:
        """As CPU.break_at."""
        return self.cpu.break_at(address)

    def watch(self, address: int, size: int, access: str = "write", *, before: bool = False) -> Watch:
        """As CPU.watch. What the kernel reads and writes for the program does not count."""
        return self.cpu.watch(address, size, access, before=before)

    def on_system_call(self, function: Callable[[SystemCall], int | None]) -> Hook:
        """As CPU.on_system_call: None lets the call happen, a number is its result instead."""
        return self.cpu.on_system_call(function)

    def on_fault(self, function: Callable[[MemoryFault | Misaligned], object]) -> Hook:
        """As CPU.on_fault: a true value has the instruction tried again, else the program gets its signal."""
        return self.cpu.on_fault(function)

    def on_undefined(self, function: Callable[[Undefined | Unsupported | Breakpoint], object]) -> Hook:
        """As CPU.on_undefined: a true value means that the work is done, else the program gets its signal."""
        return self.cpu.on_undefined(function)

    def on_block(self, function: Callable[[BlockEntry], object], start: int = 0, end: int | None = None) -> CodeHook:
        """As CPU.on_block."""
        return self.cpu.on_block(function, start, end)

    def on_instruction(
        self, function: Callable[[InstructionEntry], object], start: int = 0, end: int | None = None
    ) -> CodeHook:
        """As CPU.on_instruction."""
        return self.cpu.on_instruction(function, start, end)

    def on_memory(
        self,
        function: Callable[[MemoryAccess], object],
        start: int = 0,
        end: int | None = None,
        access: str = "access",
    ) -> CodeHook:
        """As CPU.on_memory. What the kernel reads and writes for the program is not seen."""
        return self.cpu.on_memory(function, start, end, access)


def open_program(
    path: str | os.PathLike[str],
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    engine: str = "baseline",
    root: str = "",
) -> Program:
    """Load a Linux program. `arguments` include argv[0]; `environment` defaults to this process's."""
    return Program(path, arguments, environment, engine=engine, root=root)
