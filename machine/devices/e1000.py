"""Intel 82540EM gigabit Ethernet controller.

PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual, revision 4.0 (317453). Its parts, each a
file: registers, interrupts, EEPROM, PHY and link, receiver, transmitter. Here is the function as a whole: identity,
resets, device control, and the way to the registers through I/O space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dbt.machine.devices.e1000_eeprom import contents
from dbt.machine.devices.e1000_phy import PHY_RST
from dbt.machine.devices.e1000_registers import E1000Registers
from dbt.machine.devices.e1000_transmit import E1000Transmit
from dbt.machine.errors import MapError
from dbt.machine.net.backend import NetBackend
from dbt.machine.pci import Bar, Identity
from dbt.machine.registers import State

if TYPE_CHECKING:
    from dbt.machine.machine import Machine
    from dbt.machine.pci.function import Where

MAC = bytes.fromhex("525400123456")
RST, EE_RST = 1 << 26, 1 << 13
FD, LU, TXOFF, MTXCKOK = 1 << 0, 1 << 1, 1 << 4, 1 << 10
KEPT_BY_RST = frozenset({"PBA", "WUC", "WUFC", "WUS", "WUPL", "WUPM"})  # 13.4.1, 13.4.12, 6.2


class E1000(E1000Transmit):
    """Intel 82540EM gigabit Ethernet controller."""

    PCI = Identity(vendor=0x8086, device=0x100E, class_code=0x020000, revision=3, pin=1)
    BARS = (Bar(0, "REGS"), Bar(1, "IO", io=True))
    KEPT = frozenset({"words"})

    unplugged = State(bits=1)

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        net: NetBackend | None = None,
        mac: bytes = MAC,
        **where: Unpack[Where],
    ) -> None:
        if len(mac) != 6 or mac[0] & 1:
            raise MapError(f"{name}: {mac.hex(':')} is no address of a card")
        super().__init__(name, machine, net or NetBackend(), **where)
        identity = self.identity
        self.words = contents(
            mac, identity.device, identity.vendor, identity.subsystem, identity.subsystem_vendor
        )  # fmt: skip
        self._start()
        self.net.attach(self)

    # Resets

    def _start(self) -> None:
        self.load_address()
        self.find_addresses()
        self.unplugged = int(not self.net.up)
        self.link = int(not self.unplugged)

    def on_reset(self) -> None:
        """PCI's reset: everything is new but the EEPROM. The link is there at once."""
        self._stop()
        self.negotiation.cancel()
        self._start()
        self.reset_interrupts()

    def _stop(self) -> None:
        self.fetched.clear()
        for work in (self.resuming, self.transmitting):
            work.cancel()

    def on_restore(self) -> None:
        """Go on in the middle."""
        self._stop()
        self.find_addresses()
        self.restore_interrupts()
        self.restore_link()
        self.plug(connected=self.net.up)
        self.resuming.later()
        self.on_link()

    def _software_reset(self) -> None:
        """CTRL.RST: what is not PCI's, the PHY's or there for waking up is as after power-on."""
        kept = {state: self.__dict__[state] for state in ("words", "unplugged", "negotiated_at", "link_was_lost")}
        phy = {register.name for register in self.LAYOUTS["PHY"].registers}
        kept |= {name: self.__dict__[name] for name in phy | KEPT_BY_RST}
        self._initial()
        self.__dict__.update(kept)
        self._stop()
        self.load_address()
        self.find_addresses()
        self.link = int(self.phy_link)
        self.reset_interrupts()

    # Device control (13.4.1, 13.4.2, 13.4.5)

    @E1000Registers.CTRL.on_write
    def _control(self, value: int) -> None:
        if value & RST:
            self._software_reset()
            return
        old, self.CTRL = self.CTRL, value & E1000Registers.CTRL.mask
        if old & PHY_RST and not value & PHY_RST:
            self.reset_phy()
        self.update_link()

    @E1000Registers.STATUS.on_read
    def _status(self) -> int:
        speed = self.speed()
        value = MTXCKOK | speed << 8 | speed << 6
        if speed == 2:
            value |= 1 << 8  # ASDV of 1000 Mb/s is 11b as the PHY detects it
        if self.full_duplex():
            value |= FD
        if self.link:
            value |= LU
        return value | (TXOFF if self.paused() else 0)

    @E1000Registers.CTRL_EXT.after_write
    def _extended_control(self) -> None:
        if self.CTRL_EXT & EE_RST:
            self.CTRL_EXT &= ~EE_RST
            self.load_address()
            self.find_addresses()

    # I/O space (13.2.2)

    @E1000Registers.IODATA.on_read
    def _indirect_read(self) -> int:
        offset = self.IOADDR
        if offset >= E1000Registers.REGS.size or offset & 3:
            self.guest_error("IOADDR names no register", f": {offset:#x}")
            return 0
        return self.banks["REGS"].read(offset, 4, self.attributes)

    @E1000Registers.IODATA.on_write
    def _indirect_write(self, value: int) -> None:
        offset = self.IOADDR
        if offset >= E1000Registers.REGS.size or offset & 3:
            self.guest_error("IOADDR names no register", f": {offset:#x}")
            return
        self.banks["REGS"].write(offset, 4, value, self.attributes)

    # What happens outside

    def link_changed(self) -> None:
        """The cable was plugged in or out."""
        self.plug(connected=self.net.up)

    def on_config_write(self, offset: int, size: int) -> None:
        """The function may now be a bus master: go on."""
        super().on_config_write(offset, size)
        if offset <= 4 < offset + size and self.dma.enabled:
            self.transmitting.run()
            self.resuming.later()
