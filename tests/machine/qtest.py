"""QEMU as an oracle that nobody here wrote: its devices, driven through the qtest protocol, without a guest.

A driver script runs on a `Bus`: `Ours` (a machine's spaces) or `Qemu`. Both note every read; `agree` compares them.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from dbt.machine.memory import DmaPort

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

X86 = ("qemu-system-x86_64", "-machine", "pc", "-nodefaults")
ARM = ("qemu-system-aarch64", "-machine", "virt")
LETTERS = {1: "b", 2: "w", 4: "l", 8: "q"}


class Bus(Protocol):
    """What drivers use: memory and ports, each by address and size."""

    log: list[tuple[str, int, int, int]]  # `mask` leaves out bits that specifications leave open

    def read(self, address: int, size: int = 4, mask: int = -1) -> int: ...
    def write(self, address: int, value: int, size: int = 4) -> None: ...
    def inp(self, port: int, size: int = 1, mask: int = -1) -> int: ...
    def out(self, port: int, value: int, size: int = 1) -> None: ...
    def load(self, address: int, length: int) -> bytes: ...  # memory, and not noted
    def store(self, address: int, data: bytes) -> None: ...


class Ours:
    """Our machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.log: list[tuple[str, int, int, int]] = []

    def read(self, address: int, size: int = 4, mask: int = -1) -> int:
        value = self.machine.memory.read(address, size) & mask
        self.log.append(("read", address, size, value))
        return value

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.machine.memory.write(address, size, value)

    def inp(self, port: int, size: int = 1, mask: int = -1) -> int:
        value = self.machine.ports.read(port, size) & mask
        self.log.append(("in", port, size, value))
        return value

    def out(self, port: int, value: int, size: int = 1) -> None:
        self.machine.ports.write(port, size, value)

    def load(self, address: int, length: int) -> bytes:
        return self.machine.memory.peek(address, length)

    def store(self, address: int, data: bytes) -> None:
        DmaPort("driver", self.machine.memory).dma_write(address, data)


class Qemu:
    """QEMU's, over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rw", encoding="ascii")
        self.log: list[tuple[str, int, int, int]] = []
        self.irqs: set[int] = set()

    def ask(self, line: str) -> str:
        self.file.write(line + "\n")
        self.file.flush()
        while True:
            answer = self.file.readline().split()
            if not answer:
                raise EOFError("qemu has ended")
            if answer[0] == "IRQ":
                (self.irqs.add if answer[1] == "raise" else self.irqs.discard)(int(answer[2]))
                continue
            assert answer[0] == "OK", (line, answer)
            return answer[1] if len(answer) > 1 else ""

    def read(self, address: int, size: int = 4, mask: int = -1) -> int:
        value = int(self.ask(f"read{LETTERS[size]} {address:#x}"), 16) & mask
        self.log.append(("read", address, size, value))
        return value

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.ask(f"write{LETTERS[size]} {address:#x} {value:#x}")

    def inp(self, port: int, size: int = 1, mask: int = -1) -> int:
        value = int(self.ask(f"in{LETTERS[size]} {port:#x}"), 16) & mask
        self.log.append(("in", port, size, value))
        return value

    def out(self, port: int, value: int, size: int = 1) -> None:
        self.ask(f"out{LETTERS[size]} {port:#x} {value:#x}")

    def load(self, address: int, length: int) -> bytes:
        return bytes.fromhex(self.ask(f"read {address:#x} {length:#x}").removeprefix("0x")) if length else b""

    def store(self, address: int, data: bytes) -> None:
        if data:
            self.ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")


def _connected(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    for _ in range(60):
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
        assert process.poll() is None, "qemu has ended"
    raise TimeoutError


@contextlib.contextmanager
def qemu(*command: str, running: bool = False, guest: bool = False) -> Iterator[Qemu]:
    """A QEMU whose guest does not run; `running` (Arm): but devices take it for running; `guest`: it does run."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/qtest")
        listener.listen(1)
        listener.settimeout(1)
        words = [*command, "-display", "none", "-qtest", f"unix:{folder}/qtest", "-qtest-log", "/dev/null"]
        if not guest:
            words += ["-global", "arm-cpu.start-powered-off=on"] if running else ["-S"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            connection = _connected(listener, process)
            connection.settimeout(60)
            with connection:
                yield Qemu(connection)
        finally:
            process.kill()
            process.wait()


def agree(script: Callable[[Bus], object], machine: Machine, theirs: Qemu) -> int:
    """Run the script on both: every read has to be the same. The result is how many there were."""
    ours = Ours(machine)
    script(ours)
    script(theirs)
    theirs_log, theirs.log = theirs.log, []
    for number, (mine, other) in enumerate(zip(ours.log, theirs_log, strict=False)):
        assert mine == other, f"read {number} of {mine[2]} at {mine[1]:#x}: {mine[3]:#x}, qemu {other[3]:#x}"
    assert len(ours.log) == len(theirs_log) > 0
    return len(ours.log)
