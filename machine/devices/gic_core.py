"""What the GIC architectures have in common: the states of interrupts, and the rules of priorities.

Interrupts are kept in words of 32, called slots: shared ones, or one CPU's own. A bank knows for each slot what it
*offers*: the most urgent interrupt that is pending, enabled and not active, for each CPU that it may go to and each
group; and which of the slots' offers is the best. So a change is looked at in one slot, and then compared with the few
slots that offer something to the same CPU. Registers of bits, bytes and edges are the same in all: declared by Bits,
Priorities and Edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.registers import RW, View

if TYPE_CHECKING:
    from dbt.machine.devices.gic_native import Shared
    from dbt.machine.machine import Machine
    from dbt.machine.registers import States

PUT, SET, CLEAR = range(3)  # what ones do that are written to Bits; zeroes do something to PUT only
SPURIOUS = 1023
IDLE = 0x100  # the running priority of a CPU with nothing active, and that of no interrupt
Offer = tuple[int, int]  # priority, interrupt: the lesser is the more urgent
NOTHING: Offer = (IDLE, SPURIOUS)


def bits(word: int) -> list[int]:
    """The numbers of the bits that are set; of long words piece by piece, as each step on them costs their length."""
    if word >> 64:
        size = -(-word.bit_length() // 64) * 8
        pieces = memoryview(word.to_bytes(size, "little")).cast("Q")
        return [64 * at + bit for at, piece in enumerate(pieces) if piece for bit in bits(piece)]
    found = []
    while word:
        low = word & -word
        found.append(low.bit_length() - 1)
        word ^= low
    return found


def running(levels: int) -> int:
    """The group priority of what runs, from active priorities: bit p is group priority 2 p."""
    return 2 * ((levels & -levels).bit_length() - 1) if levels else IDLE


def dropped(levels: int) -> int:
    """Active priorities without the most urgent."""
    return levels & levels - 1 if levels else 0


def word_of(levels: int, index: int) -> int:
    """One of the four registers that active priorities are shown in."""
    return levels >> 32 * index & 0xFFFF_FFFF


def with_word(levels: int, index: int, value: int) -> int:
    """Active priorities after a write of one of the four registers."""
    return levels & ~(0xFFFF_FFFF << 32 * index) | (value & 0xFFFF_FFFF) << 32 * index


def edges_of(word: int, half: int) -> int:
    """A configuration register, two bits for each interrupt, of one half of a slot's edges."""
    return sum(2 << 2 * bit for bit in bits(word >> 16 * half & 0xFFFF))


def with_edges(word: int, half: int, value: int) -> int:
    """A slot's edges after a write of a configuration register."""
    chosen = sum(1 << bit for bit in range(16) if value >> 2 * bit & 2)
    return word & ~(0xFFFF << 16 * half) | chosen << 16 * half


class Bits(View):
    """Words with a bit for each interrupt: a state of the bank. Pending ones show inputs as well as what is latched."""

    def __init__(self, offset: int, doc: str, state: States, effect: int = PUT, *, count: int = 1) -> None:
        super().__init__(offset, RW, doc, count=count)

        def read(bank: InterruptBank, word: int = 0) -> int:
            slot = bank.slot_of(word)
            if slot is None:
                return 0
            value: int = bank.pending(slot) if state.name == "latched" else bank.__dict__[state.name][slot]
            return value

        def write(bank: InterruptBank, *args: int) -> None:
            word, value = (0, *args)[-2:]
            bank.change_word(state, word, clear=(~0, 0, value)[effect], put=0 if effect == CLEAR else value)

        self.reader, self.writer = read, write


class Priorities(View):
    """A byte for each interrupt: its priority."""

    def __init__(self, offset: int, *, count: int) -> None:
        super().__init__(offset, RW, "priorities", count=count, size=1)

        def read(bank: InterruptBank, number: int) -> int:
            slot = bank.slot_of(number // 32)
            return 0 if slot is None else bank.priority[32 * slot + number % 32]

        def write(bank: InterruptBank, number: int, value: int) -> None:
            slot = bank.slot_of(number // 32)
            if slot is not None:
                bank.priority[32 * slot + number % 32] = value
                bank.changed(slot)

        self.reader, self.writer = read, write


class Edges(View):
    """Two bits for each interrupt, of which the higher says that it is an edge."""

    def __init__(self, offset: int, state: States, *, count: int, mask: int = 0xFFFF_FFFF) -> None:
        super().__init__(offset, RW, "edges: two bits for each interrupt", count=count, mask=mask)

        def read(bank: InterruptBank, index: int) -> int:
            slot = bank.slot_of(index // 2)
            return 0 if slot is None else edges_of(bank.edge[slot], index % 2)

        def write(bank: InterruptBank, index: int, value: int) -> None:
            slot = bank.slot_of(index // 2)
            if slot is not None:
                bank.change_word(state, index // 2, clear=~0, put=with_edges(bank.edge[slot], index % 2, value))

        self.reader, self.writer = read, write


class InterruptBank(Device):
    """Slots of interrupts. Subclasses declare the states, and say to whom interrupts go and who has to look then."""

    group: States
    enabled: States
    latched: States  # pending by an edge, by software
    level: States  # the inputs
    active: States
    edge: States
    priority: States  # 32 for each slot

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self.shared: Shared | None = None  # with native code, which then knows what is offered
        self._first_shared = 0  # the slot there that the first one here is
        self._wires: list[tuple[int, int, Line]] = []
        self._offers: dict[int, dict[int, Offer]] = {}  # of slots that have some: 2 * CPU + group, what
        self._best_of: dict[int, Offer] = {}  # of all slots

    def _first(self, slot: int) -> int:
        """The number of a slot's first interrupt."""
        raise NotImplementedError

    def _cpus(self, slot: int, bit: int) -> int:
        """The CPUs that an interrupt may go to, as a mask."""
        raise NotImplementedError

    def _look(self, cpus: int) -> None:
        """What these CPUs are offered may have changed."""
        raise NotImplementedError

    def resolve(self) -> None:
        """Have native code look, and set the lines that are different."""
        raise NotImplementedError

    def slot_of(self, word: int) -> int | None:
        """The slot that word `word` of a register is about, for whoever accesses it; None: there is no such."""
        raise NotImplementedError

    def fixed(self, state: str, word: int) -> int:
        """Bits of a word of a state that software cannot change."""
        del state, word
        return 0

    # Inputs

    def _drive(self, slot: int, bit: int, *, level: bool) -> None:
        if level and self.edge[slot] >> bit & 1:
            self.latched[slot] |= 1 << bit
        self.level[slot] = self.level[slot] & ~(1 << bit) | level << bit
        self.changed(slot)

    def _input(self, slot: int, bit: int, name: str) -> Line:
        def changed(level: bool) -> None:
            self._drive(slot, bit, level=level)

        line = Line(name, changed)
        self._wires.append((slot, bit, line))
        return line

    def _take_inputs(self) -> None:
        """After a reset: inputs stay as they are."""
        for slot, bit, line in self._wires:
            self.level[slot] |= line.level << bit

    # What is offered

    def pending(self, slot: int) -> int:
        """What is latched, and levels."""
        return self.latched[slot] | self.level[slot] & ~self.edge[slot]

    def _refresh(self, slot: int) -> int:
        """Look at a slot again; the CPUs that this may be of interest to. Native code finds them itself."""
        if self.shared:
            return 0
        wanted = self.pending(slot) & self.enabled[slot] & ~self.active[slot]
        before = self._offers.get(slot, {})
        if not wanted and not before:
            return 0
        offers: dict[int, Offer] = {}
        first = self._first(slot)
        for bit in bits(wanted):
            offer = self.priority[32 * slot + bit], first + bit
            group = self.group[slot] >> bit & 1
            for cpu in bits(self._cpus(slot, bit)):
                key = 2 * cpu + group
                if offer < offers.get(key, NOTHING):
                    offers[key] = offer
        if offers:
            self._offers[slot] = offers
        else:
            self._offers.pop(slot, None)
        affected = 0
        for key in {*offers, *before}:
            if offers.get(key) != before.get(key):
                self._best_of[key] = min((there.get(key, NOTHING) for there in self._offers.values()), default=NOTHING)
                affected |= 1 << (key >> 1)
        return affected

    def _refresh_all(self, slots: range) -> None:
        if self.shared:
            self.shared.adopt(self.__dict__, self._first_shared)
            return
        self._offers.clear()
        self._best_of.clear()
        for slot in slots:
            self._refresh(slot)

    def changed(self, slot: int) -> None:
        """Something about a slot's interrupts is different."""
        if self.shared:
            self.resolve()
        elif affected := self._refresh(slot):
            self._look(affected)

    def _change(self, which: list[int], slot: int, clear: int, put: int) -> None:
        """Bits of a slot of `which`."""
        which[slot] = which[slot] & ~clear | put
        self.changed(slot)

    def change_word(self, state: States, word: int, *, clear: int, put: int) -> None:
        """What software writes to a word of a state."""
        slot = self.slot_of(word)
        if slot is not None:
            may = ~self.fixed(state.name, word) & 0xFFFF_FFFF
            self._change(self.__dict__[state.name], slot, clear & may, put & may)

    # Acknowledged and ended: these leave it to the caller to have CPUs look

    def activate(self, slot: int, bit: int) -> int:
        """A CPU has taken an interrupt; the CPUs that this may be of interest to."""
        self.active[slot] |= 1 << bit
        self.latched[slot] &= ~(1 << bit)
        return self._refresh(slot)

    def deactivate(self, slot: int, bit: int) -> int:
        """A CPU is done with an interrupt; the CPUs that this may be of interest to."""
        self.active[slot] &= ~(1 << bit)
        return self._refresh(slot)

    def offer(self, key: int) -> Offer:
        """The most urgent interrupt for 2 * CPU + group."""
        return self._best_of.get(key, NOTHING)
