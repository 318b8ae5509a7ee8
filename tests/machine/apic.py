"""A machine with local APICs, an I/O APIC, and each CPU's view of memory, for tests of interrupts."""

from __future__ import annotations

from dbt.machine.devices.apic import LocalApic
from dbt.machine.devices.apic_bus import ApicBus, Processor
from dbt.machine.devices.ioapic import IoApic
from dbt.machine.machine import Machine
from dbt.machine.memory import AddressSpace, Unassigned

PAGE, IOAPIC = 0xFEE0_0000, 0xFEC0_0000
ID, VER, TPR, APR, PPR, EOI, LDR, DFR, SVR, ISR, TMR, IRR, ESR, ICR, ICR2 = (
    0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280, 0x300, 0x310,
)  # fmt: skip
TIMER, LINT0, LINT1, ERROR, INITIAL, CURRENT, DIVIDE = 0x320, 0x350, 0x360, 0x370, 0x380, 0x390, 0x3E0
MASKED, LEVEL = 1 << 16, 1 << 15
ENABLE = 0x1FF


class Events(Processor):
    """A CPU that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def nmi(self) -> None:
        self.seen.append("nmi")

    def smi(self) -> None:
        self.seen.append("smi")

    def init(self) -> None:
        self.seen.append("init")

    def start(self, page: int) -> None:
        self.seen.append(f"start {page:#x}")


class Cpus:
    """A machine with local APICs, one I/O APIC, and each CPU's view of memory."""

    def __init__(self, count: int, *, native: bool = True) -> None:
        self.machine = Machine("pc", unassigned=Unassigned.ONES, native=native)
        self.bus = ApicBus()
        self.events = [Events() for _ in range(count)]
        self.vectors = [0x77]
        self.apics = [
            LocalApic(f"apic{n}", self.machine, number=n, bus=self.bus, processor=self.events[n],
                      acknowledge_pic=self.vectors.pop)
            for n in range(count)
        ]  # fmt: skip
        self.ioapic = IoApic("ioapic", self.machine, bus=self.bus)
        self.machine.place(self.ioapic, IOAPIC)
        self.spaces: list[AddressSpace] = [apic.own_space() for apic in self.apics]
        self.machine.reset()

    def get(self, cpu: int, offset: int) -> int:
        return self.spaces[cpu].read(PAGE + offset, 4)

    def put(self, cpu: int, offset: int, value: int) -> None:
        self.spaces[cpu].write(PAGE + offset, 4, value)

    def bits(self, cpu: int, offset: int) -> set[int]:
        words = sum(self.get(cpu, offset + 16 * n) << 32 * n for n in range(8))
        return {vector for vector in range(256) if words >> vector & 1}

    def send(self, cpu: int, command: int, destination: int = 0) -> None:
        self.put(cpu, ICR2, destination << 24)
        self.put(cpu, ICR, command)

    def redirect(self, pin: int, entry: int) -> None:
        for index, value in ((0x11, entry >> 32), (0x10, entry & 0xFFFF_FFFF)):
            self.machine.memory.write(IOAPIC, 4, index + 2 * pin)
            self.machine.memory.write(IOAPIC + 0x10, 4, value)

    def redirection(self, pin: int) -> int:
        self.machine.memory.write(IOAPIC, 4, 0x10 + 2 * pin)
        return self.machine.memory.read(IOAPIC + 0x10, 4)

    def enable(self) -> None:
        for cpu in range(len(self.apics)):
            self.put(cpu, SVR, ENABLE)

    @property
    def asked(self) -> list[bool]:
        return [apic.intr.level for apic in self.apics]
