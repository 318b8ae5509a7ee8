"""What PS/2 devices have in common: bytes that wait for the controller, and commands of several bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.registers import Fifo, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine

ACK, RESEND, PASSED = 0xFA, 0xFE, 0xAA
BUFFER = 16


class Ps2Device(Device):
    """A device on a PS/2 port: `ready` is called when it has something to send."""

    replies = Fifo(8)  # to commands; they come before what is in the buffer
    buffer = Fifo(BUFFER)
    last = State(bits=8)  # sent
    command = State(bits=8)  # whose argument is awaited

    def __init__(self, name: str, machine: Machine, ready: Callable[[], None]) -> None:
        super().__init__(name, machine)
        self.ready = ready

    def waiting(self) -> bool:
        """Whether there is a byte to take."""
        return bool(self.replies or self.buffer)

    def pop(self) -> int:
        """The next byte."""
        queue = self.replies or self.buffer
        self.last = queue.pop(0)
        return self.last

    def reply(self, *values: int) -> None:
        """Answer a command; an answer that was not taken is lost."""
        self.replies[:] = bytes(values)
        self.ready()

    def room(self, count: int) -> bool:
        """Whether that many bytes fit into the buffer."""
        return len(self.buffer) + count <= BUFFER

    def queue(self, data: bytes) -> None:
        """Put bytes into the buffer, for which there is room."""
        self.buffer += data
        self.ready()

    def write(self, value: int) -> None:
        """A byte from the controller."""
        raise NotImplementedError
