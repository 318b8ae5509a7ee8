"""Interrupts of the 82540EM: causes, mask, throttling and the delays of receive and transmit interrupts.

Manual: 13.4.17 to 13.4.21 (registers), 3.2.7.1 (receive delays), 13.4.41 (transmit delays), 13.4.18
(throttling).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dbt.machine.devices.e1000_registers import ALL_CAUSES, E1000Registers
from dbt.machine.registers import State

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.pci.function import Where

TXDW, TXQE, LSC, RXDMT0, RXO, RXT0, MDAC = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 9
PHYINT, TXD_LOW, SRPD = 1 << 12, 1 << 15, 1 << 16
DELAY_UNIT, ITR_UNIT = 1024, 256  # nanoseconds
FPD = 1 << 31


class E1000Interrupts(E1000Registers):
    """What becomes of causes. Times are the machine's, 0 for none."""

    asserted = State(bits=1)  # the pin
    quiet_until = State(bits=64)  # no interrupt before this
    receive_due = State(bits=64)  # when RXT0 comes, if no further packet does
    receive_limit = State(bits=64)  # when it comes at the latest
    transmit_due = State(bits=64)
    transmit_limit = State(bits=64)

    def __init__(self, name: str, machine: Machine, **where: Unpack[Where]) -> None:
        super().__init__(name, machine, **where)
        self.throttle = self.clock.timer(self.update_interrupt)
        self.receive_delay = self.clock.timer(self._receive_delayed)
        self.transmit_delay = self.clock.timer(self._transmit_delayed)

    def cause(self, causes: int) -> None:
        """Something happened."""
        if causes:
            self.ICR |= causes
            self.update_interrupt()

    def update_interrupt(self) -> None:
        """The pin is up while a cause is that is not masked, at most every ITR."""
        if not self.ICR & self.IMS:
            self.asserted = 0
        elif not self.asserted:
            now = self.clock.now
            if now < self.quiet_until:
                self.throttle.at(self.quiet_until)
            else:
                self.quiet_until = now + ITR_UNIT * self.ITR if self.ITR else 0
                self.asserted = 1
        self.intx.set(bool(self.asserted))

    @E1000Registers.ICR.on_read
    def _read_causes(self) -> int:
        causes = self.ICR
        self.ICR = 0
        self.update_interrupt()
        return causes

    @E1000Registers.ICR.after_write
    def _cleared(self) -> None:
        self.update_interrupt()

    @E1000Registers.ICS.on_write
    def _set_causes(self, value: int) -> None:
        self.cause(value & ALL_CAUSES)

    @E1000Registers.IMS.on_write
    def _unmask(self, value: int) -> None:
        self.IMS |= value & ALL_CAUSES
        self.update_interrupt()

    @E1000Registers.IMC.on_write
    def _mask(self, value: int) -> None:
        self.IMS &= ~value
        self.update_interrupt()

    @E1000Registers.ITR.after_write
    def _new_throttle(self) -> None:
        if not self.ITR:
            self.quiet_until = 0
            self.throttle.cancel()
            self.update_interrupt()

    # Delays

    def received(self, causes: int) -> None:
        """A packet is in memory: RXT0 now or later (3.2.7.1)."""
        if not self.RDTR:
            self.cause(causes | RXT0)
            return
        now = self.clock.now
        self.receive_due = now + DELAY_UNIT * self.RDTR
        if self.RADV and not self.receive_limit:
            self.receive_limit = now + DELAY_UNIT * self.RADV
        self._arm_delays()
        self.cause(causes)

    def written_back(self, *, delayed: bool) -> None:
        """Descriptors with RS are written back: TXDW now, or later if all of them have IDE (13.4.41)."""
        if not (delayed and self.TIDV):
            self.transmit_due = self.transmit_limit = 0
            self.transmit_delay.cancel()
            self.cause(TXDW)
            return
        now = self.clock.now
        self.transmit_due = now + DELAY_UNIT * self.TIDV
        if self.TADV and not self.transmit_limit:
            self.transmit_limit = now + DELAY_UNIT * self.TADV
        self._arm_delays()

    def _arm_delays(self) -> None:
        if self.receive_due:
            self.receive_delay.at(min(self.receive_due, self.receive_limit or self.receive_due))
        if self.transmit_due:
            self.transmit_delay.at(min(self.transmit_due, self.transmit_limit or self.transmit_due))

    def _receive_delayed(self) -> None:
        self.receive_due = self.receive_limit = 0
        self.receive_delay.cancel()
        self.cause(RXT0)

    def _transmit_delayed(self) -> None:
        self.transmit_due = self.transmit_limit = 0
        self.transmit_delay.cancel()
        self.cause(TXDW)

    @E1000Registers.RDTR.on_write
    def _new_receive_delay(self, value: int) -> None:
        self.RDTR = value & 0xFFFF
        if value & FPD and self.receive_due:
            self._receive_delayed()

    @E1000Registers.TIDV.on_write
    def _new_transmit_delay(self, value: int) -> None:
        self.TIDV = value & 0xFFFF
        if value & FPD and self.transmit_due:
            self._transmit_delayed()

    def reset_interrupts(self) -> None:
        """Causes and times are gone already."""
        for timer in (self.throttle, self.receive_delay, self.transmit_delay):
            timer.cancel()
        self.update_interrupt()

    def restore_interrupts(self) -> None:
        """Go on with the times of a snapshot."""
        for timer in (self.throttle, self.receive_delay, self.transmit_delay):
            timer.cancel()
        self._arm_delays()
        self.update_interrupt()
