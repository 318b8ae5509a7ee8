"""Every form that accesses memory, in every way in which that can fault, on every native engine against the reference.

Compared are the reason, the PC, the address, the kind of access and all registers at the fault; then the base register
is mended, the program goes on, and its end is compared as well. What a store leaves behind may differ in the bytes that
it is aimed at: each is the old one or the new one, as the architecture has it for an access that is not one.

`superinstructions` is the interpreter once more, with everything hot: each program has run to its end before, so that
its access is in the middle of a superinstruction.

DRAGOMAN_FAULT_ENGINES (default: all of them) and -k MODULE choose; DRAGOMAN_DIFF_SEED takes other programs. To try what
the optimizer does: DRAGOMAN_FAULT_ENGINES=optimizer pytest tests/differential/test_faults.py
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64 import state
from dbt.frontends.a64.guest import GUEST

from dbt.engine import formats, layout
from dbt.engine.cache import open_store
from dbt.engine.cpu import Cpu
from dbt.engine.hostmem import PROT_EXEC, PROT_READ, PROT_WRITE
from dbt.engine.interpreter import Interpreter
from dbt.engine.optimizer import Optimizer

from .case import REGISTERS
from .conftest import SEED
from .engines import Registers
from .faulting import (
    CODE,
    FIELD,
    GOOD,
    GOOD_SIZE,
    PAGE,
    PAGES,
    SVC,
    Access,
    Placement,
    Program,
    aliases,
    armed,
    memory_forms,
    monitor,
    placements,
    program_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.frontends.forms import Form

CHOSEN = os.environ.get("DRAGOMAN_FAULT_ENGINES", "interpreter,superinstructions,baseline,optimizer").split(",")
MODULES = [module for module in GUEST.modules if memory_forms(module)]
PROTECTION = {"-": 0, "r": PROT_READ, "rw": PROT_READ | PROT_WRITE, "rx": PROT_READ | PROT_EXEC}
SHOWN = 6
SUPERINSTRUCTIONS = "superinstructions"
LITERAL = 0x4_0000  # how far behind the code the literals of a literal's program are


@dataclass(frozen=True, slots=True)
class Stop:
    """All that can be seen of a guest that has stopped."""

    reason: str
    pc: int
    address: int
    write: bool
    registers: dict[str, int]
    monitor: bytes
    memory: bytes


class Machine:
    """One CPU with the pages of faulting.PAGES; runs programs on its own engine and on the reference."""

    def __init__(self, engine: str, address_bits: int | None = None) -> None:
        self.joined = engine == SUPERINSTRUCTIONS
        name = "interpreter" if self.joined else engine
        self.cpu = cpu = Cpu("aarch64", name, open_store(quiet=True), address_bits=address_bits)
        cpu.keep_flags(on=True)
        assert cpu.baseline is not None
        self.native = cpu.baseline
        if engine in ("optimizer", SUPERINSTRUCTIONS):
            self.native.ctx.threshold = 0  # every block is hot; the optimizer makes a region of it before it runs
        self.limit = cpu.memory.limit
        last = self.limit - PAGE
        self.writable = [(0, PAGE), (GOOD, GOOD_SIZE), (last, PAGE)]
        self.writable += [(page, PAGE) for page, protection in PAGES if protection == "rw"]
        for page, size in self.writable[:3]:
            cpu.memory.map(page, size, PROTECTION["rw"])
        for page, protection in PAGES:
            cpu.memory.map(page, PAGE, PROTECTION[protection])
        self._filling = [Random(page).randbytes(size) for page, size in self.writable]
        self._registers = Registers(cpu.env_address)
        self._code = (0, 0)
        self.faults = self.joins = 0  # of forms that may be parts; and those in superinstructions

    def load(self, program: Program, place: int) -> None:
        """Put the words at an address, in pages that nothing else is in."""
        if self._code[1]:
            self.cpu.memory.unmap(*self._code)
        first = place & -PAGE
        self._code = first, (place + len(program.code) + PAGE - 1 & -PAGE) - first
        self.cpu.memory.map(*self._code, PROTECTION["rw"])
        self.cpu.memory.write(place, program.code)
        self.cpu.memory.protect(*self._code, PROTECTION["rx"])

    def set_up(self, program: Program, place: int, good: int, bad: int) -> None:
        """Registers and memory as they are before the first instruction."""
        for (page, _), data in zip(self.writable, self._filling, strict=True):
            self.cpu.memory.write(page, data)
        self._registers.set_all({**program.values, program.good: good, program.bad: bad})
        size = armed(program.form)
        for offset, data in monitor(bad, size).items() if size else ():
            ctypes.memmove(self.cpu.env_address + offset, data, len(data))
        self.cpu.env.pc = place

    def set_registers(self, values: dict[str, int], place: int) -> None:
        """All registers; those that are not named become 0."""
        self._registers.set_all(values)
        self.cpu.env.pc = place

    def accesses(self, program: Program, place: int) -> list[Access]:
        """What the access does, seen from its base register (or its own address), in good memory."""
        cpu, start = self.cpu, GOOD + GOOD_SIZE // 2
        found: list[tuple[bool, int, int]] = []

        def read(address: int, size: int) -> bytes:
            found.append((False, address, size))
            return bytes(size)

        def write(address: int, data: bytes) -> None:
            found.append((True, address, len(data)))

        cpu.bus.read, cpu.bus.write = read, write
        try:
            self.set_up(program, place, start, start)
            reason = cpu.interpret(None)
            if reason == layout.EXIT_ALIGNMENT:  # an offset that is not aligned needs such a base
                start -= (int(cpu.env.value) - start) % 16
                self.set_up(program, place, start, start)
                reason = cpu.interpret(None)
        finally:
            cpu.bus.read, cpu.bus.write = cpu.memory.read, cpu.memory.write
        assert reason == layout.EXIT_SYSCALL, layout.EXIT_NAMES[reason]
        rounds = program.values[program.count]
        base = start if program.base else place + 4 * program.access
        mask = (1 << 64) - 1
        return [
            Access(is_write, ((address - base + (1 << 63)) & mask) - (1 << 63), size)
            for is_write, address, size in found[len(found) * (rounds - 1) // rounds :]
        ]

    def stop(self, reason: int) -> Stop:
        """What can be seen now."""
        cpu = self.cpu
        memory = b"".join(cpu.memory.read(page, size) for page, size in self.writable)
        held = ctypes.string_at(cpu.env_address + state.EXCLUSIVE_ADDRESS, 32)
        fault = reason in (layout.EXIT_FAULT, layout.EXIT_BUS)
        value = int(cpu.env.value) if fault or reason == layout.EXIT_ALIGNMENT else 0
        values = self._registers.get_all()
        return Stop(
            layout.EXIT_NAMES[reason], int(cpu.env.pc), value, fault and cpu.faults.is_write(), values, held, memory
        )

    def run(self, program: Program, place: int, good: int, bad: int, *, reference: bool) -> list[Stop]:
        """Run to the fault; with the base register mended, run to the end."""
        cpu = self.cpu
        self.set_up(program, place, good, bad)
        if isinstance(self.native, Optimizer):
            self.native._broken.clear()  # or it gives up on addresses whose code changes all the time, as here
        stops = []
        for _ in range(2):
            stops.append(self.stop(cpu.interpret(None) if reference else cpu.run()))
            if not reference and cpu.engine == "optimizer" and not stops[1:]:
                self.check_region()
            if not reference and self.joined and not stops[1:] and program.base:
                self.check_superinstruction(program, place)
            if program.base:
                cpu.set_reg(program.base, good)
            else:
                cpu.env.pc += 4
        return stops

    def check_region(self) -> None:
        """The fault was one of a region's code, if it was one of the host's."""
        native = self.native
        if self.cpu.env.exit in (layout.EXIT_FAULT, layout.EXIT_BUS):
            assert native.ctx.regions <= self.cpu.env.fault_pc < native.ctx.regions_end

    def learn(self, form: Form, seed: str) -> None:
        """Have the form's program run to its end, so that its superinstructions are wanted."""
        program, place, good, *_ = next(tried(form, self, seed), (None, 0, 0))
        if program is not None and program.base:  # a literal's place is part of its key
            self.set_up(program, place, good, good)
            assert self.cpu.run() in (layout.EXIT_SYSCALL, layout.EXIT_ALIGNMENT)

    def learned(self) -> None:
        """Wait for what is wanted."""
        assert isinstance(self.native, Interpreter)
        if self.native.joiner is not None:
            self.native.joiner.finish()

    def check_superinstruction(self, program: Program, place: int) -> None:
        """The fault was one of a superinstruction's code, where the form may be a part of one."""
        ctx, env = self.native.ctx, self.cpu.env
        if env.exit not in (layout.EXIT_FAULT, layout.EXIT_BUS) or not GUEST.tables.metadata(program.form).part:
            return
        size = formats.SuperHead.at(ctx.supers).size if ctx.supers else 0  # none is loaded yet
        first = self.native.runtime.translate_at(self.cpu.env_address, place)
        steps = range(first, env.fault_pc + 1, layout.Step.size)
        self.faults += 1
        self.joins += any(ctx.supers <= layout.Step.at(step).handler < ctx.supers + size for step in steps)


@pytest.fixture(scope="module", params=CHOSEN)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    made = Machine(request.param)
    yield made
    made.cpu.close()


@pytest.fixture(scope="module", params=CHOSEN)
def small(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """One with a smaller range: what is behind its end has to be found out in another way."""
    made = Machine(request.param, 36)
    yield made
    made.cpu.close()


def differences(expected: list[Stop], found: list[Stop], targets: list[range], machine: Machine) -> Iterator[str]:
    """One line for each thing that differs. `targets`: guest addresses that a store may have reached or not."""
    for when, want, got in zip(("at the fault", "at the end"), expected, found, strict=True):
        for name in ("reason", "pc", "address", "write", "monitor"):
            if getattr(want, name) != getattr(got, name):
                yield f"{when}: {name}: expected {getattr(want, name)!r}, found {getattr(got, name)!r}"
        for name in REGISTERS:
            if want.registers[name] != got.registers[name]:
                yield f"{when}: {name}: expected {want.registers[name]:#x}, found {got.registers[name]:#x}"
        if want.memory != got.memory:
            yield from _memory(when, want.memory, got.memory, targets, machine)


def _memory(when: str, want: bytes, got: bytes, targets: list[range], machine: Machine) -> Iterator[str]:
    at = 0
    for page, size in machine.writable:
        for i in range(size) if want[at : at + size] != got[at : at + size] else ():
            if want[at + i] != got[at + i] and not any(page + i in target for target in targets):
                yield f"{when}: memory at {page + i:#x}: expected {want[at + i]:#x}, found {got[at + i]:#x}"
                return
        at += size


def tried(form: Form, machine: Machine, seed: str) -> Iterator[tuple[Program, int, int, Placement, list[Access]]]:
    """(program, where it lies, good address, placement, what it accesses) for all placements of a form."""
    program = program_of(form, Random(seed))
    assert program is not None, form.name
    place = CODE
    if not program.base:  # a literal
        word = program.words[program.access] & ~(0x7FFFF << 5) | (LITERAL // 4) << 5
        words = (*program.words[: program.access], word, *program.words[program.access + 1 :])
        program = replace(program, words=words)
    machine.load(program, place)
    accesses = machine.accesses(program, place)
    low = min(access.at for access in accesses)
    good = (GOOD + GOOD_SIZE // 2 - low & -16 if program.form.group == "DC_ZVA" else GOOD + GOOD_SIZE // 2 - low) & (
        (1 << 64) - 1
    )
    # Superinstructions have numbers for offsets as translated code does, and what is none of them is a plain handler.
    ways = {machine.cpu.engine == "interpreter", machine.cpu.engine == "interpreter" and not machine.joined}
    for placement in placements(form, accesses, machine.limit):
        if any(aliases(form, placement, accesses, machine.limit, sums=sums) for sums in ways):
            continue
        if program.base:
            yield program, place, good, placement, accesses
        elif not placement.base & 3 and FIELD - 2 * LITERAL < placement.base < FIELD:
            there = placement.base - 4 * program.access
            machine.load(program, there)
            yield program, there, good, placement, accesses


def check(form: Form, machine: Machine, seed: str) -> Iterator[str]:
    """What is wrong with the form's faults."""
    for program, place, good, placement, accesses in tried(form, machine, seed):
        bad = placement.base
        expected = machine.run(program, place, good, bad, reference=True)
        found = machine.run(program, place, good, bad, reference=False)
        starts = [(bad + access.at & (1 << 56) - 1, access.size) for access in accesses if access.write]
        targets = [range(start, start + size) for start, size in starts]
        if expected[0].reason not in {"fault", "bus", "alignment"}:
            yield f"{form.name}, {placement.name}: the reference does not fault but has {expected[0].reason}"
        for line in differences(expected, found, targets, machine):
            yield f"{form.name} {program.words[program.access]:#010x}, {placement.name}: {line}"


@pytest.mark.parametrize("module", MODULES)
def test_accesses(module: str, machine: Machine) -> None:
    numbers = [form.id * layout.VARIANTS for form in memory_forms(module)]
    machine.native.store.compile("aarch64", numbers, machine.native.job)  # what is missing, in one go
    wrong: dict[str, list[str]] = {}
    if machine.joined:
        for form in memory_forms(module):
            machine.learn(form, f"{SEED} {form.name}")
        machine.learned()
    for form in memory_forms(module):
        lines = list(check(form, machine, f"{SEED} {form.name}"))
        if lines:
            wrong[form.name] = lines
    assert machine.joins >= machine.faults * 0.95  # the others keep registers elsewhere at an access
    shown = [line for lines in list(wrong.values())[:SHOWN] for line in lines[:SHOWN]]
    assert not wrong, f"{len(wrong)} forms differ (seed {SEED!r})\n" + "\n".join(shown)


def test_accesses_in_a_smaller_range(small: Machine) -> None:
    """A form of each group."""
    forms = {form.group: form for module in MODULES for form in memory_forms(module)}
    wrong = [line for form in forms.values() for line in check(form, small, f"{SEED} small {form.name}")]
    assert not wrong, "\n".join(wrong[: SHOWN * SHOWN])


FETCHES = {
    "b": 0x14000000 | 0x400,
    "bl": 0x94000000 | 0x400,
    "b.eq": 0x54000000 | 0x400 << 5,
    "cbz": 0xB4000000 | 0x400 << 5 | 31,
    "tbz": 0x36000000 | 0x400 << 5 | 31,
    "br": 0xD61F0020,
    "blr": 0xD63F0020,
    "ret": 0xD65F0020,
    "falls through": 0xD503201F,
}
# Protection of the page behind the code's, in which the branches end; None: not mapped.
BEHIND = {"unmapped": None, "no access": "-", "data": "rw"}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("how", FETCHES)
def test_fetches(how: str, behind: str, machine: Machine) -> None:
    """Going to where nothing may be executed faults there, with everything in front of it done; then it goes on."""
    cpu = machine.cpu
    next_page = CODE + PAGE
    start = next_page - 8 if how == "falls through" else CODE
    target = next_page if how == "falls through" else CODE + 4 + PAGE
    stops: list[list[Stop]] = []
    for reference in (True, False):
        cpu.memory.unmap(CODE, 2 * PAGE)
        cpu.memory.map(CODE, PAGE, PROTECTION["rw"])
        cpu.memory.write(start, b"".join(word.to_bytes(4, "little") for word in (0x91000842, FETCHES[how])))
        cpu.memory.protect(CODE, PAGE, PROTECTION["rx"])
        protection = BEHIND[behind]
        if protection is not None:
            cpu.memory.map(next_page, PAGE, PROTECTION[protection])
        values = {"x1": target, "x2": 5, "nzcv": 1 << 30}
        machine.set_registers(values, start)
        found = [machine.stop(cpu.interpret(None) if reference else cpu.run())]
        cpu.memory.map(next_page, PAGE, PROTECTION["rw"])
        cpu.memory.write(target, SVC.to_bytes(4, "little"))
        cpu.memory.protect(next_page, PAGE, PROTECTION["rx"])
        found.append(machine.stop(cpu.interpret(None) if reference else cpu.run()))
        stops.append(found)
    expected, found = stops
    assert [(stop.reason, stop.pc) for stop in expected] == [("fetch", target), ("syscall", target + 4)]
    assert not list(differences(expected, found, [], machine))


WILD = (CODE + 2, CODE + PAGE - 1, 1 << 47 | CODE, 1 << 56 | CODE + PAGE, 0, (1 << 64) - 4, 1 << 46)


@pytest.mark.parametrize("how", ["br", "blr", "ret"])
@pytest.mark.parametrize(
    "target", [CODE + 2, CODE + PAGE - 1, 1 << 47 | CODE, 1 << 56 | CODE + PAGE, 0, (1 << 64) - 4, 1 << 46]
)
def test_fetches_at_wild_addresses(how: str, target: int, machine: Machine) -> None:
    """Misaligned, beyond the range, tagged (a branch drops the tag, AArch64.BranchAddr)."""
    cpu = machine.cpu
    stops = []
    for reference in (True, False):
        cpu.memory.unmap(CODE, 2 * PAGE)
        cpu.memory.map(CODE, PAGE, PROTECTION["rw"])
        cpu.memory.write(CODE, b"".join(word.to_bytes(4, "little") for word in (0x91000842, FETCHES[how])))
        cpu.memory.protect(CODE, PAGE, PROTECTION["rx"])
        machine.set_registers({"x1": target}, CODE)
        stops.append([machine.stop(cpu.interpret(None) if reference else cpu.run())] * 2)
    assert stops[0][0].reason == "fetch"
    assert not list(differences(stops[0], stops[1], [], machine))
