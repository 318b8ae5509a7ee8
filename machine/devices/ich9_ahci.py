"""The AHCI controller of Intel's ICH9 (316972, 14 and 15; AHCI 1.3.1): six ports, NCQ, MSI, no port multipliers.

What is reported in CAP: 64-bit addresses, NCQ, command list override, AHCI only, 1.5 Gb/s, 32 slots. There is no
staggered spin-up (drives spin up by themselves), no command completion coalescing, no enclosure management.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from dbt.machine.ata.ahci import Port
from dbt.machine.ata.hba import EXCHANGED, PCS, PHY_CHANGED, POD, PRCS, ST, SUD, UFS
from dbt.machine.memory import AccessSizes
from dbt.machine.pci import Bar, Capability, Identity, PciFunction
from dbt.machine.registers import RO, RW, Fields, Register, Registers, States, View, Window
from dbt.machine.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.ata import Drive
    from dbt.machine.machine import Machine
    from dbt.machine.pci.function import Where

PORTS, STRIDE = 6, 0x80
CAP = 1 << 31 | 1 << 30 | 1 << 24 | 1 << 20 | 1 << 18 | 31 << 8 | PORTS - 1  # S64A SNCQ SCLO ISS=1 SAM NCS NP
HR, IE, AE = 1 << 0, 1 << 1, 1 << 31  # GHC
CAUSES = 0xFDC0_00FF
CLEARED = CAUSES & ~(PCS | PRCS | UFS)  # by software in PxIS itself
SATA_ID, MSI_AT, SATA_AT = 0x12, 0x80, 0xA8
CAUSE_FIELDS: Fields = {
    "DHR": 0, "PS": 1, "DS": 2, "SDB": 3, "UF": 4, "DP": 5, "PC": 6, "DMP": 7, "PRC": 22, "IPM": 23, "OF": 24,
    "INF": 26, "IF": 27, "HBD": 28, "HBF": 29, "TFE": 30, "CPD": 31,
}  # fmt: skip


class SataCapability(Capability):
    """SATA capability (AHCI 1.3.1, 2.4): an index and a data register in BAR 4."""

    SATACR0 = Register(2, RO, "revision 1.0", size=2, reset=0x0010)
    SATACR1 = Register(4, RO, "BAR 4, index at 10h", reset=0x48)


class MapRegisters:
    """The function's own configuration registers (316972, 14.1)."""

    MAP = Register(0x90, RO, "AHCI mode", size=1, reset=0x40)


class Ich9Ahci(PciFunction):
    """ICH9 SATA controller in AHCI mode (Intel 316972, AHCI 1.3.1)."""

    PCI = Identity(vendor=0x8086, device=0x2922, class_code=0x010601, revision=2, pin=1)
    ABAR = Window(0x1000, AccessSizes((1, 8), (1, 4)), partial=True)
    IDP = Window(0x20, AccessSizes((1, 4), (1, 4)), partial=True)
    BARS = (Bar(4, "IDP", io=True), Bar(5, "ABAR"))

    CAP = Register(0x00, RO, "capabilities", reset=CAP)
    GHC = Register(0x04, RW, "global control", reset=AE, mask=HR | IE | AE, fields={"HR": 0, "IE": 1, "AE": 31})
    IS = Register(0x08, RW, "ports with interrupts; write one to clear", mask=0, clear=(1 << PORTS) - 1)
    PI = Register(0x0C, RO, "ports implemented", reset=(1 << PORTS) - 1)
    VS = Register(0x10, RO, "version", reset=0x0001_0300)
    CAP2 = Register(0x24, RO, "more capabilities: none")
    PxCLB = Registers(0x100, RW, "command list", count=PORTS, stride=STRIDE, mask=0xFFFF_FC00)
    PxCLBU = Registers(0x104, RW, "high half", count=PORTS, stride=STRIDE)
    PxFB = Registers(0x108, RW, "received FISes", count=PORTS, stride=STRIDE, mask=0xFFFF_FF00)
    PxFBU = Registers(0x10C, RW, "high half", count=PORTS, stride=STRIDE)
    PxIS = Registers(
        0x110, RW, "interrupt status; write one to clear", count=PORTS, stride=STRIDE, mask=CAUSES, fields=CAUSE_FIELDS
    )
    PxIE = Registers(
        0x114, RW, "interrupt enable", count=PORTS, stride=STRIDE, mask=CAUSES, fields=CAUSE_FIELDS
    )  # fmt: skip
    PxCMD = Registers(
        0x118, RW, "command and status", count=PORTS, stride=STRIDE, mask=0xF300_001F, reset=SUD | POD,
        fields={"ST": 0, "SUD": 1, "POD": 2, "CLO": 3, "FRE": 4, "CCS": (12, 8), "FR": 14, "CR": 15, "ATAPI": 24,
                "DLAE": 25, "ICC": (31, 28)},
    )  # fmt: skip
    PxTFD = Registers(
        0x120, RO, "task file", count=PORTS, stride=STRIDE, fields={"STS": (7, 0), "ERR": (15, 8)}, reset=0x7F
    )  # fmt: skip
    PxSIG = Registers(0x124, RO, "signature", count=PORTS, stride=STRIDE, reset=0xFFFF_FFFF)
    PxSSTS = Registers(
        0x128, RO, "SATA status", count=PORTS, stride=STRIDE, fields={"DET": (3, 0), "SPD": (7, 4), "IPM": (11, 8)}
    )  # fmt: skip
    PxSCTL = Registers(
        0x12C, RW, "SATA control", count=PORTS, stride=STRIDE, mask=0xFFF,
        fields={"DET": (3, 0), "SPD": (7, 4), "IPM": (11, 8)},
    )  # fmt: skip
    PxSERR = Registers(0x130, RW, "SATA error; write one to clear", count=PORTS, stride=STRIDE, mask=0x07FF_0F03)
    PxSACT = Registers(0x134, RW, "queued commands that are active; ones set", count=PORTS, stride=STRIDE)
    PxCI = Registers(0x138, RW, "commands issued; ones set", count=PORTS, stride=STRIDE)
    INDEX = Register(0x10, RW, "offset of a register", mask=0xFFC, window=IDP)
    INDEX_DATA = View(0x14, RW, "that register", window=IDP)

    stopped = States(PORTS, bits=1)  # after an error, until PxCMD.ST is cleared
    softreset = States(PORTS, bits=1)  # SRST of the last register FIS

    def __init__(
        self,
        name: str,
        machine: Machine,
        *,
        drives: Sequence[Drive | None] = (),
        **where: Unpack[Where],
    ) -> None:
        super().__init__(name, machine, **where)
        self.config.install(MapRegisters)
        self.add_capability(SATA_ID, bytes(6), layout=SataCapability, prefix="SATA_", at=SATA_AT)
        self.add_msi(1, at=MSI_AT)
        self.ports = [Port(self, number, (*drives, *[None] * PORTS)[number]) for number in range(PORTS)]
        self._signalled = 0  # ports whose interrupt has been sent as a message
        self._again = Work(self.clock, self._resume)

    # Interrupts (AHCI 1.3.1, 10.6)

    def update(self) -> None:
        """See which ports have interrupts, and signal it."""
        for number in range(PORTS):
            if self.PxIS[number] & self.PxIE[number]:
                self.IS |= 1 << number
        pending = self.IS if self.GHC & IE else 0
        new = pending & ~self._signalled
        self._signalled = pending
        if self.msi_active:
            if new:
                self.interrupt(0)
            self.intx.set(False)
        else:
            self.intx.set(bool(pending))

    @IS.on_write
    def _clear_ports(self, value: int) -> None:
        self.IS &= ~value
        self._signalled = 0  # a message again for what is left
        self.update()

    @PxIS.on_write
    def _clear_causes(self, number: int, value: int) -> None:
        self.PxIS[number] &= ~(value & CLEARED)
        self.update()

    @PxIE.on_write
    def _enable_causes(self, number: int, value: int) -> None:
        self.PxIE[number] = value & CAUSES
        self.update()

    @PxSERR.on_write
    def _clear_errors(self, number: int, value: int) -> None:
        """Two causes show the state of bits here."""
        errors = self.PxSERR[number] = self.PxSERR[number] & ~value
        gone = (0 if errors & EXCHANGED else PCS) | (0 if errors & PHY_CHANGED else PRCS)
        self.PxIS[number] &= ~gone
        self.update()

    # Ports

    @PxCMD.on_write
    def _command(self, number: int, value: int) -> None:
        self.ports[number].write_command(value)

    @PxSCTL.on_write
    def _control(self, number: int, value: int) -> None:
        self.ports[number].write_control(value & 0xFFF)

    @PxSACT.on_write
    def _activate(self, number: int, value: int) -> None:
        if self.PxCMD[number] & ST:
            self.PxSACT[number] |= value
        elif value:
            self.guest_error(f"PxSACT of port {number}, which does not run")

    @PxCI.on_write
    def _issue(self, number: int, value: int) -> None:
        if self.PxCMD[number] & ST:
            self.PxCI[number] |= value
            self.ports[number].look()
        elif value:
            self.guest_error(f"PxCI of port {number}, which does not run")

    # The whole

    @GHC.on_read
    def _global(self) -> int:
        if not any(port.drive is not None and port.drive.resetting for port in self.ports):
            self.GHC &= ~HR
        return self.GHC

    @GHC.on_write
    def _set_global(self, value: int) -> None:
        if value & HR:
            self._reset_ports()
            self.GHC |= HR
        else:
            self.GHC = AE | value & IE
            self.update()

    def _reset_ports(self) -> None:
        """HBA reset (10.4.3): everything but the addresses that software has given."""
        self.GHC, self.IS = AE, 0
        for port in self.ports:
            number = port.number
            port.begin_reset()
            self.PxIE[number] = self.PxIS[number] = self.PxSCTL[number] = self.PxSERR[number] = 0
            self.PxCMD[number] = SUD | POD
            port.end_reset()
        self.update()

    @INDEX_DATA.on_read
    def _read_indexed(self) -> int:
        return self.banks["ABAR"].read(self.INDEX, 4, self.attributes)

    @INDEX_DATA.on_write
    def _write_indexed(self, value: int) -> None:
        self.banks["ABAR"].write(self.INDEX, 4, value, self.attributes)

    def on_reset(self) -> None:
        """Drives are found anew."""
        self._signalled = 0
        self._again.cancel()
        self._reset_ports()

    def on_restore(self) -> None:
        """Lines by registers; commands when timers run, since guest memory may not be there yet."""
        self._signalled = self.IS if self.GHC & IE else 0
        self.update()
        self._again.later()

    def _resume(self) -> None:
        for port in self.ports:
            port.resume()
