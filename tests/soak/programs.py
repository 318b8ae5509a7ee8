"""Random programs with structure: straight lines, branches forward, counted loops, calls, accesses; one from a number.

Instructions are random words of the tables' forms. Some registers have *roles*, other ones in each program: pointers
into scratch memory, an index, loop counters, a scratch register for branches, a link. Only what has to do with a role
writes its register (dbt/engine/places.py knows what an instruction writes), so most programs end; one that does not is
stopped by the reference engine, and is left out. Functions call only those behind them; they stand in front of the
program, so that nothing goes on behind its end. That is a system call, mostly; some end with another stop, or earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Final

from dbt.frontends.a64.guest import GUEST

from dbt.engine.places import Places
from tests.differential.case import CODE, DATA, DATA_MIDDLE, DATA_SIZE, GENERAL, VECTORS, Case
from tests.differential.generate import ALIGNED_OPS, MEMORY_OPS, integer, vector

from .words import foreign, names_of, retarget

if TYPE_CHECKING:
    from dbt.frontends.forms import Form

SLOT: Final = 0x200  # bytes for one program; what it does not use is nops
SLOTS: Final = 64  # programs that are in memory at the same time, one after the other
MOST: Final = 84  # words of a program, about
SIZES: Final = (1, 2, 3, 6, 10, 16, 24)  # items of the body: most are small, since what LLVM takes grows with them
WEIGHTS: Final = (32, 30, 24, 6, 4, 3, 1)
LONG: Final = 6  # items from which on a program is no short one
MASK64: Final = (1 << 64) - 1
BAD_POINTERS: Final = (
    0x0020_0000, DATA + DATA_SIZE - 4, DATA - 8, CODE + 0x8000, 0xFFFF << 48 | DATA, 1 << 50 | DATA,
    0xA5 << 56 | DATA_MIDDLE,
)  # fmt: skip
CLREX: Final = 0xD503305F
UNDEFINED_WORD: Final = 0
TRIES: Final = 60
PLACES: Final = Places(GUEST)
_LEAVING: Final = {"goto", "goto_if", "goto_indirect", "exit", "exit_if"}
_OWN: Final = {"MRS_CNTVCT", "DC_ZVA"}  # time goes on; its base is no Rn
_WEIGHTS: Final = {  # of the modules with accesses
    "loads": 30, "load_pairs": 16, "loads_vector": 14, "atomics": 12, "exclusive": 10, "simd_load_single": 5,
    "simd_load_multiple": 5,
}  # fmt: skip
_INTEGER: Final = ("data_register", "data_immediate", "data_source")


@dataclass(frozen=True, slots=True)
class Program:
    """`outside`: whether Unicorn may be asked, too."""

    case: Case
    outside: bool


@cache
def pools() -> tuple[list[int], list[int], list[bytes]]:
    """Values of general and vector registers, and contents of scratch memory, to choose from: the same ones always."""
    random = Random("values of programs")
    blocks = [random.randbytes(DATA_SIZE) for _ in range(8)]
    return [integer(random) for _ in range(2048)], [vector(random) for _ in range(2048)], blocks


@cache
def _forms() -> tuple[dict[str, list[Form]], dict[str, list[Form]], list[Form]]:
    """Forms by kind (`integer`, `vector`, `system`); forms with accesses by module; stores to a monitor."""
    plain: dict[str, list[Form]] = {"integer": [], "vector": [], "system": []}
    memory: dict[str, list[Form]] = {module: [] for module in _WEIGHTS}
    stores: list[Form] = []
    for form in GUEST.forms[1:]:
        module = form.row.function.__module__.rpartition(".")[2]
        names = names_of(form)
        if names & _LEAVING or form.group in _OWN:
            continue
        if "store_exclusive" in names:
            stores.append(form)
        elif names & MEMORY_OPS:
            memory[module].append(form)
        else:
            plain["integer" if module in _INTEGER else "system" if module == "system" else "vector"].append(form)
    return plain, memory, stores


def _exclusive_bits(form: Form) -> int:
    """The width of a form's exclusive access, 0: it has none."""
    for op in form.template.ops:
        if op.name == "load_exclusive":
            assert op.type is not None
            return op.type.width
        if op.name == "store_exclusive":
            return op.args[1].type.width
    return 0


class Writer:
    """Writes one program. `short`: loops, branches and functions have few items."""

    def __init__(self, random: Random, *, short: bool) -> None:
        self.random: Final = random
        self.short: Final = short
        self.words: Final[list[int]] = []
        self.outside = True
        roles = random.sample(range(30), 11)
        self.pointers: Final = roles[:3]
        self.base, self.index, self.scratch, self.link = roles[3:7]
        self.counters: Final = roles[7:11]
        self.uses_sp: Final = random.random() < 0.5  # as a pointer
        self.roles: Final = {*roles, 30}
        self.free: Final = [number for number in range(31) if number not in self.roles]
        self._kept: Final = sum(self._unit(number) for number in (*self.roles, *([31] if self.uses_sp else [])))
        self.vectors: Final = random.choice((0.05, 0.3, 0.6))  # how many of the instructions are of vectors
        self._calls: Final[list[tuple[int, str, int]]] = []  # (index, kind, function) to be filled in
        self._function = -1  # that is being written

    @staticmethod
    def _unit(register: int) -> int:
        """The set that is one register; 31: SP."""
        unit = PLACES.unit(GUEST.registers["sp" if register == 31 else f"x{register}"][0])
        assert unit is not None
        return 1 << unit.number

    def put(self, *words: int) -> None:
        """Append words that are known to be harmless."""
        self.words.extend(words)

    def _try(self, form: Form, word: int, kept: int) -> bool:
        """Append a word if it is one of the form and writes nothing of `kept`."""
        decoded = GUEST.tables.decode(word, CODE)
        if decoded.form is not form or PLACES.of(decoded)[1] & kept:
            return False
        if self.outside and foreign(form, word):
            if self.random.random() < 0.97:
                return False
            self.outside = False
        self.words.append(word)
        return True

    # single instructions
    def plain(self) -> None:
        """One that computes."""
        random = self.random
        kind = random.random()
        if random.random() < 0.08:
            self.constant()
            return
        forms = _forms()[0]["vector" if kind < self.vectors else "system" if kind > 0.98 else "integer"]
        for _ in range(TRIES):
            form = random.choice(forms)
            if self._try(form, form.value | random.getrandbits(32) & ~form.mask, self._kept):
                return

    def constant(self) -> None:
        """A value that an optimizer knows."""
        random = self.random
        opcode = random.choice((0x92800000, 0xD2800000, 0x52800000))  # movn, movz, movz w
        shift = random.choice((0, 0, 0, 1)) << 21
        immediate = random.choice((0, 0, 1, 0xFF, 0x7FFF, 0x8000, 0xFFFF, random.getrandbits(16)))
        self.put(opcode | shift | immediate << 5 | random.choice(self.free))

    def _point(self, register: int, *, aligned: bool) -> None:
        """Have a pointer (31: SP) point somewhere near the middle of scratch memory."""
        random = self.random
        if random.random() < 0.03:
            self.put(0xD2A00000 | random.choice((0x20, 0x40)) << 5 | self.scratch)  # movz: unmapped, code
            self.put(0x91000000 | self.scratch << 5 | register)
            return
        offset = 16 * random.randrange(256) if aligned or random.random() < 0.5 else random.randrange(4096)
        self.put((0x91000000, 0xD1000000)[random.randrange(2)] | offset << 10 | self.base << 5 | register)

    def access(self) -> None:
        """A load, a store, or both."""
        random = self.random
        module = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        for _ in range(TRIES):
            form = random.choice(_forms()[1][module])
            aligned = bool(names_of(form) & ALIGNED_OPS)
            if "Rn" not in form.row.pattern.fields:
                target = random.randrange(SLOT // 4) - len(self.words)
                if self._try(form, form.value | (target & 0x7FFFF) << 5 | random.randrange(32), self._kept):
                    return
                continue
            base = random.choice([*self.pointers, *([31] if self.uses_sp else [])])
            before = len(self.words)
            if aligned or random.random() < 0.25:
                self._point(base, aligned=aligned)
            if self._try(form, self._addressed(form, base), self._kept & ~self._unit(base)):
                break
            del self.words[before:]
        else:
            return
        if "load_exclusive" in names_of(form):
            self._store_exclusive(form, base)

    def _addressed(self, form: Form, base: int) -> int:
        """A random word of a form whose base register is `base`."""
        random = self.random
        word = form.value | random.getrandbits(32) & ~form.mask
        for name, (low, width) in form.row.pattern.fields.items():
            mask = (1 << width) - 1 << low
            number = word >> low & (1 << width) - 1
            if name == "Rn":
                number = base
            elif name == "Rm":
                number = self.index
            elif name in ("Rt", "Rt2", "Rs") and width == 5 and random.random() < 0.06:
                number = 31
            elif name in ("Rt", "Rt2", "Rs") and width == 5 and number in self.roles:
                number = random.choice(self.free)
            elif name == "imm12" and random.random() < 0.95:
                number &= 0xFF
            word = word & ~mask | number << low
        return word

    def _store_exclusive(self, load: Form, base: int) -> None:
        """What belongs behind a load that armed the monitor."""
        random = self.random
        for _ in range(random.choice((0, 0, 1, 2))):
            self.plain()
        if random.random() < 0.2:
            return
        for _ in range(TRIES):
            form = random.choice(_forms()[2])
            if _exclusive_bits(form) != _exclusive_bits(load):
                continue  # QEMU does not compare sizes
            if self._try(form, self._addressed(form, base), self._kept & ~self._unit(base)):
                return

    # structure
    def _some(self, most: int) -> int:
        """How many items stand inside something."""
        return self.random.randint(1, 2 if self.short else most)

    def body(self, size: int, depth: int) -> None:
        """About `size` items."""
        random = self.random
        for _ in range(size):
            if len(self.words) > MOST:
                return
            kind = random.random()
            if kind < 0.62:
                self.plain()
            elif kind < 0.82:
                self.access()
            elif kind < 0.90:
                self.branch(depth)
            elif kind < 0.94 and depth < 2:
                self.loop(depth)
            elif kind < 0.97 and self._function < 1:
                self.call()
            elif kind < 0.98:
                self.put(0xD2A00000 | random.randrange(4) << 11 | self.scratch)  # movz scratch, #RMode, lsl 16
                self.put(0xD51B4400 | self.scratch)  # msr fpcr, scratch
            else:
                self.plain()

    def branch(self, depth: int) -> None:
        """Over some items, forward: conditional, not so, or through a register."""
        random = self.random
        kind, register = random.randrange(7), random.randrange(32)
        start = len(self.words)
        if kind < 3:
            word = 0x54000000 | random.randrange(16)  # b.cond
        elif kind == 3:
            word = 0x34000000 | random.getrandbits(1) << 31 | random.getrandbits(1) << 24 | register  # cbz, cbnz
        elif kind == 4:
            word = 0x36000000 | random.getrandbits(1) << 31 | random.getrandbits(6) << 19 & 0x1F80000 | register  # tbz
        elif kind == 5:
            word = 0x14000000  # b
        else:
            self.put(0x10000000 | self.scratch)  # adr
            word = random.choice((0xD61F0000, 0xD65F0000)) | self.scratch << 5  # br, ret
        self.put(word)
        if random.random() < 0.08:
            self.put(0xD4000001 | random.getrandbits(16) << 5)  # svc: an early end
        else:
            self.body(self._some(4), depth)
        self.words[start] = retarget(self.words[start], len(self.words) - start)

    def loop(self, depth: int) -> None:
        """Some rounds."""
        random = self.random
        counter = self.counters[depth if self._function < 0 else 2 + self._function]
        self.put(0xD2800000 | random.choice((1, 2, 2, 3, 5)) << 5 | counter)  # movz
        start = len(self.words)
        kind = random.randrange(5)
        if kind == 4:
            self.put(0xB4000000 | counter)  # cbz counter, behind
        self.body(self._some(5), depth + 1 if self._function < 0 else 2)
        back = start - len(self.words) - 1
        if kind == 0:
            self.put(0xF1000400 | counter << 5 | counter, retarget(0x54000001, back))  # subs; b.ne
        elif kind == 1:
            self.put(0xD1000400 | counter << 5 | counter, retarget(0xB5000000 | counter, back))  # sub; cbnz
        elif kind == 2:
            self.put(0x71000400 | counter << 5 | counter, retarget(0x5400000C, back))  # subs w; b.gt
        elif kind == 3:
            self.put(0xD1000400 | counter << 5 | counter, retarget(0xB6F80000 | counter, back))  # sub; tbz #63
        else:
            self.put(0xD1000400 | counter << 5 | counter, retarget(0x14000000, back))  # sub; b
            self.words[start] = retarget(self.words[start], len(self.words) - start)

    def call(self) -> None:
        """A call to a function behind this one."""
        function = self.random.randrange(self._function + 1, 2)
        if self.random.random() < 0.7:
            self._calls.append((len(self.words), "bl", function))
            self.put(0x94000000)
        else:
            self._calls.append((len(self.words), "adr", function))
            self.put(0x10000000 | self.scratch, 0xD63F0000 | self.scratch << 5)  # adr; blr

    def functions(self) -> int:
        """Put those that are called in front of what there is; how many words these are."""
        random, main = self.random, len(self.words)
        starts: dict[int, int] = {}
        for number in range(2):
            if all(call[2] != number for call in self._calls):
                continue
            self._function = number
            starts[number], before = len(self.words), len(self._calls)
            self.put(0xAA1E03E0 | self.link) if number == 0 else None  # mov link, x30
            self.body(self._some(6), 1)
            through = 30
            if len(self._calls) > before:
                if random.random() < 0.5:
                    self.put(0xAA0003FE | self.link << 16)  # mov x30, link
                else:
                    through = self.link
            self.put(random.choice((0xD65F0000, 0xD65F0000, 0xD61F0000)) | through << 5)  # ret, br
        everything = len(self.words)
        for at, _, called in self._calls:
            back = everything if at < main else 0
            self.words[at] = retarget(self.words[at], starts[called] - at - back)
        self.words[:] = self.words[main:] + self.words[:main]
        return everything - main

    def registers(self) -> dict[str, int]:
        """What they hold at the start."""
        random = self.random
        integers, vectors, _ = pools()
        values = dict(zip(GENERAL, random.choices(integers, k=31), strict=True))
        values.update(zip(VECTORS, random.choices(vectors, k=32), strict=True))
        for pointer in self.pointers:
            values[f"x{pointer}"] = DATA_MIDDLE + 16 * random.randrange(DATA_SIZE // 64)
        values[f"x{self.base}"] = DATA_MIDDLE
        near = random.randrange(-64, 64) * random.choice((1, 8, 16)) & MASK64
        values[f"x{self.index}"] = near if random.random() < 0.95 else random.getrandbits(40)
        values["sp"] = DATA_MIDDLE + 16 * random.randrange(64)
        values["nzcv"] = random.getrandbits(4) << 28
        values["fpcr"] = random.choice((0, 0, 0, 1, 2, 3)) << 22
        values["fpsr"] = random.choice((0, 0, 0x0800_0000, 0x1, 0x10))
        values["tpidr_el0"] = random.getrandbits(48)
        if random.random() < 0.06:
            bad = random.choice(BAD_POINTERS)
            values[f"x{random.choice(self.pointers)}"] = bad
            self.outside &= bad < 1 << 56  # Unicorn does not ignore the top byte
        return values


def program(seed: int) -> Program:
    """The program of a number."""
    random = Random(f"program {seed}")
    size = random.choices(SIZES, WEIGHTS)[0]
    writer = Writer(random, short=size < LONG)
    writer.put(CLREX)  # Unicorn's monitor may still be armed
    writer.body(size, 0)
    kind = random.random()
    writer.put(
        0xD4000001 | random.getrandbits(16) << 5  # svc
        if kind < 0.94 else 0xD4200000 | random.getrandbits(16) << 5  # brk
        if kind < 0.97 else UNDEFINED_WORD
    )  # fmt: skip
    before = writer.functions()
    values = writer.registers()
    start = CODE + seed % SLOTS * SLOT + 4 * before
    case = Case(tuple(writer.words), values, random.choice(pools()[2]), f"program {seed}", start, before=before)
    return Program(case, writer.outside)
