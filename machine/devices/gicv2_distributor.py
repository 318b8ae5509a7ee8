"""The distributor of the GICv2 (IHI 0048B, section 4.3): the GICD registers."""

from __future__ import annotations

from dbt.machine.devices.gic_core import bits, edges_of, with_edges
from dbt.machine.devices.gicv2_core import IIDR, PRIVATE, WORDS, GicCore
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Register, Registers, Window

WORD = AccessSizes((1, 4))
IDENTITY = (0x04, 0, 0, 0, 0x90, 0xB4, 0x2B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)  # GIC-400: architecture version 2


class Distributor(GicCore):
    """The GICD registers."""

    GICD = Window(0x1000, WORD)
    GICD_CTLR = Register(0x000, RW, "enable groups", mask=3, fields={"EnableGrp0": 0, "EnableGrp1": 1})
    GICD_TYPER = Register(0x004, RO, "type", fields={"ITLinesNumber": (4, 0), "CPUNumber": (7, 5)})
    GICD_IIDR = Register(0x008, RO, "implementer", reset=IIDR)
    GICD_IGROUPR = Registers(0x080, RW, "groups", count=WORDS)
    GICD_ISENABLER = Registers(0x100, RW, "set enable", count=WORDS)
    GICD_ICENABLER = Registers(0x180, RW, "clear enable", count=WORDS)
    GICD_ISPENDR = Registers(0x200, RW, "set pending", count=WORDS)
    GICD_ICPENDR = Registers(0x280, RW, "clear pending", count=WORDS)
    GICD_ISACTIVER = Registers(0x300, RW, "set active", count=WORDS)
    GICD_ICACTIVER = Registers(0x380, RW, "clear active", count=WORDS)
    GICD_IPRIORITYR = Registers(0x400, RW, "priorities", count=1020, size=1)
    GICD_ITARGETSR = Registers(0x800, RW, "CPUs that shared interrupts go to", count=1020, size=1)
    GICD_ICFGR = Registers(0xC00, RW, "edges: two bits for each interrupt", count=64)
    GICD_SGIR = Register(
        0xF00, WO, "software interrupts", mask=0x03FF_800F,
        fields={"SGIINTID": (3, 0), "NSATT": 15, "CPUTargetList": (23, 16), "TargetListFilter": (25, 24)},
    )  # fmt: skip
    GICD_CPENDSGIR = Registers(0xF10, RW, "clear pending SGIs", count=16, size=1)
    GICD_SPENDSGIR = Registers(0xF20, RW, "set pending SGIs", count=16, size=1)
    GICD_ID = Registers(0xFD0, RO, "identity", count=12)

    @GICD_CTLR.after_write
    def _distributor(self) -> None:
        self._look(-1)

    @GICD_TYPER.on_read
    def _type(self) -> int:
        return self.words - 1 | self.cpus - 1 << 5

    def _put(self, which: list[int], word: int, clear: int, put: int, keep: int = 0) -> None:
        """Bits of a word of `which`, but those of `keep`."""
        if word < self.words:
            if word == WORDS - 1:
                keep |= 0xF000_0000  # 1020 to 1023 are no interrupts
            self._change(which, self._slot(word), clear & ~keep, put & ~keep)

    def _shown(self, which: list[int], word: int) -> int:
        return which[self._slot(word)] if word < self.words else 0

    @GICD_IGROUPR.on_read
    def _groups(self, word: int) -> int:
        return self._shown(self.group, word)

    @GICD_IGROUPR.on_write
    def _set_groups(self, word: int, value: int) -> None:
        self._put(self.group, word, 0xFFFF_FFFF, value)

    @GICD_ISENABLER.on_read
    @GICD_ICENABLER.on_read
    def _enables(self, word: int) -> int:
        return self._shown(self.enabled, word)

    @GICD_ISENABLER.on_write
    def _enable(self, word: int, value: int) -> None:
        self._put(self.enabled, word, 0, value)

    @GICD_ICENABLER.on_write
    def _disable(self, word: int, value: int) -> None:
        self._put(self.enabled, word, value, 0, 0 if word else 0xFFFF)

    @GICD_ISPENDR.on_read
    @GICD_ICPENDR.on_read
    def _pendings(self, word: int) -> int:
        return self._pending(self._slot(word)) if word < self.words else 0

    @GICD_ISPENDR.on_write
    def _pend(self, word: int, value: int) -> None:
        self._put(self.latched, word, 0, value, 0 if word else 0xFFFF)

    @GICD_ICPENDR.on_write
    def _unpend(self, word: int, value: int) -> None:
        self._put(self.latched, word, value, 0, 0 if word else 0xFFFF)

    @GICD_ISACTIVER.on_read
    @GICD_ICACTIVER.on_read
    def _actives(self, word: int) -> int:
        return self._shown(self.active, word)

    @GICD_ISACTIVER.on_write
    def _activate(self, word: int, value: int) -> None:
        self._put(self.active, word, 0, value)

    @GICD_ICACTIVER.on_write
    def _deactivate_word(self, word: int, value: int) -> None:
        self._put(self.active, word, value, 0)

    @GICD_IPRIORITYR.on_read
    def _priority(self, number: int) -> int:
        return self.priority[self._at(number, self._cpu)] if number < 32 * self.words else 0

    @GICD_IPRIORITYR.on_write
    def _set_priority(self, number: int, value: int) -> None:
        if number < 32 * self.words:
            self.priority[self._at(number, self._cpu)] = value
            self._changed(self._slot(number // 32))

    @GICD_ITARGETSR.on_read
    def _target(self, number: int) -> int:
        if self.cpus == 1 or number >= 32 * self.words:
            return 0
        return 1 << self._cpu if number < PRIVATE else self.targets[self._at(number, 0)]

    @GICD_ITARGETSR.on_write
    def _set_target(self, number: int, value: int) -> None:
        if PRIVATE <= number < 32 * self.words and self.cpus > 1:
            self.targets[self._at(number, 0)] = value & (1 << self.cpus) - 1
            self._changed(self._slot(number // 32))

    @GICD_ICFGR.on_read
    def _configuration(self, index: int) -> int:
        return edges_of(self._shown(self.edge, index // 2), index % 2)

    @GICD_ICFGR.on_write
    def _configure(self, index: int, value: int) -> None:
        if index:
            word = index // 2
            self._put(self.edge, word, 0xFFFF_FFFF, with_edges(self._shown(self.edge, word), index % 2, value))

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
