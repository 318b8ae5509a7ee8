"""The distributor of the GICv2 (IHI 0048B, section 4.3): the GICD registers."""

from __future__ import annotations

from dbt.machine.devices.gic_core import CLEAR, SET, Bits, Edges, Priorities, bits
from dbt.machine.devices.gicv2_core import IIDR, PRIVATE, WORDS, GicCore
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Register, View, Window

WORD = AccessSizes((1, 4))
IDENTITY = (0x04, 0, 0, 0, 0x90, 0xB4, 0x2B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)  # GIC-400: architecture version 2


class Distributor(GicCore):
    """The GICD registers."""

    GICD = Window(0x1000, WORD)
    GICD_CTLR = Register(0x000, RW, "enable groups", mask=3, fields={"EnableGrp0": 0, "EnableGrp1": 1})
    GICD_TYPER = View(0x004, RO, "type", fields={"ITLinesNumber": (4, 0), "CPUNumber": (7, 5)})
    GICD_IIDR = Register(0x008, RO, "implementer", reset=IIDR)
    GICD_IGROUPR = Bits(0x080, "groups", GicCore.group, count=WORDS)
    GICD_ISENABLER = Bits(0x100, "set enable", GicCore.enabled, SET, count=WORDS)
    GICD_ICENABLER = Bits(0x180, "clear enable", GicCore.enabled, CLEAR, count=WORDS)
    GICD_ISPENDR = Bits(0x200, "set pending", GicCore.latched, SET, count=WORDS)
    GICD_ICPENDR = Bits(0x280, "clear pending", GicCore.latched, CLEAR, count=WORDS)
    GICD_ISACTIVER = Bits(0x300, "set active", GicCore.active, SET, count=WORDS)
    GICD_ICACTIVER = Bits(0x380, "clear active", GicCore.active, CLEAR, count=WORDS)
    GICD_IPRIORITYR = Priorities(0x400, count=1020)
    GICD_ITARGETSR = View(0x800, RW, "CPUs that shared interrupts go to", count=1020, size=1)
    GICD_ICFGR = Edges(0xC00, GicCore.edge, count=64)
    GICD_SGIR = View(
        0xF00, WO, "software interrupts", mask=0x03FF_800F,
        fields={"SGIINTID": (3, 0), "NSATT": 15, "CPUTargetList": (23, 16), "TargetListFilter": (25, 24)},
    )  # fmt: skip
    GICD_CPENDSGIR = View(0xF10, RW, "clear pending SGIs", count=16, size=1)
    GICD_SPENDSGIR = View(0xF20, RW, "set pending SGIs", count=16, size=1)
    GICD_ID = View(0xFD0, RO, "identity", count=12)

    @GICD_CTLR.after_write
    def _distributor(self) -> None:
        self._look(-1)

    @GICD_TYPER.on_read
    def _type(self) -> int:
        return self.words - 1 | self.cpus - 1 << 5

    @GICD_ITARGETSR.on_read
    def _target(self, number: int) -> int:
        if self.cpus == 1 or number >= 32 * self.words:
            return 0
        return 1 << self._cpu if number < PRIVATE else self.targets[self._at(number, 0)]

    @GICD_ITARGETSR.on_write
    def _set_target(self, number: int, value: int) -> None:
        if PRIVATE <= number < 32 * self.words and self.cpus > 1:
            self.targets[self._at(number, 0)] = value & (1 << self.cpus) - 1
            self.share_route(self._slot(number // 32), number % 32)
            self.changed(self._slot(number // 32))

    @GICD_SGIR.on_write
    def _generate(self, value: int) -> None:
        me, number = self._cpu, value & 15
        chosen = value >> 24 & 3
        everybody = (1 << self.cpus) - 1
        if chosen == 3:
            self.guest_error("GICD_SGIR: TargetListFilter is reserved")
            return
        targets = (value >> 16 & 0xFF, everybody & ~(1 << me), 1 << me)[chosen] & everybody
        for cpu in bits(targets):
            self._send(cpu, number, 1 << me)

    def _send(self, cpu: int, number: int, sources: int) -> None:
        self.sgi_sources[16 * cpu + number] |= sources
        if sources:
            self._change(self.latched, cpu, 0, 1 << number)

    @GICD_CPENDSGIR.on_read
    @GICD_SPENDSGIR.on_read
    def _sources(self, number: int) -> int:
        return self.sgi_sources[16 * self._cpu + number]

    @GICD_SPENDSGIR.on_write
    def _pend_sgi(self, number: int, value: int) -> None:
        self._send(self._cpu, number, value & (1 << self.cpus) - 1)

    @GICD_CPENDSGIR.on_write
    def _unpend_sgi(self, number: int, value: int) -> None:
        cpu = self._cpu
        self.sgi_sources[16 * cpu + number] &= ~value
        if not self.sgi_sources[16 * cpu + number]:
            self._change(self.latched, cpu, 1 << number, 0)

    @GICD_ID.on_read
    def _identity(self, index: int) -> int:
        return IDENTITY[index]
