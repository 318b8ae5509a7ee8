"""Arm PrimeCell UART, PL011 r1p3 (DDI 0183): a serial port with FIFOs of 16.

Characters are sent at once: the transmit FIFO holds only what the back end does not take. So the transmit interrupt is
raised by each character that leaves it at or below its trigger level. Modem lines, DMA and IrDA are not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.chardev import CharBackend
from dbt.machine.clock import SECOND
from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.registers import RO, RW, WO, Fields, Fifo, Register, State, States, View, Window
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

DEPTH = 16
UARTCLK = 24_000_000
TXE, RXE, UARTEN, LBE = 1 << 8, 1 << 9, 1 << 0, 1 << 7
FEN = 1 << 4
RX, TX, RT, OE = 1 << 4, 1 << 5, 1 << 6, 1 << 10
RXFE, TXFF, RXFF, TXFE = 1 << 4, 1 << 5, 1 << 6, 1 << 7
LEVELS = (2, 4, 8, 12, 14, 8, 8, 8)  # UARTIFLS: 1/8 to 7/8 of the FIFO; other values are reserved
INTERRUPTS: Fields = {
    "RI": 0, "CTS": 1, "DCD": 2, "DSR": 3, "RX": 4, "TX": 5, "RT": 6, "FE": 7, "PE": 8, "BE": 9, "OE": 10,
}  # fmt: skip
IDENTITY = (0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1)


class PL011(Device):
    """Arm PrimeCell UART, PL011 r1p3 (DDI 0183)."""

    WINDOW = Window(0x1000, partial=True)
    UARTDR = View(0x000, RW, "data", mask=0xFF, fields={"FE": 8, "PE": 9, "BE": 10, "OE": 11})
    UARTRSR = Register(0x004, RW, "receive status; any write clears", mask=0xFF, fields={"OE": 3})
    UARTFR = View(0x018, RO, "flags", reset=RXFE | TXFE, fields={"BUSY": 3, "RXFE": 4, "TXFF": 5, "RXFF": 6, "TXFE": 7})
    UARTILPR = Register(0x020, RW, "IrDA divisor", mask=0xFF, unimplemented=0xFF)
    UARTIBRD = Register(0x024, RW, "baud rate divisor", mask=0xFFFF)
    UARTFBRD = Register(0x028, RW, "its fraction, in 64ths", mask=0x3F)
    UARTLCR_H = Register(
        0x02C, RW, "line control", mask=0xFF,
        fields={"BRK": 0, "PEN": 1, "EPS": 2, "STP2": 3, "FEN": 4, "WLEN": (6, 5), "SPS": 7},
    )  # fmt: skip
    UARTCR = Register(
        0x030, RW, "control", mask=0xFF87, reset=TXE | RXE, unimplemented=0xFC06,
        fields={"UARTEN": 0, "SIREN": 1, "SIRLP": 2, "LBE": 7, "TXE": 8, "RXE": 9, "DTR": 10, "RTS": 11,
                "RTSEn": 14, "CTSEn": 15},
    )  # fmt: skip
    UARTIFLS = Register(0x034, RW, "FIFO levels", mask=0x3F, reset=0x12, fields={"TX": (2, 0), "RX": (5, 3)})
    UARTIMSC = Register(0x038, RW, "interrupt mask", mask=0x7FF, fields=INTERRUPTS)
    UARTRIS = Register(0x03C, RO, "raw interrupts", fields=INTERRUPTS)
    UARTMIS = View(0x040, RO, "masked interrupts", fields=INTERRUPTS)
    UARTICR = View(0x044, WO, "clear interrupts", mask=0x7FF, fields=INTERRUPTS)
    UARTDMACR = Register(0x048, RW, "DMA control", mask=7, unimplemented=7)
    UARTPeriphID = View(0xFE0, RO, "identity", count=8)

    received = Fifo(DEPTH)
    overrun = State(bits=1)  # goes with the next character that fits
    errors = States(DEPTH, bits=4)  # of each character in `received`
    transmit = Fifo(DEPTH)

    def __init__(self, name: str, machine: Machine, irq: Line | None = None, chars: CharBackend | None = None) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.chars = chars or CharBackend()
        self.chars.attach(self)
        self.timeout = self.clock.timer(self._timed_out)
        self.going_on = Work(self.clock, self.ready)

    def on_reset(self) -> None:
        """Nothing is pending."""
        self.timeout.cancel()
        self.going_on.cancel()
        self.irq.set(False)

    def on_restore(self) -> None:
        """Go on where it was; what is to be sent leaves when timers run, since a restore may look at devices again."""
        self._start_timeout()
        self._update()
        self.going_on.later()

    @property
    def depth(self) -> int:
        """How many characters fit."""
        return DEPTH if self.UARTLCR_H & FEN else 1

    # Receiving

    def receive(self, data: bytes) -> int:
        """Characters from the back end; those that come to a disabled port wait there."""
        if self.UARTCR & (UARTEN | RXE) != UARTEN | RXE or self.UARTCR & LBE:
            return 0
        taken = data[: max(self.depth - len(self.received), 0)]
        for character in taken:
            self._arrive(character)
        return len(taken)

    def _arrive(self, character: int) -> None:
        if len(self.received) >= self.depth:
            self.overrun = 1
            self.UARTRIS |= OE
        else:
            self.errors[len(self.received)] = 8 * self.overrun
            self.overrun = 0
            self.received.append(character)
            self._start_timeout()
            if len(self.received) >= self._receive_level():
                self.UARTRIS |= RX
        self._update()

    def _receive_level(self) -> int:
        return LEVELS[self.UARTIFLS >> 3 & 7] if self.UARTLCR_H & FEN else 1

    def _start_timeout(self) -> None:
        """32 bit periods without a character, in FIFO mode."""
        if self.received and self.UARTLCR_H & FEN:
            divisor = max(64 * self.UARTIBRD + self.UARTFBRD, 64)
            self.timeout.at(self.clock.now + 32 * 16 * SECOND * divisor // (64 * UARTCLK))
        else:
            self.timeout.cancel()

    def _timed_out(self) -> None:
        self.UARTRIS |= RT
        self._update()

    @UARTDR.on_read
    def _read_data(self) -> int:
        if not self.received:
            self.guest_error("UARTDR is read while the FIFO is empty")
            return 0
        value = self.received.pop(0) | self.errors[0] << 8
        self.errors = [*self.errors[1:], 0]
        self.UARTRSR = value >> 8
        if len(self.received) < self._receive_level():
            self.UARTRIS &= ~RX
        if not self.received:
            self.UARTRIS &= ~RT
        self._start_timeout()
        self._update()
        self.chars.resume()
        return value

    @UARTRSR.on_write
    def _clear_status(self, value: int) -> None:
        del value
        self.UARTRSR = 0

    # Sending

    @UARTDR.on_write
    def _write_data(self, value: int) -> None:
        if self.UARTCR & LBE:
            self._arrive(value & 0xFF)
        elif len(self.transmit) >= self.depth:
            self.guest_error("UARTDR is written while the FIFO is full")
            return
        else:
            if self.UARTCR & (UARTEN | TXE) != UARTEN | TXE:
                self.guest_error("UARTDR is written while the transmitter is off")  # and sent, as guests expect
            self.transmit.append(value & 0xFF)
            self._drain()
        if len(self.transmit) <= self._transmit_level():
            self.UARTRIS |= TX
        else:
            self.UARTRIS &= ~TX
        self._update()

    def _transmit_level(self) -> int:
        return LEVELS[self.UARTIFLS & 7] if self.UARTLCR_H & FEN else 0

    def _drain(self) -> None:
        del self.transmit[: self.chars.write(bytes(self.transmit))]

    def ready(self) -> None:
        """The back end takes characters again."""
        if self.transmit:
            self._drain()
            if len(self.transmit) <= self._transmit_level():
                self.UARTRIS |= TX
            self._update()

    # Control

    @UARTFR.on_read
    def _flags(self) -> int:
        value = 0 if self.received else RXFE
        value |= RXFF if len(self.received) >= self.depth else 0
        value |= 1 << 3 if self.transmit else TXFE
        return value | (TXFF if len(self.transmit) >= self.depth else 0)

    @UARTLCR_H.on_write
    def _line_control(self, value: int) -> None:
        if (value ^ self.UARTLCR_H) & FEN:  # the FIFOs become one character deep, or 16: what was there is lost
            self.received.clear()
            self.transmit.clear()
            self.errors = [0] * DEPTH
        self.UARTLCR_H = value & 0xFF
        self._start_timeout()
        self.chars.resume()

    @UARTCR.after_write
    def _control(self) -> None:
        self.chars.resume()

    @UARTMIS.on_read
    def _masked(self) -> int:
        return self.UARTRIS & self.UARTIMSC

    @UARTICR.on_write
    def _clear(self, value: int) -> None:
        self.UARTRIS &= ~value
        self._update()

    @UARTIMSC.after_write
    def _update(self) -> None:
        self.irq.set(bool(self.UARTRIS & self.UARTIMSC))

    @UARTPeriphID.on_read
    def _identity(self, index: int) -> int:
        return IDENTITY[index]
