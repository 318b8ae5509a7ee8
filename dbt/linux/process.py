"""One guest process: its memory, signals and descriptors, and the loop that serves what its CPU stops for.

The CPU leaves translated code with a reason (dbt/engine/layout.py, EXIT_...); a system call is looked up by number and
done, a fault becomes a signal, and after each exit signals that have arrived are delivered. Everything runs on one
thread; fork is the host's fork, and the child goes on in the same loop.
"""

from __future__ import annotations

import ctypes
import os
import resource
from struct import unpack

from dbt.engine import hostmem, layout
from dbt.errors import GuestFault, InternalError, ProgramNotFound, ProgramUnusable

from . import loader, passthrough
from .abi import EFAULT, EINTR, EIO, EMFILE, ENOSYS, ERESTARTSYS, U64
from .signals import Signals
from .table import CALLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from dbt.engine.cpu import Cpu

    Handler = Callable[..., int]

SYS_CLOSE = 3
_SCRATCH = 1 << 17  # bytes for names and converted structs of one call
_UNTAGGED = (1 << 56) - 1  # Arm's top byte is ignored in addresses
_RESERVED_DESCRIPTORS = 32  # the highest ones, for our own

# Linux's siginfo codes (asm-generic/siginfo.h) for what a CPU can do wrong: exit reason -> (signal, code).
_TRAPS = {
    layout.EXIT_UNDEFINED: (4, 1),  # SIGILL, ILL_ILLOPC
    layout.EXIT_UNIMPLEMENTED: (4, 1),
    layout.EXIT_BREAKPOINT: (5, 1),  # SIGTRAP, TRAP_BRKPT
    layout.EXIT_FAULT: (11, 1),  # SIGSEGV, SEGV_MAPERR or SEGV_ACCERR
    layout.EXIT_FETCH: (11, 1),
    layout.EXIT_ALIGNMENT: (7, 1),  # SIGBUS, BUS_ADRALN
    layout.EXIT_BUS: (7, 2),  # BUS_ADRERR
}
_AT_PC = (layout.EXIT_UNDEFINED, layout.EXIT_UNIMPLEMENTED, layout.EXIT_BREAKPOINT, layout.EXIT_FETCH)


class Scratch:
    """Host memory for arguments that were converted; it is reused by every call."""

    __slots__ = ("address", "used")

    def __init__(self) -> None:
        self.address = hostmem.map_anonymous(_SCRATCH)
        self.used = 0

    def put(self, data: bytes) -> int:
        """Copy `data` in; returns its host address."""
        at = self.space(len(data))
        ctypes.memmove(at, data, len(data))
        return at

    def text(self, data: bytes) -> int:
        """Copy a C string in; returns its host address."""
        return self.put(data + b"\0")

    def space(self, size: int) -> int:
        """Room for `size` bytes that the host is to fill; returns its host address."""
        at = self.used
        self.used = (at + size + 15) & -16
        if self.used > _SCRATCH:
            raise OSError(12, os.strerror(12))
        return self.address + at

    def get(self, address: int, size: int) -> bytes:
        """Bytes at a host address inside of the scratch memory."""
        return bytes(ctypes.string_at(address, size))


class Process:
    """A guest process on a dbt.engine.cpu.Cpu.

    `root` is -L's folder. `ignored` has bit n-1 set where signal n was ignored when we were started, `pending` where it
    was blocked and pending; with None the host process keeps Python's dispositions (the API). `log` gets one line for
    each thing that is missing, once.
    """

    def __init__(
        self,
        cpu: Cpu,
        *,
        root: str = "",
        hwcap: int = 0,
        hwcap2: int = 0,
        ignored: int | None = None,
        pending: int = 0,
        strace: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.cpu = cpu
        self.memory = cpu.memory
        self.call = cpu.kernel.call
        self.wait = cpu.kernel.wait
        self.base: int = cpu.memory.base
        self.limit: int = cpu.memory.limit
        self.root = os.fsencode(root).rstrip(b"/")
        self.hwcap = hwcap
        self.hwcap2 = hwcap2
        self.scratch = Scratch()
        self.signals = Signals(self, ignored or 0)
        self.native_calls = cpu.baseline is not None
        self.handlers: dict[int, Handler] = {}
        self.missing: set[str] = set()
        self.log = log
        self.trace = strace
        self.tools: Any = None  # sees exits first (dbt/control/hooks.py), if anybody wants that
        self.status: int | None = None  # exit code, or minus the signal
        self.child = False  # a forked copy: never returns from run()
        self.vfork_pipe = -1  # where a vforked child reports
        self.vfork_stack = 0
        self.exe = ""
        self.argv: list[bytes] = []
        self.environment: list[bytes] = []
        self.auxv = b""
        self.stack = (0, 0)
        self.mmap_top = 0
        self.brk_start = self.brk = 0
        self.sigreturn = 0
        self.clear_tid = 0
        self.personality = 0
        self.limits: dict[int, tuple[int, int]] = {}  # of resources that must not limit ourselves
        self.listings: set[int] = set()  # descriptors open on /proc/self/fd
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.fd_limit = max(soft - _RESERVED_DESCRIPTORS, 64) if soft > 0 else 1 << 30
        cpu.signals.guest(on=True)
        if ignored is not None:
            self.signals.start(pending)
        if not strace:
            cpu.pass_calls(passthrough.ROWS, self.fd_limit)

    # ---- start

    def load(self, path: str, argv: list[bytes], environment: list[bytes]) -> None:
        """Load the first program. Raises ProgramNotFound or ProgramUnusable."""
        try:
            fd, image = loader.open_image(self, path)
        except FileNotFoundError:
            raise ProgramNotFound(path) from None
        except OSError as error:
            raise ProgramUnusable(path, error.strerror or "cannot be opened") from None
        try:
            if not os.access(path, os.X_OK):
                raise ProgramUnusable(path, "not executable", f"chmod +x {path}")
            self.exe = os.path.realpath(path)
            loader.load(self, fd, image, argv, environment, os.fsencode(path))
        finally:
            os.close(fd)

    # ---- for system calls

    def pointer(self, address: int, size: int) -> int:
        """The host address of `size` bytes of the guest.

        Raises GuestFault where that leaves the guest's range; the kernel finds out whether they are mapped.
        """
        address &= _UNTAGGED
        if address + size > self.limit:
            raise GuestFault(address)
        return self.base + address

    def optional(self, address: int, size: int) -> int:
        """As `pointer`; a null pointer stays one."""
        return self.pointer(address, size) if address else 0

    def descriptor(self, value: int) -> int:
        """A descriptor argument as an int; ours are answered as if they were not there."""
        fd = value & 0xFFFFFFFF
        if self.fd_limit <= fd < 0x80000000:
            raise OSError(9, os.strerror(9))
        return fd - (1 << 32) if fd & 0x80000000 else fd

    def given(self, result: int) -> int:
        """The result of a call that gives a descriptor: one of those that we need ourselves is none."""
        if result < self.fd_limit:
            return result
        self.call(SYS_CLOSE, result)
        return -EMFILE

    def given_pair(self, result: int, pair: int) -> int:
        """The same for a call that has put two descriptors to a guest address."""
        if result == 0:
            both = unpack("<ii", self.memory.read(pair, 8))
            if max(both) >= self.fd_limit:
                for each in both:
                    self.call(SYS_CLOSE, each)
                return -EMFILE
        return result

    def limits_of(self, number: int) -> tuple[int, int]:
        """The guest's soft and hard limit of a resource; unlimited is 2**64 - 1."""
        if number in self.limits:
            return self.limits[number]
        soft, hard = resource.getrlimit(number)
        return soft & U64, hard & U64

    def missing_feature(self, what: str) -> None:
        """Name something that is not there, once."""
        if what not in self.missing:
            self.missing.add(what)
            if self.log is not None:
                self.log(what)

    def hide(self, fd: int) -> int:
        """Move one of our own descriptors to where guests cannot reach it; returns its new number."""
        fcntl_dup_cloexec = 1030
        moved = int(self.call(72, fd, fcntl_dup_cloexec, self.fd_limit))
        if moved < 0:
            return fd
        self.call(SYS_CLOSE, fd)
        return moved

    # ---- the loop

    def run(self) -> int | None:
        """Run until the guest ends: its exit code, or minus the signal that killed it.

        None: the CPU stopped for a reason of the caller's (budget, stop address). A forked child does not return, it
        ends the host process.
        """
        run = self.cpu.run
        while self.status is None:
            if not self.handle(run()):
                return None
        if self.cpu.instrumentation is not None:
            self.cpu.instrumentation.finish()
        if self.child:
            self.finish()
        return self.status

    def handle(self, reason: int) -> bool:
        """Serve one reason for which the CPU stopped; False if it is the caller's (budget, stop address)."""
        if self.tools is not None:
            reason = self.tools.filter(reason)
        if reason == layout.EXIT_SYSCALL:
            self.system_call()
        elif reason in {layout.EXIT_BUDGET, layout.EXIT_UNTIL}:
            return False
        elif reason not in {layout.EXIT_NONE, layout.EXIT_POLL, layout.EXIT_ICACHE, layout.EXIT_HINT}:
            self._trap(reason)
        env = self.cpu.env
        while env.poll and self.status is None:
            self.signals.deliver()
        return True

    def system_call(self) -> None:
        """Do the call that the guest's registers ask for."""
        x = self.cpu.x
        number, first = x[8], x[0]
        answered = self.cpu.env.value if self.native_calls else 0
        if answered in {EINTR, ERESTARTSYS}:  # native code made it, and a signal came
            self.cpu.env.value = 0
            result = -answered
        elif self.trace:
            from .strace import traced

            result = traced(self, number, first, x[1], x[2], x[3], x[4], x[5])
        else:
            result = self.do(number, first, x[1], x[2], x[3], x[4], x[5])
        x[0] = result & U64
        if result == -ERESTARTSYS:
            self.cpu.env.poll = 1
        if result in {-EINTR, -ERESTARTSYS} and self.cpu.env.poll:
            self.signals.interrupted(number, first, result)

    def do(self, number: int, *args: int) -> int:
        """Make one system call with six arguments; returns its result or -errno."""
        handler = self.handlers.get(number)
        if handler is None:
            handler = self._find(number)
        self.scratch.used = 0
        try:
            return handler(self, *args)
        except GuestFault:
            return -EFAULT
        except OSError as error:
            return -(error.errno or EIO)

    def prepare(self, numbers: tuple[int, ...]) -> None:
        """Import what serves these calls now, not once in each child."""
        for number in numbers:
            if number not in self.handlers:
                self._find(number)

    def prepare_all(self) -> None:
        """The same with all calls, and with what runs instructions that cannot be compiled: files get out of reach."""
        self.prepare(tuple(CALLS))
        self.cpu.reference()

    def _find(self, number: int) -> Handler:
        """The function for a call, imported if this is its first use."""
        handler: Handler
        for row in passthrough.ROWS:
            if row[0] == number:
                handler = _pass(row)
                break
        else:
            entry = CALLS.get(number)
            if entry is None:
                from .unserved import name_of

                self.missing_feature(f"system call {name_of(number)} is not implemented: ENOSYS")
                return _no_such_call
            name, module = entry
            handler = getattr(__import__(f"dbt.linux.{module}", fromlist=(name,)), f"sys_{name}")
        self.handlers[number] = handler
        return handler

    def _trap(self, reason: int) -> None:
        """Turn what the CPU stopped for into a signal."""
        env = self.cpu.env
        if reason not in _TRAPS:
            name = layout.EXIT_NAMES[reason] if reason < len(layout.EXIT_NAMES) else str(reason)
            raise InternalError(f"the CPU stopped for a reason that is not the guest's: {name} at {env.pc:#x}")
        signal, code = _TRAPS[reason]
        address = env.pc if reason in _AT_PC else env.value
        syndrome = 0
        if reason == layout.EXIT_FETCH and address & 3:
            signal, code = 7, 1
        elif signal == 11:
            untagged = address & _UNTAGGED
            area = self.memory.area_at(untagged) if untagged < self.limit else None
            code = 2 if area is not None else 1
            # ESR_EL1 (Arm ARM D19.2): data or instruction abort from EL0, permission or translation fault, level 3.
            syndrome = (0x20 if reason == layout.EXIT_FETCH else 0x24) << 26 | 1 << 25 | (0xF if area else 0x7)
            if reason == layout.EXIT_FAULT and self.cpu.faults.is_write():
                syndrome |= 1 << 6
        if reason in {layout.EXIT_UNDEFINED, layout.EXIT_UNIMPLEMENTED} and self.log is not None:
            from .unknown import complaint

            text = complaint(self.memory, reason, env.pc)
            if text:
                self.missing_feature(text)
        self.signals.force(signal, code, address, syndrome)

    def native(self, *, on: bool) -> None:
        """Whether native code may make system calls without Python seeing them."""
        if on and not self.trace:
            self.cpu.pass_calls(passthrough.ROWS, self.fd_limit)
        elif not on and self.cpu.baseline is not None:
            self.cpu.baseline.forbid_calls(row[0] for row in passthrough.ROWS)

    # ---- the end

    def close(self) -> None:
        """Give back the host memory of a process that ended or is given up."""
        if self.scratch.address:
            hostmem.unmap_memory(self.scratch.address, _SCRATCH)
            self.scratch.address = 0

    def finish(self) -> NoReturn:
        """End the host process as the guest ended: with its exit code, or by really dying of its signal."""
        status = self.status or 0
        if self.vfork_pipe >= 0:
            from .clone import release_parent

            release_parent(self)
        if status < 0:
            self.signals.die(-status)
        os._exit(status & 0xFF)


def _no_such_call(_process: Process, *_args: int) -> int:
    return -ENOSYS


def _pass(row: passthrough.Row) -> Handler:
    """A function for a call whose arguments go to the host as they are, pointers checked."""
    _, _, host, fds, kind, pointers = row
    descriptors = [index for index in range(6) if fds >> index & 1]

    def handler(process: Process, *args: int) -> int:
        values = list(args)
        for index in descriptors:
            values[index] = process.descriptor(args[index])
        for index, unit, count, null in pointers:
            address = args[index]
            if address or not null:
                values[index] = process.pointer(address, unit if count < 0 else unit * args[count])
        result = int((process.wait if kind & layout.WAITS else process.call)(host, *values))
        return process.given(result) if kind & layout.MAKES else result

    return handler
