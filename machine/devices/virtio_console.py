"""virtio console (version 1.2, section 5.3): a console and further ports, each with a character back end.

Port 0 has queues 0 and 1, the control messages 2 and 3, further ports the pairs behind those. What is to be told to the
driver about a port is kept as bits, so it is bounded whatever the driver asks for. A back end that takes only a part of
a buffer gets the rest when it is ready: the buffer is put back, and how much of it is done is remembered.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbt.machine.chardev import CharBackend
from dbt.machine.errors import MapError
from dbt.machine.registers import RO, WO, Register, State, States, View, Window
from dbt.machine.virtio import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.device import RINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.machine import Machine
    from dbt.machine.virtio import Chain, VirtQueue

SIZE, MULTIPORT, EMERG_WRITE = 1 << 0, 1 << 1, 1 << 2  # feature bits, section 5.3.3
DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY = 0, 1, 2, 3  # events, section 5.3.6.2
CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = 4, 5, 6, 7
TOLD = (DEVICE_ADD, CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN)  # what the device says, in this order
CONTROL = struct.Struct("<IHH")  # port, event, value
CONTROL_RECEIVE, CONTROL_TRANSMIT = 2, 3
MOST_PORTS = 31
PIECE = 1 << 16  # bytes of one buffer in one go
NAME_BYTES = 64


@dataclass(slots=True)
class Port:
    """`name`: under which guests find it (/dev/virtio-ports); `console`: whether it is to be one."""

    chars: CharBackend
    name: str = ""
    console: bool = False


class _End:
    """A port as its back end sees it."""

    def __init__(self, device: VirtioConsole, number: int) -> None:
        self.device = device
        self.number = number

    def receive(self, data: bytes) -> int:
        """Input; the result is how much of it the driver had room for."""
        return self.device.receive(self.number, data)

    def ready(self) -> None:
        """There is room for output again."""
        self.device.transmit(self.number)


class VirtioConsole(VirtioDevice):
    """virtio console (virtio 1.2, section 5.3), with several ports if it is given more than one."""

    DEVICE_ID = 3
    KEPT = frozenset({"max_nr_ports", "cols", "rows"})

    CONFIG = Window(12, CONFIG_SIZES, partial=True, placed=False)
    cols = Register(0, RO, "width of the console in characters", size=2)
    rows = Register(2, RO, "height", size=2)
    max_nr_ports = Register(4, RO, "the most ports")
    emerg_wr = View(8, WO, "a character that is written at once, without queues")

    pending = States(MOST_PORTS, bits=8)  # events of TOLD, as bits, by port
    opened = State(bits=MOST_PORTS)  # ports that somebody in the guest has open
    sent = States(MOST_PORTS)  # bytes of the first buffer that are with the back end

    def __init__(
        self,
        name: str,
        machine: Machine,
        chars: CharBackend | None = None,
        *,
        ports: Sequence[Port] = (),
        queue_size: int = 128,
        rings: int = RINGS,
    ) -> None:
        """`chars`: of port 0, which is a console; `ports`: those from 1 on."""
        self.ports = [Port(chars or CharBackend(), console=True), *ports]
        if len(self.ports) > MOST_PORTS or any(len(port.name.encode()) > NAME_BYTES for port in self.ports):
            raise MapError(f"{name}: there are 1 to {MOST_PORTS} ports, whose names have up to {NAME_BYTES} bytes")
        several = len(self.ports) > 1
        super().__init__(name, machine, (queue_size,) * (2 + 2 * len(self.ports) if several else 2), rings=rings)
        self.FEATURES = SIZE | EMERG_WRITE | (MULTIPORT if several else 0)
        self.max_nr_ports = len(self.ports)
        for number, port in enumerate(self.ports):
            port.chars.attach(_End(self, number))

    def resize(self, cols: int, rows: int) -> None:
        """The console has another size."""
        self.cols, self.rows = cols & 0xFFFF, rows & 0xFFFF
        for number, port in enumerate(self.ports):
            if port.console:
                self._tell(number, RESIZE)
        if self.has(SIZE):
            self.config_changed()

    @emerg_wr.on_write
    def _emergency(self, value: int) -> None:
        self.ports[0].chars.write(bytes((value & 0xFF,)))

    # Queues

    def reset_queue(self, queue: VirtQueue) -> None:
        """What was under way of its first buffer is not of the next one's."""
        if queue.index & 1 and queue.index != CONTROL_TRANSMIT:
            self.sent[self._number(queue.index)] = 0
        super().reset_queue(queue)

    @staticmethod
    def _number(index: int) -> int:
        """The port of a queue."""
        return index // 2 if index < CONTROL_RECEIVE else index // 2 - 1

    @staticmethod
    def _place(number: int) -> int:
        """The receive queue of a port; the one behind it is for what it transmits."""
        return 0 if number == 0 else 2 + 2 * number

    def on_notify(self, queue: VirtQueue) -> None:
        """There is something to transmit, or room for input."""
        index = queue.index
        if index == CONTROL_RECEIVE:
            self._say()
        elif index == CONTROL_TRANSMIT:
            self._listen(queue)
        else:
            number = self._number(index)
            if index & 1:
                self.transmit(number)
            else:
                self.ports[number].chars.resume()

    def transmit(self, number: int) -> None:
        """Give the back end what the driver wants to send, as far as it takes it."""
        queue = self.queues[self._place(number) + 1]
        if not (queue.ready and self.running):
            return
        chars = self.ports[number].chars
        for chain in self.chains(queue):
            data = chain.read(self.sent[number], PIECE)
            taken = chars.write(data) if data else 0
            self.sent[number] += taken
            if self.sent[number] < chain.readable_length:
                queue.unpop(chain)
                if taken == len(data):
                    self.later(queue)
                break
            self.sent[number] = 0
            queue.push(chain)
        queue.notify()

    def receive(self, number: int, data: bytes) -> int:
        """Give the driver input; the result is how much there was room for."""
        queue = self.queues[self._place(number)]
        open_now = not self.has(MULTIPORT) or self.opened >> number & 1
        if not (queue.ready and self.running and open_now) or (number and not self.has(MULTIPORT)):
            return 0
        done = 0
        for chain in self.chains(queue):  # what is left when that ends is offered again by on_notify
            written = chain.write(0, data[done : done + PIECE])
            done += written
            queue.push(chain, written)
            if done == len(data):
                break
        queue.notify()
        return done

    # Control messages

    def _tell(self, number: int, event: int) -> None:
        self.pending[number] |= 1 << event
        self._say()

    def _say(self) -> None:
        """Tell the driver what is to be told, as far as it has buffers for it."""
        if not self.has(MULTIPORT):
            return
        queue = self.queues[CONTROL_RECEIVE]
        if not (queue.ready and self.running):
            return
        for number, port in enumerate(self.ports):
            for event in TOLD:
                if not self.pending[number] >> event & 1:
                    continue
                chain = queue.pop()
                if chain is None:
                    queue.notify()
                    return
                self.pending[number] &= ~(1 << event)
                message = CONTROL.pack(number, event, event != RESIZE)
                if event == PORT_NAME:
                    message += port.name.encode()
                elif event == RESIZE:
                    message += struct.pack("<HH", self.cols, self.rows)
                queue.push(chain, chain.write(0, message))
        queue.notify()

    def _listen(self, queue: VirtQueue) -> None:
        """What the driver says."""
        for chain in self.chains(queue):
            self._heard(chain)
            queue.push(chain)
        queue.notify()
        self._say()

    def _heard(self, chain: Chain) -> None:
        message = chain.read(0, CONTROL.size)
        if len(message) < CONTROL.size:
            self.guest_error("a control message is too short")
            return
        number, event, value = CONTROL.unpack(message)
        if event == DEVICE_READY:
            if value:
                self.pending = [1 << DEVICE_ADD] * len(self.ports) + [0] * (MOST_PORTS - len(self.ports))
        elif number >= len(self.ports):
            self.guest_error("a control message is about a port that is not there", f": {number:#x}")
        elif event == PORT_READY:
            port = self.ports[number]
            if value:
                wanted = 1 << PORT_OPEN | (1 << PORT_NAME if port.name else 0)
                wanted |= 1 << CONSOLE_PORT | (1 << RESIZE if self.cols else 0) if port.console else 0
                self.pending[number] |= wanted
        elif event == PORT_OPEN:
            self.opened = self.opened & ~(1 << number) | bool(value) << number
            if value:
                self.ports[number].chars.resume()
        else:
            self.guest_error(f"a control message has event {event}")
