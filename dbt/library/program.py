"""A Linux program of the guest architecture in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dbt.control import arguments as check
from dbt.control.hooks import CallersInterrupt, ProcessTools
from dbt.control.snapshot import Snapshot, restore, take
from dbt.control.traps import EXIT_WATCH
from dbt.engine import layout
from dbt.errors import UserError
from dbt.exits import Exit, Exited, Killed, Reached
from dbt.linux.process import Process

from .cpu import CPU
from .stops import describe
from .tools import Tooled

if TYPE_CHECKING:
    from .memory import Memory
    from .registers import Registers


class Program(Tooled):
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
        self._tools = self.cpu._tools  # noqa: SLF001 - one package
        cpu = self._cpu = self._tools.cpu
        try:
            hwcap, hwcap2 = cpu.hwcap
            self._process = Process(cpu, root=root, hwcap=hwcap, hwcap2=hwcap2)
        except BaseException:
            self.cpu.close()
            raise
        try:
            self._process.load(name, argv, [key + b"=" + value for key, value in pairs])
        except BaseException:
            self.close()
            raise
        hooks, traps = self._tools.hooks, self._tools.traps
        self._exits = self._process.tools = ProcessTools(self._process, hooks, lambda c, r: describe(c, r, traps))
        self._signals = cpu.signals = CallersInterrupt(cpu.signals, cpu.env)
        hooks.changed = traps.changed = self._exits.changed

    def close(self) -> None:
        """Give back all memory. Raises UserError while it runs, also in a callback."""
        self.cpu.close()
        self._process.close()

    @property
    def memory(self) -> Memory:
        return self.cpu.memory

    @property
    def registers(self) -> Registers:
        return self.cpu.registers

    def run(self, *, until: int | Iterable[int] = ()) -> Exited | Killed | Exit:
        """Run until the program ends, or before an instruction at one of the addresses in `until`.

        Raises KeyboardInterrupt on Ctrl-C, between two instructions.
        """
        cpu, tools, process = self._tools.cpu, self._tools, self._process
        addresses = check.addresses(until, "until")
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with cpu.boundary.outermost():
            tools.begin(addresses)
            try:
                if cpu.reg("pc") in tools.stops and process.status is None:
                    reason = cpu.step()
                    if reason == EXIT_WATCH:
                        return describe(cpu, reason, tools.traps)
                    process.handle(layout.EXIT_NONE if reason == layout.EXIT_BUDGET else reason)
                    if cpu.reg("pc") in tools.stops and process.status is None:
                        return Reached(cpu.reg("pc"))
                cpu.signals.take_faults()
                with self._signals:
                    status = process.run()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if status is None:
            return describe(cpu, self._exits.stopped, tools.traps)
        return Killed(-status) if status < 0 else Exited(status)

    def stop(self) -> None:
        """Make `run` return Interrupted soon; from another thread, or from a hook."""
        self._exits.interrupt()

    def snapshot(self) -> Snapshot:
        """Registers, private memory, mappings, heap limits and signal dispositions, as they are now.

        Not in it: descriptors and what is in files, shared memory, other processes, pending signals, timers.
        """
        with self._tools.cpu.boundary:
            return take(self._cpu, self._process)

    def restore(self, snapshot: Snapshot) -> None:
        """Make all that is in a snapshot what it was; also after the program has ended."""
        check.instance(snapshot, Snapshot, "snapshot")
        with self._tools.cpu.boundary:
            restore(self._cpu, snapshot, self._process)

    def serve_gdb(self, where: str | int) -> None:
        """As CPU.serve_gdb; the program stands still again when gdb has gone. `run` goes on, or says how it ended."""
        from dbt.gdb.server import listen, serve

        self._tools.cpu.boundary.outermost()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            serve(self._tools.cpu, self._process, listen(where), traps=self._tools.traps)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


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
