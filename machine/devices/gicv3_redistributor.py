"""The GICv3's redistributor: one CPU's own interrupts 0 to 31, and its LPIs (IHI 0069, section 12.11).

Two frames of 64 KiB: RD_base and SGI_base. Direct injection of LPIs (GICR_SETLPIR and so on) is absent, and GICR_TYPER
says so: they come from an ITS. While the CPU sleeps (GICR_WAKER) nothing is forwarded to it, and `wake_request` is up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.devices.gic_core import CLEAR, SET, Bits, Edges, InterruptBank, Priorities
from dbt.machine.devices.gicv3_lpi import MOST, SAVED, Lpis
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes, DmaPort
from dbt.machine.registers import RO, RW, Fifo, Register, States, View, Window
from dbt.machine.work import Work

if TYPE_CHECKING:
    from dbt.machine.device import Saved
    from dbt.machine.devices.gic_native import Shared
    from dbt.machine.devices.gicv3 import GICv3
    from dbt.machine.machine import Machine

IIDR = 0x0000_043B
PIDR = (0x44, 0, 0, 0, 0x90, 0xB4, 0x3B, 0x00, 0x0D, 0xF0, 0x05, 0xB1)  # architecture version 3; the part in [4]
ENABLE_LPIS, CES = 1, 2
DPG0, DPG1NS = 1 << 24, 1 << 25
PTZ = 1 << 62
SLEEP, CHILDREN_ASLEEP = 2, 4
SGI = 0x1_0000  # the second frame
SGIS = 0xFFFF


class GICv3Redistributor(InterruptBank):
    """Redistributor of a GICv3 (IHI 0069), one security state."""

    group = States(1)
    enabled = States(1)
    latched = States(1)
    level = States(1)
    active = States(1)
    edge = States(1, reset=SGIS)
    priority = States(32, bits=8)

    GICR = Window(0x2_0000, AccessSizes((1, 8), (1, 8)))
    GICR_CTLR = Register(
        0x0000, RW, "control", reset=CES, mask=ENABLE_LPIS | DPG0 | DPG1NS,
        fields={"EnableLPIs": 0, "CES": 1, "IR": 2, "RWP": 3, "DPG0": 24, "DPG1NS": 25, "DPG1S": 26, "UWP": 31},
    )  # fmt: skip
    GICR_IIDR = Register(0x0004, RO, "implementer", reset=IIDR)
    GICR_TYPER = View(
        0x0008, RO, "type", size=8, partial=True,
        fields={
            "PLPIS": 0, "VLPIS": 1, "DirectLPI": 3, "Last": 4, "DPGS": 5, "Processor_Number": (23, 8),
            "CommonLPIAff": (25, 24), "Affinity_Value": (63, 32),
        },
    )  # fmt: skip
    GICR_STATUSR = Register(0x0010, RW, "errors: not kept", mask=0)
    GICR_WAKER = Register(
        0x0014, RW, "power management", reset=SLEEP | CHILDREN_ASLEEP, mask=SLEEP,
        fields={"ProcessorSleep": 1, "ChildrenAsleep": 2},
    )  # fmt: skip
    GICR_MPAMIDR = Register(0x0018, RO, "memory partitioning: none")
    GICR_PROPBASER = Register(
        0x0070, RW, "table of LPIs' configurations", size=8, mask=0x070F_FFFF_FFFF_FF9F, partial=True,
        fields={"IDbits": (4, 0), "InnerCache": (9, 7), "Shareability": (11, 10), "OuterCache": (58, 56)},
    )  # fmt: skip
    GICR_PENDBASER = Register(
        0x0078, RW, "table of pending LPIs", size=8, mask=0x470F_FFFF_FFFF_0F80, partial=True,
        fields={"InnerCache": (9, 7), "Shareability": (11, 10), "OuterCache": (58, 56), "PTZ": 62},
    )  # fmt: skip
    GICR_PIDR = View(0xFFD0, RO, "identity", count=12)
    GICR_IGROUPR0 = Bits(SGI + 0x080, "groups", group)
    GICR_ISENABLER0 = Bits(SGI + 0x100, "set enable", enabled, SET)
    GICR_ICENABLER0 = Bits(SGI + 0x180, "clear enable", enabled, CLEAR)
    GICR_ISPENDR0 = Bits(SGI + 0x200, "set pending", latched, SET)
    GICR_ICPENDR0 = Bits(SGI + 0x280, "clear pending", latched, CLEAR)
    GICR_ISACTIVER0 = Bits(SGI + 0x300, "set active", active, SET)
    GICR_ICACTIVER0 = Bits(SGI + 0x380, "clear active", active, CLEAR)
    GICR_IPRIORITYR = Priorities(SGI + 0x400, count=32)
    GICR_ICFGR = Edges(SGI + 0xC00, edge, count=2, mask=0xAAAA_AAAA)
    GICR_IGRPMODR0 = Register(SGI + 0xD00, RW, "group modifiers: not with one security state", mask=0)
    GICR_NSACR = Register(SGI + 0xE00, RW, "non-secure access: not with one security state", mask=0)

    pending_lpis = Fifo(SAVED * MOST)  # only in saved ones: see `lpis`

    def __init__(self, name: str, machine: Machine, gic: GICv3, *, number: int, affinity: int, last: bool) -> None:
        super().__init__(name, machine)
        self.gic = gic
        self.number = number
        self.affinity = affinity
        self.last = last
        self.wake_request = Line(f"{name}.wake")
        self.lpis = Lpis(DmaPort(name, machine.memory))
        self.work = Work(self.clock, self._step)

    def on_reset(self) -> None:
        """Inputs stay as they are; what was pending of LPIs is lost."""
        self._take_inputs()
        self.lpis.forget()
        self.work.cancel()
        self.GICR_CTLR = CES if self.gic.lpis else 0
        self._restart()

    def on_restore(self) -> None:
        """The inputs are those that were saved; whoever drives them is restored as well."""
        self.work.cancel()
        self.lpis.forget()
        if self.GICR_CTLR & ENABLE_LPIS:
            self.lpis.enable(*self._properties())
            self.lpis.restore(self.pending_lpis)
        self.pending_lpis = bytearray()
        self._restart()

    def save(self) -> Saved:
        """Pending LPIs are with the rest."""
        self.pending_lpis = self.lpis.save()
        try:
            return super().save()
        finally:
            self.pending_lpis = bytearray()

    def join(self, shared: Shared, slot: int) -> None:
        """Have states where native code has them."""
        self.shared, self._first_shared = shared, slot
        self._refresh_all(range(1))

    def _restart(self) -> None:
        self._refresh_all(range(1))
        self.gic.look(1 << self.number)
        self.lpis_changed()

    # What others need

    def ppi(self, number: int) -> Line:
        """The input of interrupt 16 + `number`."""
        return self._input(0, 16 + number, f"{self.name}.ppi{number}")

    def generate(self, number: int, group: int) -> None:
        """A software interrupt comes, if it is of that group."""
        if self.group[0] >> number & 1 == group:
            self._change(self.latched, 0, 0, 1 << number)

    @property
    def asleep(self) -> bool:
        """Whether nothing is forwarded to the CPU."""
        return bool(self.GICR_WAKER & SLEEP)

    def takes(self, group: int) -> bool:
        """Whether interrupts that may go to any CPU may come here."""
        return not self.GICR_WAKER & SLEEP and not self.GICR_CTLR & (DPG1NS if group else DPG0)

    def lpis_changed(self) -> None:
        """Have the CPU see what is the most urgent LPI now."""
        if self.lpis.unread:
            self.work.later()
        self.gic.lpis_changed(self.number)

    def _step(self) -> None:
        self.lpis.step()
        self.lpis_changed()

    def slot_of(self, word: int) -> int | None:
        """There is only one."""
        del word
        return 0

    def fixed(self, state: str, word: int) -> int:
        """SGIs are edges."""
        del word
        return SGIS if state == "edge" else 0

    def _first(self, slot: int) -> int:
        return 32 * slot

    def _cpus(self, slot: int, bit: int) -> int:
        del slot, bit
        return 1  # there is only one

    def resolve(self) -> None:
        """Native code has all of a GIC's in one struct."""
        self.gic.resolve()

    def _look(self, cpus: int) -> None:
        del cpus
        self.gic.look(1 << self.number)

    # RD_base

    @GICR_CTLR.on_write
    def _control(self, value: int) -> None:
        before = self.GICR_CTLR
        self.GICR_CTLR = value & (DPG0 | DPG1NS) | (value & ENABLE_LPIS | CES) * self.gic.lpis
        changed = (before ^ self.GICR_CTLR) & ENABLE_LPIS
        pending_table = self.GICR_PENDBASER & 0xF_FFFF_FFFF_0000
        if changed & value:
            self.lpis.enable(*self._properties())
            if not self.GICR_PENDBASER & PTZ:
                self.lpis.load(pending_table)
        elif changed:
            self.lpis.store(pending_table)
            self.lpis.forget()
            self.GICR_PENDBASER &= ~PTZ
        self.gic.look(1 << self.number)
        self.lpis_changed()

    def _properties(self) -> tuple[int, int]:
        return self.GICR_PROPBASER & 0xF_FFFF_FFFF_F000, (self.GICR_PROPBASER & 0x1F) + 1

    @GICR_TYPER.on_read
    def _type(self) -> int:
        """LPIs share configuration at Aff3, CPUs may be left out of those that go to any."""
        affinity = (self.affinity >> 32 & 0xFF) << 24 | self.affinity & 0xFF_FFFF
        return affinity << 32 | 1 << 24 | self.number << 8 | 1 << 5 | self.last << 4 | self.gic.lpis

    @GICR_WAKER.on_write
    def _sleep(self, value: int) -> None:
        self.GICR_WAKER = SLEEP | CHILDREN_ASLEEP if value & SLEEP else 0
        self.gic.look(1 << self.number)

    @GICR_PROPBASER.on_write
    def _set_properties(self, value: int) -> None:
        if self._may_move("GICR_PROPBASER"):
            self.GICR_PROPBASER = value & 0x070F_FFFF_FFFF_FF9F

    @GICR_PENDBASER.on_read
    def _pending_table(self) -> int:
        return self.GICR_PENDBASER & ~PTZ

    @GICR_PENDBASER.on_write
    def _set_pending_table(self, value: int) -> None:
        if self._may_move("GICR_PENDBASER"):
            self.GICR_PENDBASER = value & 0x470F_FFFF_FFFF_0F80

    def _may_move(self, register: str) -> bool:
        if self.GICR_CTLR & ENABLE_LPIS:
            self.guest_error(f"{register} is written while LPIs are enabled")
            return False
        return True

    @GICR_PIDR.on_read
    def _identity(self, index: int) -> int:
        return PIDR[index] | (3 if index == 4 else 0)  # PIDR0: the part is a redistributor
