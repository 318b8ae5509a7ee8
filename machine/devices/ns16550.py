"""National PC16550D UART: the PC's serial port, and, with wider spacing, that of many boards.

Characters are sent at once: the transmitter holds only what the back end does not take. Modem inputs say that somebody
is there (CTS, DSR, DCD) and never change; in loopback they follow the outputs. Parity and framing cannot go wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.chardev import CharBackend
from dbt.machine.clock import SECOND
from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Fifo, Register, State, View, Window
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

DEPTH = 16
CLOCK = 115_200  # bits a second with a divisor of 1
ERBFI, ETBEI, ELSI = 1, 2, 4
NONE, THRE_ID, RDA_ID, RLS_ID, CTI_ID = 1, 2, 4, 6, 12  # IIR
DR, OE, BI, THRE, TEMT = 0x01, 0x02, 0x10, 0x20, 0x40
FIFO_ENABLE, RCVR_RESET, XMIT_RESET = 1, 2, 4
LOOP, DLAB = 0x10, 0x80
LEVELS = (1, 4, 8, 14)


def _dlab(uart: NS16550) -> bool:
    return bool(uart.LCR & DLAB)


class NS16550(Device):
    """National PC16550D universal asynchronous receiver/transmitter with FIFOs."""

    WINDOW = Window(8, AccessSizes((1, 1), (1, 1)))
    DLL = Register(0, RW, "divisor, low byte", size=1, reset=0x0C, when=_dlab)
    DLM = Register(1, RW, "divisor, high byte", size=1, when=_dlab)
    RBR = Register(0, RO, "received character", size=1)
    THR = View(0, WO, "character to send", size=1)
    IER = Register(1, RW, "interrupt enable", size=1, mask=0x0F, fields={"ERBFI": 0, "ETBEI": 1, "ELSI": 2, "EDSSI": 3})
    IIR = View(2, RO, "interrupt identification", size=1, fields={"NONE": 0, "ID": (3, 1), "FIFO": (7, 6)})
    FCR = Register(
        2, WO, "FIFO control", size=1, mask=0xCF, unimplemented=0x08,
        fields={"ENABLE": 0, "RCVR": 1, "XMIT": 2, "DMA": 3, "LEVEL": (7, 6)},
    )  # fmt: skip
    LCR = Register(
        3, RW, "line control", size=1,
        fields={"WLS": (1, 0), "STB": 2, "PEN": 3, "EPS": 4, "SP": 5, "BREAK": 6, "DLAB": 7},
    )  # fmt: skip
    MCR = Register(
        4, RW, "modem control", size=1, mask=0x1F, fields={"DTR": 0, "RTS": 1, "OUT1": 2, "OUT2": 3, "LOOP": 4}
    )
    LSR = Register(
        5, RO, "line status", size=1, reset=THRE | TEMT,
        fields={"DR": 0, "OE": 1, "PE": 2, "FE": 3, "BI": 4, "THRE": 5, "TEMT": 6, "FIFO": 7},
    )  # fmt: skip
    MSR = Register(6, RO, "modem status", size=1, reset=0xB0, fields={"CTS": 4, "DSR": 5, "RI": 6, "DCD": 7})
    SCR = Register(7, RW, "scratch", size=1)

    received = Fifo(DEPTH)
    transmit = Fifo(DEPTH)
    empty_pending = State(bits=1)  # the transmitter became empty, and nobody has seen it
    timed_out = State(bits=1)

    def __init__(self, name: str, machine: Machine, irq: Line | None = None, chars: CharBackend | None = None) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.chars = chars or CharBackend()
        self.chars.attach(self)
        self.timeout = self.clock.timer(self._time_out)
        self.going_on = Work(self.clock, self.ready)

    def on_reset(self) -> None:
        """Nothing is pending."""
        self.timeout.cancel()
        self.going_on.cancel()
        self._update()

    def on_restore(self) -> None:
        """Go on where it was; what is to be sent leaves when timers run, since a restore may look at devices again."""
        self._start_timeout()
        self._update()
        self.going_on.later()

    @property
    def fifo(self) -> bool:
        """Whether the FIFOs are on."""
        return bool(self.FCR & FIFO_ENABLE)

    # Interrupts, the most urgent first

    def _pending(self) -> int:
        if self.IER & ELSI and self.LSR & (OE | BI):
            return RLS_ID
        if self.IER & ERBFI and self.received:
            if not self.fifo or len(self.received) >= LEVELS[self.FCR >> 6]:
                return RDA_ID
            if self.timed_out:
                return CTI_ID
        return THRE_ID if self.IER & ETBEI and self.empty_pending else NONE

    def _update(self) -> None:
        self.irq.set(self._pending() != NONE)

    @IIR.on_read
    def _identify(self) -> int:
        found = self._pending()
        if found == THRE_ID:
            self.empty_pending = 0
            self._update()
        return found | (0xC0 if self.fifo else 0)

    @IER.on_write
    def _enable(self, value: int) -> None:
        if (value ^ self.IER) & ETBEI:
            self.empty_pending = int(bool(value & ETBEI and self.LSR & THRE))
        self.IER = value & 0x0F
        self._update()

    # Receiving

    def receive(self, data: bytes) -> int:
        """Characters from the back end."""
        if self.MCR & LOOP:
            return 0
        taken = data[: max((DEPTH if self.fifo else 1) - len(self.received), 0)]
        for character in taken:
            self._arrive(character)
        return len(taken)

    def _arrive(self, character: int) -> None:
        if len(self.received) < (DEPTH if self.fifo else 1):
            self.received.append(character)
        else:
            self.LSR |= OE
            if not self.fifo:
                self.received[0] = character  # the one that was there is lost; a FIFO loses the new one
        self.timed_out = 0
        self._start_timeout()
        self._update()

    def _start_timeout(self) -> None:
        """Four character times without a character, in FIFO mode."""
        if self.received and self.fifo:
            divisor = max(self.DLM << 8 | self.DLL, 1)
            self.timeout.at(self.clock.now + 4 * 10 * SECOND * divisor // CLOCK)
        else:
            self.timeout.cancel()

    def _time_out(self) -> None:
        self.timed_out = 1
        self._update()

    @RBR.on_read
    def _read(self) -> int:
        if self.received:
            self.RBR = self.received.pop(0)
            self.timed_out = 0
            self._start_timeout()
            self._update()
            self.chars.resume()
            return self.RBR
        return 0 if self.fifo else self.RBR

    @LSR.on_read
    def _status(self) -> int:
        value = self.LSR | (DR if self.received else 0)
        self.LSR &= ~(OE | BI)
        self._update()
        return value

    # Sending

    @THR.on_write
    def _send(self, value: int) -> None:
        self.empty_pending = 0
        if self.MCR & LOOP:
            self._arrive(value)
            self.empty_pending = 1
        elif len(self.transmit) < (DEPTH if self.fifo else 1):
            self.transmit.append(value)
            self._drain()
        else:
            self.guest_error("THR is written while the transmitter is full")
        self._update()

    def _drain(self) -> None:
        del self.transmit[: self.chars.write(bytes(self.transmit))]
        if self.transmit:
            self.LSR &= ~(THRE | TEMT)
        else:
            self.LSR |= THRE | TEMT
            self.empty_pending = 1

    def ready(self) -> None:
        """The back end takes characters again."""
        if self.transmit:
            self._drain()
            self._update()

    # Control

    @FCR.on_write
    def _fifo_control(self, value: int) -> None:
        if (value ^ self.FCR) & FIFO_ENABLE:
            value |= RCVR_RESET | XMIT_RESET
        self.FCR = value & 0xC9
        if value & RCVR_RESET:
            self.received.clear()
            self.timed_out = 0
            self.LSR &= ~BI
        if value & XMIT_RESET:
            self.transmit.clear()
            self.LSR |= THRE | TEMT
            self.empty_pending = 1
        self._start_timeout()
        self._update()
        self.chars.resume()

    @MCR.after_write
    def _modem_control(self) -> None:
        self.chars.resume()

    @MSR.on_read
    def _modem_status(self) -> int:
        if self.MCR & LOOP:
            return (self.MCR & 0x0C) << 4 | (self.MCR & 2) << 3 | (self.MCR & 1) << 5
        return self.MSR
