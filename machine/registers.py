"""Registers, declared once: from a declaration follow reset, checks, storage, snapshot, trace, page and fuzz test.

    class PL031(Device):
        WINDOW = Window(0x1000)                                  # what the bus sees
        RTCDR = Register(0x000, RO, "seconds")
        RTCIMSC = Register(0x010, RW, "mask", mask=1)

        @RTCDR.on_read
        def _seconds(self) -> int: ...                           # instead of the stored value

        @RTCIMSC.after_write
        def _update(self) -> None: ...                           # the new value is stored already

In an instance `self.RTCIMSC` is the stored value. `on_write(self, value)` takes the written value instead of the store.
Functions of register arrays (Registers) get the index in front. Who makes the access is in `self.attributes`. What is
not stored but shown and changed by functions is a View, of one register or of `count`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, overload

from dbt.machine.errors import MapError
from dbt.machine.memory import AccessSizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RO, WO, RW = "RO", "WO", "RW"
F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")
WORDS = AccessSizes((1, 4), (1, 4))
Fields = dict[str, int | tuple[int, int]]  # name: bit, or (highest bit, lowest bit)


class Declared(Generic[T]):
    """In the class the declaration, in an instance a T of this name: what saved states are made of."""

    if TYPE_CHECKING:
        # An instance has the value in its __dict__, which is why there is no __set__ at run time.
        def __set__(self, instance: object, value: T) -> None: ...

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> T: ...
        def __get__(self, instance: object | None, owner: type) -> Self | T: ...


class Named:
    """What knows its name in the class."""

    name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name


class Window(Named):
    """A range of offsets with registers in it, which a board places as a whole.

    `sizes`: what the bus gives; `partial`: whether software may access a part of a register, or several at once by
    parts. Whole registers next to each other may always be accessed together. `hole`: what reads of other offsets
    give. `placed`: False for registers that are reached in another way (an index and a data port, instructions), and
    `where` then says how an offset is written on the page.
    """

    def __init__(
        self,
        size: int,
        sizes: AccessSizes = WORDS,
        *,
        partial: bool = False,
        hole: int = 0,
        placed: bool = True,
        where: Callable[[int], str] = "{:#05x}".format,
    ) -> None:
        self.size = size
        self.sizes = sizes
        self.partial = partial
        self.hole = hole
        self.placed = placed
        self.where = where
        self.name = "WINDOW"


class AnyRegister(Named):
    """One register of `size` bytes at `offset`, or `count` of the same kind, `stride` bytes apart.

    `mask`: the bits that software may write (the default: all, none if RO); ones written elsewhere are logged as a
    guest's error unless they are what is stored there. `clear`: bits that are cleared by writing one.
    `unimplemented`: bits that the data sheet has and the device does not; ones written there are logged. `when`: for
    registers that share an offset. `exact`: only accesses at its offset and of its size reach it, others find what else
    is there (a data port whose second byte is another register). `partial`: software may access a part of this one,
    whatever its window says. `fields`: names of bits, for traces and the page.
    """

    stored: ClassVar[bool] = True

    def __init__(
        self,
        offset: int,
        access: str,
        doc: str = "",
        *,
        count: int = 1,
        stride: int = 0,
        size: int = 4,
        reset: int = 0,
        mask: int | None = None,
        clear: int = 0,
        unimplemented: int = 0,
        fields: Fields | None = None,
        when: Callable[[Any], bool] | None = None,
        exact: bool = False,
        window: Window | None = None,
        partial: bool = False,
    ) -> None:
        self.offset = offset
        self.access = access
        self.doc = doc
        self.count = count
        self.many = count > 1
        self.stride = stride or size
        self.size = size
        self.bits = 8 * size
        self.all = (1 << 8 * size) - 1
        self.reset = reset
        self.mask = (0 if access == RO else self.all & ~clear) if mask is None else mask
        self.clear = clear
        self.unimplemented = unimplemented
        self.fields = fields or {}
        self.when = when
        self.exact = exact
        self.window = window
        self.partial = partial
        self.reader: Callable[..., int] | None = None
        self.writer: Callable[..., None] | None = None
        self.after: Callable[..., None] | None = None
        if (reset | self.mask | clear | unimplemented) & ~self.all or reset < 0:
            raise MapError(f"the register at {offset:#x} has bits beyond its {size} bytes")

    def on_read(self, function: F) -> F:
        """The value is what this function returns."""
        self.reader = function
        return function

    def on_write(self, function: F) -> F:
        """Writes call this function with the whole value; it stores what is to be stored."""
        self.writer = function
        return function

    def after_write(self, function: F) -> F:
        """Writes are stored, then this function is called."""
        self.after = function
        return function

    def text(self, value: int) -> str:
        """`value` as people read it: the number and what its fields say."""
        words = []
        for name, bits in self.fields.items():
            if isinstance(bits, int):
                if value >> bits & 1:
                    words.append(name)
            elif part := value >> bits[1] & (2 << bits[0] - bits[1]) - 1:
                words.append(f"{name}={part:#x}")
        return f"{value:#0{2 * self.size + 2}x}{' ' + ' '.join(words) if words else ''}"

    def label(self, index: int) -> str:
        """The name in traces."""
        return f"{self.name}{index}" if self.many else self.name

    def initial(self) -> int | list[int]:
        """What an instance has after a reset."""
        return [self.reset] * self.count if self.many else self.reset


class Register(AnyRegister, Declared[int]):
    """One register; an instance has its value."""


class Registers(AnyRegister, Declared[list[int]]):
    """`count` registers; an instance has their values."""


class View(AnyRegister):
    """One register or several that functions show and change; an instance has no value of it, a saved state neither."""

    stored: ClassVar[bool] = False


class AnyState(Named):
    """What a device remembers and no register shows: numbers of `bits`, which are saved with the registers."""

    many: ClassVar[bool] = False
    count = 1

    def __init__(self, reset: int = 0, *, bits: int = 32) -> None:
        self.reset = reset
        self.bits = bits

    def initial(self) -> int | list[int]:
        """What an instance has after a reset."""
        return [self.reset] * self.count if self.many else self.reset


class State(AnyState, Declared[int]):
    """One number."""


class States(AnyState, Declared[list[int]]):
    """`count` numbers, as a list."""

    many: ClassVar[bool] = True

    def __init__(self, count: int, *, reset: int = 0, bits: int = 32) -> None:
        super().__init__(reset, bits=bits)
        self.count = count


class Fifo(Named, Declared[bytearray]):
    """Bytes in the order in which they came, at most `depth`: an instance has a bytearray."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    @staticmethod
    def initial() -> bytearray:
        """What an instance has after a reset."""
        return bytearray()


Place = tuple[AnyRegister, int, int]  # register, index, offset of its first byte


class Layout:
    """Where the registers of a window are: for each byte those that have it, in the order of declaration."""

    def __init__(self, owner: str, window: Window, registers: list[AnyRegister]) -> None:
        self.window = window
        self.registers = registers
        self.reads: dict[int, tuple[Place, ...]] = {}
        self.writes: dict[int, tuple[Place, ...]] = {}
        for register in registers:
            for index in range(register.count):
                start = register.offset + index * register.stride
                if start + register.size > window.size:
                    raise MapError(f"{owner}.{register.name} is beyond the end of {window.name}")
                for byte in range(start, start + register.size):
                    for places, wanted in ((self.reads, (RO, RW)), (self.writes, (WO, RW))):
                        if register.access in wanted:
                            self._add(owner, places, byte, (register, index, start))
        # Single registers that are alone at their offset: what reads find first.
        self.whole = {
            offset: (there[0][0], there[0][0].size)
            for offset, there in self.reads.items()
            if there[0][2] == offset and there[0][0].when is None and not there[0][0].many
        }

    @staticmethod
    def _add(owner: str, places: dict[int, tuple[Place, ...]], byte: int, place: Place) -> None:
        there = places.get(byte, ())
        for other, _, _ in there:
            if other.when is None and not other.exact:
                raise MapError(f"{owner}.{place[0].name} and {other.name} are both at {byte:#x}", "say `when`")
        places[byte] = (*there, place)

    def every(self) -> Iterator[tuple[int, AnyRegister]]:
        """(offset, register) of all."""
        for register in self.registers:
            for index in range(register.count):
                yield register.offset + index * register.stride, register
