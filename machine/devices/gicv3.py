"""Arm Generic Interrupt Controller, GICv3 (IHI 0069): the distributor, and all CPUs' parts.

There is one security state (GICD_CTLR.DS is 1, as for QEMU's virt without `secure=on`), so interrupts are of group 0 or
of group 1; affinity routing is always on. Each CPU has a redistributor and a CPU interface, devices of their own. LPIs
are there, the extended ranges of SPIs and PPIs are not. This file has the GICD registers (section 12.9).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from dbt.machine.devices.gic_core import CLEAR, IDLE, SET, Bits, Edges, InterruptBank, Offer, Priorities, bits
from dbt.machine.devices.gic_native import LPI, NOWHERE, packed, shared
from dbt.machine.devices.gicv3_cpu import LPIS, GICv3CpuInterface
from dbt.machine.devices.gicv3_redistributor import IIDR, PIDR, GICv3Redistributor
from dbt.machine.errors import MapError
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import RO, RW, WO, Register, Registers, States, View, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.machine.lines import Line
    from dbt.machine.machine import Machine

WORDS, PRIVATE, SPIS_END = 32, 32, 1020
IRM = 1 << 31
SETSPI_NSR = 0x40  # where messages are written that become shared interrupts


class GICv3(InterruptBank):
    """Arm Generic Interrupt Controller version 3 (IHI 0069), one security state: the distributor."""

    group = States(WORDS)
    enabled = States(WORDS)
    latched = States(WORDS)
    level = States(WORDS)
    active = States(WORDS)
    edge = States(WORDS)
    priority = States(32 * WORDS, bits=8)

    GICD = Window(0x1_0000, AccessSizes((1, 8), (1, 8)))
    GICD_CTLR = Register(
        0x0000, RW, "control", reset=0x50, mask=3,
        fields={"EnableGrp0": 0, "EnableGrp1": 1, "ARE": 4, "DS": 6, "E1NWF": 7, "RWP": 31},
    )  # fmt: skip
    GICD_TYPER = View(
        0x0004, RO, "type",
        fields={
            "ITLinesNumber": (4, 0), "CPUNumber": (7, 5), "ESPI": 8, "SecurityExtn": 10, "num_LPIs": (15, 11),
            "MBIS": 16, "LPIS": 17, "DVIS": 18, "IDbits": (23, 19), "A3V": 24, "No1N": 25,
        },
    )  # fmt: skip
    GICD_IIDR = Register(0x0008, RO, "implementer", reset=IIDR)
    GICD_TYPER2 = Register(0x000C, RO, "type, second part")
    GICD_STATUSR = Register(0x0010, RW, "errors: not kept", mask=0)
    GICD_SETSPI_NSR = View(SETSPI_NSR, WO, "make a shared interrupt pending", mask=0x1FFF, partial=True)
    GICD_CLRSPI_NSR = View(0x0048, WO, "take it back", mask=0x1FFF, partial=True)
    GICD_IGROUPR = Bits(0x0080, "groups", group, count=WORDS)
    GICD_ISENABLER = Bits(0x0100, "set enable", enabled, SET, count=WORDS)
    GICD_ICENABLER = Bits(0x0180, "clear enable", enabled, CLEAR, count=WORDS)
    GICD_ISPENDR = Bits(0x0200, "set pending", latched, SET, count=WORDS)
    GICD_ICPENDR = Bits(0x0280, "clear pending", latched, CLEAR, count=WORDS)
    GICD_ISACTIVER = Bits(0x0300, "set active", active, SET, count=WORDS)
    GICD_ICACTIVER = Bits(0x0380, "clear active", active, CLEAR, count=WORDS)
    GICD_IPRIORITYR = Priorities(0x0400, count=SPIS_END)
    GICD_ITARGETSR = Registers(0x0800, RW, "targets: not with affinity routing", count=255, mask=0)
    GICD_ICFGR = Edges(0x0C00, edge, count=64)
    GICD_IGRPMODR = Registers(0x0D00, RW, "group modifiers: not with one security state", count=WORDS, mask=0)
    GICD_NSACR = Registers(0x0E00, RW, "non-secure access: not with one security state", count=64, mask=0)
    GICD_IROUTER = Registers(
        0x6000, RW, "the CPU that a shared interrupt goes to, or any", count=SPIS_END, size=8, partial=True,
        mask=0xFF_80FF_FFFF, fields={"Aff0": (7, 0), "Aff1": (15, 8), "Aff2": (23, 16), "IRM": 31, "Aff3": (39, 32)},
    )  # fmt: skip
    GICD_PIDR = View(0xFFD0, RO, "identity", count=12)

    def __init__(
        self, name: str, machine: Machine, *, affinities: Sequence[int] = (0,), interrupts: int = 288, lpis: bool = True
    ) -> None:
        super().__init__(name, machine)
        if not 1 <= len(affinities) <= 512 or len(set(affinities)) != len(affinities):
            raise MapError(f"{name}: {len(affinities)} CPUs: 1 to 512, each with another affinity")
        if interrupts % 32 or not 64 <= interrupts <= 1024:
            raise MapError(f"{name}: {interrupts} interrupts: 64 to 1024 by 32")
        self.words = interrupts // 32
        self.lpis = lpis
        self.cpu_of = {affinity: number for number, affinity in enumerate(affinities)}
        self.redistributors: list[GICv3Redistributor] = []
        self.interfaces: list[GICv3CpuInterface] = []
        for number, affinity in enumerate(affinities):
            last = number == len(affinities) - 1
            redistributor = GICv3Redistributor(
                f"{name}.redistributor{number}", machine, self, number=number, affinity=affinity, last=last
            )
            self.redistributors.append(redistributor)
            self.interfaces.append(GICv3CpuInterface(f"{name}.cpu{number}", machine, self, redistributor))
        self._any = 1 << len(affinities)  # stands for whichever CPU is fit
        self._roamers = 0  # shared interrupts that may go to any CPU
        self._chosen: list[GICv3CpuInterface | None] = [None, None]  # for each group, who gets the most urgent of them
        self._share()

    def _share(self) -> None:
        """Have states where native code has them: the redistributors' slots come after the shared ones."""
        count = len(self.interfaces)
        numbers = [32 * slot for slot in range(WORDS)] + [0] * count
        self.shared = shared(self.machine, numbers, count, masks=False)
        if self.shared is None:
            return
        self._refresh_all(range(self.words))
        self._share_routes()
        for cpu, (redistributor, interface) in enumerate(zip(self.redistributors, self.interfaces, strict=True)):
            redistributor.join(self.shared, WORDS + cpu)
            interface.words = self.shared.cpu[cpu]
            for number in range(PRIVATE):
                self.shared.route[32 * (WORDS + cpu) + number] = cpu

    def _share_routes(self) -> None:
        if self.shared:
            self.shared.route[: 32 * WORDS] = array("H", [NOWHERE] * (32 * WORDS))
            for number in range(min(32 * self.words, SPIS_END)):
                self._share_route(number)

    def _share_route(self, number: int) -> None:
        assert self.shared
        route = self.GICD_IROUTER[number]
        to = self.cpu_of.get(route, NOWHERE)
        self.shared.route[number] = len(self.interfaces) if route & IRM else to

    def on_reset(self) -> None:
        """Inputs stay as they are."""
        self._take_inputs()
        self.on_restore()

    def on_restore(self) -> None:
        """The inputs are those that were saved; whoever drives them is restored as well."""
        self._chosen = [None, None]
        self._roamers = sum(route >> 31 & 1 for route in self.GICD_IROUTER)
        self._refresh_all(range(self.words))
        self._share_routes()
        self.look(-1)

    @property
    def irq(self) -> list[Line]:
        """Each CPU's."""
        return [interface.irq for interface in self.interfaces]

    @property
    def fiq(self) -> list[Line]:
        """Each CPU's."""
        return [interface.fiq for interface in self.interfaces]

    def spi(self, number: int) -> Line:
        """The input of shared interrupt 32 + `number`."""
        return self._input(1 + number // 32, number % 32, f"{self.name}.spi{number}")

    def ppi(self, cpu: int, number: int) -> Line:
        """The input of a CPU's own interrupt 16 + `number`."""
        return self.redistributors[cpu].ppi(number)

    def message(self, offset: int, data: int, requester: int) -> None:
        """A message to GICD_SETSPI_NSR."""
        del offset, requester
        self._message(data & 0x1FFF, level=True)

    # Where interrupts go

    def slot_of(self, word: int) -> int | None:
        """The first word is not the distributor's, but each CPU's own."""
        return word if 0 < word < self.words else None

    def fixed(self, state: str, word: int) -> int:
        """1020 to 1023 are no interrupts."""
        del state
        return 0xF000_0000 if word == WORDS - 1 else 0

    def _first(self, slot: int) -> int:
        return 32 * slot

    def _cpus(self, slot: int, bit: int) -> int:
        if 32 * slot + bit >= SPIS_END:
            return 0  # no interrupt, though restored states may say that it is pending
        route = self.GICD_IROUTER[32 * slot + bit]
        if route & IRM:
            return self._any
        cpu = self.cpu_of.get(route)
        return 0 if cpu is None else 1 << cpu

    def look(self, cpus: int) -> None:
        """Have CPUs see what they are offered, with other settings of theirs."""
        if self.shared:
            for cpu in bits(cpus & self._any - 1):
                self.interfaces[cpu].share()
            self.resolve()
            return
        if self._roamers:
            cpus |= self._choose()
        for cpu in bits(cpus & self._any - 1):
            self.interfaces[cpu].update()

    def _look(self, cpus: int) -> None:
        self.look(cpus)

    def resolve(self) -> None:
        """Set the lines of the CPUs that see something else."""
        assert self.shared
        for cpu in self.shared.settle():
            self.interfaces[cpu].signal()

    def lpis_changed(self, cpu: int) -> None:
        """A CPU's most urgent LPI may be different."""
        if self.shared:
            self.shared.cpu[cpu][LPI] = packed(self.redistributors[cpu].lpis.best)
            self.resolve()
        else:
            self.look(1 << cpu)

    def offer_for(self, interface: GICv3CpuInterface, group: int) -> Offer:
        """The most urgent interrupt of a group for a CPU."""
        redistributor = interface.redistributor
        found = min(redistributor.offer(group), self.offer(2 * interface.number + group))
        if group:
            found = min(found, redistributor.lpis.best)
        if self._roamers and self._chosen[group] is interface:
            found = min(found, self.offer(2 * len(self.interfaces) + group))
        return found

    def _choose(self) -> int:
        """Who gets what may go to any CPU: of those that take part, the one with the least urgent work.

        The result are the CPUs that got or lost it.
        """
        concerned = 0
        for group in (0, 1):
            priority, _ = self.offer(2 * len(self.interfaces) + group)
            chosen = None
            if priority < IDLE:
                chosen = max(
                    (interface for interface in self.interfaces if interface.takes_part(group, priority)),
                    key=lambda interface: interface.running,
                    default=None,
                )
            for interface in (self._chosen[group], chosen):
                if interface is not None:
                    concerned |= 1 << interface.number
            self._chosen[group] = chosen
        return concerned

    def activate_for(self, redistributor: GICv3Redistributor, number: int) -> int:
        """A CPU has taken an interrupt; CPUs that this may be of interest to, besides it."""
        if number < PRIVATE:
            redistributor.activate(0, number)
        elif number >= LPIS:
            redistributor.lpis.clear(number)
        else:
            return self.activate(number // 32, number % 32)
        return 0

    def deactivate_for(self, redistributor: GICv3Redistributor, number: int) -> int:
        """A CPU is done with an interrupt; CPUs that this may be of interest to. LPIs have no such state."""
        if number < PRIVATE:
            redistributor.deactivate(0, number)
            return 1 << redistributor.number
        return self.deactivate(number // 32, number % 32) if number < min(32 * self.words, SPIS_END) else 0

    def generate(self, value: int, group: int, sender: int) -> None:
        """Software interrupts, to the CPUs of a write of ICC_SGI1R_EL1 or such."""
        number = value >> 24 & 15
        if value >> 40 & 1:
            targets = [cpu for cpu in range(len(self.interfaces)) if cpu != sender]
        else:
            cluster = (value >> 48 & 0xFF) << 32 | (value >> 32 & 0xFF) << 16 | (value >> 16 & 0xFF) << 8
            found = [self.cpu_of.get(cluster | bit) for bit in bits(value & 0xFFFF)]
            targets = [cpu for cpu in found if cpu is not None]
        for cpu in targets:
            self.redistributors[cpu].generate(number, group)

    # Registers

    @GICD_CTLR.after_write
    def _control(self) -> None:
        if self.shared:
            for interface in self.interfaces:
                interface.share_enables()
            self.resolve()
        else:
            self.look(-1)

    @GICD_TYPER.on_read
    def _type(self) -> int:
        """Messages to shared interrupts, LPIs if they are there, 16 bits of INTID, Aff3."""
        return self.words - 1 | 1 << 16 | self.lpis << 17 | 15 << 19 | 1 << 24

    @GICD_SETSPI_NSR.on_write
    def _set_message(self, value: int) -> None:
        self._message(value & 0x1FFF, level=True)

    @GICD_CLRSPI_NSR.on_write
    def _clear_message(self, value: int) -> None:
        self._message(value & 0x1FFF, level=False)

    def _message(self, number: int, *, level: bool) -> None:
        """An edge is latched, a level is up until it is taken back."""
        if not PRIVATE <= number < min(32 * self.words, SPIS_END):
            self.guest_error(f"a message for interrupt {number}, which is no shared one")
            return
        slot, bit = number // 32, number % 32
        if self.edge[slot] >> bit & 1:
            self._change(self.latched, slot, 1 << bit, level << bit)
        else:
            self._drive(slot, bit, level=level)

    @GICD_IROUTER.on_write
    def _route(self, number: int, value: int) -> None:
        if PRIVATE <= number < 32 * self.words:
            self._roamers += (value >> 31 & 1) - (self.GICD_IROUTER[number] >> 31 & 1)
            self.GICD_IROUTER[number] = value & 0xFF_80FF_FFFF
            if self.shared:
                self._share_route(number)
                self.resolve()
            else:
                affected = self._refresh(number // 32)
                self.look(affected | self._choose())

    @GICD_PIDR.on_read
    def _identity(self, index: int) -> int:
        return PIDR[index] | (2 if index == 4 else 0)  # PIDR0: the part is a distributor
