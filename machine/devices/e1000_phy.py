"""The PHY of the 82540EM, an M88E1011 behind MDIC, and the link (chapters 8 and 10, 13.4.8).

The link partner can do everything but pause. Negotiation takes half a second of the machine's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dbt.machine.clock import SECOND
from dbt.machine.devices.e1000_eeprom import E1000Eeprom
from dbt.machine.devices.e1000_interrupts import LSC, MDAC, PHYINT
from dbt.machine.devices.e1000_registers import E1000Registers
from dbt.machine.registers import RO, State

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.pci.function import Where

ADDRESS = 1
MDIC_WRITE, MDIC_READ, READY, INTERRUPT, ERROR = 1, 2, 1 << 28, 1 << 29, 1 << 30
NEGOTIATION = SECOND // 2
AN_EN, RESTART_AN, POWER_DOWN, LOOPBACK, RESET = 1 << 12, 1 << 9, 1 << 11, 1 << 14, 1 << 15
SPEED_MSB, SPEED_LSB, DUPLEX = 1 << 6, 1 << 13, 1 << 8
LINK, AN_COMPLETE = 1 << 2, 1 << 5
LINK_CHANGED, NEGOTIATED = 1 << 10, 1 << 11  # PINTS
SLU, PHY_RST = 1 << 6, 1 << 31


class E1000Phy(E1000Eeprom):
    """MDIC, the PHY's registers and whether the link is up."""

    unplugged = State(bits=1)  # the cable, whatever the guest does
    negotiated_at = State(bits=64)  # 0: it is not negotiating
    link = State(bits=1)  # as STATUS.LU has it
    link_was_lost = State(bits=1)  # PSTATUS shows that once

    def __init__(self, name: str, machine: Machine, **where: Unpack[Where]) -> None:
        super().__init__(name, machine, **where)
        self.negotiation = self.clock.timer(self._negotiated)

    def plug(self, *, connected: bool) -> None:
        """The cable is there or not."""
        if self.unplugged == connected:
            self.unplugged = int(not connected)
            if connected:
                self._negotiate()
            self.update_link()

    # The link

    @property
    def phy_link(self) -> bool:
        """Whether the PHY has one."""
        return not (self.unplugged or self.negotiated_at or self.PCTRL & POWER_DOWN or self.CTRL & PHY_RST)

    def speed(self) -> int:
        """0, 1, 2 for 10, 100, 1000 Mb/s: what was negotiated or set."""
        if not self.PCTRL & AN_EN:
            return 2 if self.PCTRL & SPEED_MSB else int(bool(self.PCTRL & SPEED_LSB))
        return 2 if self.GCON & 0x300 else int(bool(self.ANA & 0x180))

    def full_duplex(self) -> bool:
        """The same for the duplex mode."""
        if not self.PCTRL & AN_EN:
            return bool(self.PCTRL & DUPLEX)
        return bool((self.ANA & 0x40, self.ANA & 0x100, self.GCON & 0x200)[self.speed()])

    def update_link(self) -> None:
        """Something changed that the link depends on."""
        if not self.phy_link:
            self.link_was_lost = 1
        link = int(self.phy_link and bool(self.CTRL & SLU))
        if link != self.link:
            self.link = link
            self.phy_interrupt(LINK_CHANGED)
            self.cause(LSC)
            self.on_link()

    def on_link(self) -> None:
        """The link went up or down."""

    def _negotiate(self) -> None:
        if self.PCTRL & AN_EN:
            self.negotiated_at = self.clock.now + NEGOTIATION
            self.negotiation.at(self.negotiated_at)
        else:
            self.negotiated_at = 0
            self.negotiation.cancel()
        self.update_link()

    def _negotiated(self) -> None:
        self.negotiated_at = 0
        self.phy_interrupt(NEGOTIATED)
        self.update_link()

    def phy_interrupt(self, events: int) -> None:
        """PINTS has them; those of PINTE are a cause."""
        self.PINTS |= events
        if events & self.PINTE:
            self.cause(PHYINT)

    def reset_phy(self) -> None:
        """Its registers as after power-on, and a new negotiation."""
        for register in self.LAYOUTS["PHY"].registers:
            self.__dict__[register.name] = register.reset
        self._negotiate()

    def restore_link(self) -> None:
        """Go on negotiating."""
        self.negotiation.cancel()
        if self.negotiated_at:
            self.negotiation.at(self.negotiated_at)

    # Registers

    @E1000Registers.MDIC.on_write
    def _manage(self, value: int) -> None:
        operation, number, phy = value >> 26 & 3, value >> 16 & 31, value >> 21 & 31
        value &= 0x2FFF_FFFF
        bank, known = self.banks["PHY"], self.LAYOUTS["PHY"].reads.get(2 * number)
        if phy != ADDRESS or not known or operation not in {MDIC_READ, MDIC_WRITE}:
            self.guest_error("MDIC reaches nothing", f": PHY {phy}, register {number}, operation {operation}")
            value |= ERROR
        elif operation == MDIC_READ:
            value = value & ~0xFFFF | bank.read(2 * number, 2, self.attributes)
        elif known[0][0].access == RO:
            self.guest_error(f"{known[0][0].name} is read-only")
            value |= ERROR
        else:
            bank.write(2 * number, 2, value & 0xFFFF, self.attributes)
        self.MDIC = value | READY
        if value & INTERRUPT:
            self.cause(MDAC)

    @E1000Registers.PCTRL.after_write
    def _phy_control(self) -> None:
        value = self.PCTRL
        self.PCTRL = value & ~(RESET | RESTART_AN)
        if value & RESET:
            self.reset_phy()
        elif value & RESTART_AN:
            self._negotiate()
        else:
            self.update_link()

    @E1000Registers.PSTATUS.on_read
    def _phy_status(self) -> int:
        up = self.phy_link
        value = self.PSTATUS
        if up and not self.link_was_lost:
            value |= LINK
        if up and self.PCTRL & AN_EN:
            value |= AN_COMPLETE
        self.link_was_lost = 0
        return value

    @E1000Registers.PSSTAT.on_read
    def _phy_specific_status(self) -> int:
        if not self.phy_link:
            return self.speed() << 14
        return self.speed() << 14 | self.full_duplex() << 13 | 1 << 11 | 1 << 10

    @E1000Registers.PINTS.on_read
    def _phy_interrupts(self) -> int:
        events = self.PINTS
        self.PINTS = 0
        return events

    def _partner(self, value: int) -> int:
        return value if self.phy_link and self.PCTRL & AN_EN else 0

    @E1000Registers.LPA.on_read
    def _partner_ability(self) -> int:
        return self._partner(0x41E1)

    @E1000Registers.ANE.on_read
    def _partner_negotiates(self) -> int:
        return self._partner(0x0003)

    @E1000Registers.GSTATUS.on_read
    def _gigabit_status(self) -> int:
        return self._partner(0x3C00)
