"""On-disk structures: declared once, with the specification's field names, and read, written, shown and fuzzed by that.

    class QEDHeader(Structure, order="<"):
        # docs/interop/qed_spec: the header, one cluster at offset 0.
        magic = u32(only=(0x00444551,), form="hex")
        cluster_size = u32(minimum=4096, maximum=1 << 26)
        features = u64(bits={0: "backing file", 1: "need check"})
        reserved = raw(16)

    header = QEDHeader.parse(data, node.name, at=0)   # ImageCorrupt, with file and offset, if a value cannot be
    header.cluster_size                                # plain attributes
    data = header.pack()
    header.describe()                                  # [(name, offset in the structure, text)]
    QEDHeader.mutant(data, random)                     # data with one field set to something a parser has to survive

Offsets follow from the order of the fields: there is no padding but what is declared.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from dbt.machine.block.errors import ImageCorrupt

if TYPE_CHECKING:
    from random import Random


class Field:
    """One field: how it is packed, what it may be, and how it is shown."""

    __slots__ = ("bits", "code", "default", "form", "maximum", "minimum", "name", "offset", "only", "size")

    def __init__(self, code: str, default: int | bytes, form: str) -> None:
        self.code = code
        self.size = struct.calcsize("<" + code)
        self.default = default
        self.form = form
        self.minimum: int | None = None
        self.maximum: int | None = None
        self.only: tuple[int | bytes, ...] = ()
        self.bits: dict[int, str] = {}
        self.name = ""
        self.offset = 0

    def wrong(self, value: Any) -> str:  # noqa: ANN401 - int or bytes, as the code has it
        """Why `value` cannot be here; empty if it can."""
        if self.only and value not in self.only:
            return f"{self.name} is {self.text(value)}, not {' or '.join(self.text(v) for v in self.only)}"
        if self.minimum is not None and value < self.minimum:
            return f"{self.name} is {self.text(value)}, below {self.text(self.minimum)}"
        if self.maximum is not None and value > self.maximum:
            return f"{self.name} is {self.text(value)}, above {self.text(self.maximum)}"
        return ""

    def text(self, value: Any) -> str:  # noqa: ANN401 - as above
        """`value` as people read it."""
        if isinstance(value, bytes):
            return repr(value.rstrip(b"\0"))[2:-1] if self.form == "text" else value.hex()
        if self.bits:
            names = [self.bits.get(n, f"bit {n}") for n in range(value.bit_length()) if value >> n & 1]
            return f"{value:#x} ({', '.join(names)})" if names else "0x0"
        return f"{value:#x}" if self.form == "hex" else str(value)


def _number(
    code: str, default: int, form: str, minimum: int | None, maximum: int | None, only: tuple[int, ...],
    bits: dict[int, str] | None,
) -> int:  # fmt: skip
    field = Field(code, default or (only[0] if only else 0), form)
    field.minimum, field.maximum, field.only, field.bits = minimum, maximum, only, bits or {}
    return cast("int", field)  # an instance has the number there


def u8(
    default: int = 0, *, form: str = "", minimum: int | None = None, maximum: int | None = None,
    only: tuple[int, ...] = (), bits: dict[int, str] | None = None,
) -> int:  # fmt: skip
    """A byte. `only`: the values that it may have; `form="hex"`; `bits`: names of the bits, for flags."""
    return _number("B", default, form, minimum, maximum, only, bits)


def u16(
    default: int = 0, *, form: str = "", minimum: int | None = None, maximum: int | None = None,
    only: tuple[int, ...] = (), bits: dict[int, str] | None = None,
) -> int:  # fmt: skip
    """16 bits without sign."""
    return _number("H", default, form, minimum, maximum, only, bits)


def u32(
    default: int = 0, *, form: str = "", minimum: int | None = None, maximum: int | None = None,
    only: tuple[int, ...] = (), bits: dict[int, str] | None = None,
) -> int:  # fmt: skip
    """32 bits without sign."""
    return _number("I", default, form, minimum, maximum, only, bits)


def u64(
    default: int = 0, *, form: str = "", minimum: int | None = None, maximum: int | None = None,
    only: tuple[int, ...] = (), bits: dict[int, str] | None = None,
) -> int:  # fmt: skip
    """64 bits without sign."""
    return _number("Q", default, form, minimum, maximum, only, bits)


def raw(size: int, default: bytes = b"", *, form: str = "", only: tuple[bytes, ...] = ()) -> bytes:
    """Bytes as they are, a UUID or a name: `form="text"` shows them as text up to the zeroes at the end."""
    field = Field(f"{size}s", (default or (only[0] if only else b"")).ljust(size, b"\0"), form)
    field.only = only
    return cast("bytes", field)


class Structure:
    """The base of all declarations; see the module. `order` is `<` or `>`."""

    FIELDS: ClassVar[tuple[Field, ...]] = ()
    SIZE: ClassVar[int] = 0
    _struct: ClassVar[struct.Struct]

    def __init_subclass__(cls, *, order: str) -> None:
        fields = list(cls.FIELDS)  # a subclass goes on where its base ended
        at = cls.SIZE
        for name, field in vars(cls).items():
            if isinstance(field, Field):
                field.name, field.offset = name, at
                at += field.size
                fields.append(field)
        cls.FIELDS, cls.SIZE = tuple(fields), at
        cls._struct = struct.Struct(order + "".join(field.code for field in fields))

    def __init__(self, **values: int | bytes) -> None:
        for field in self.FIELDS:
            setattr(self, field.name, values.pop(field.name, field.default))
        if values:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(values)}")

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview, file: str, at: int = 0, *, start: int = 0) -> Self:
        """The structure at `start` of `data`, which came from offset `at` of `file` (for errors only)."""
        if len(data) - start < cls.SIZE:
            reason = f"{cls.__name__} is cut off: {cls.SIZE} bytes, {max(len(data) - start, 0)} are there"
            raise ImageCorrupt(file, reason, offset=at)
        found = cls.__new__(cls)
        for field, value in zip(cls.FIELDS, cls._struct.unpack_from(data, start), strict=True):
            if why := field.wrong(value):
                raise ImageCorrupt(file, f"{cls.__name__}.{why}", offset=at + field.offset)
            setattr(found, field.name, value)
        return found

    def pack(self) -> bytes:
        """The bytes on the disk."""
        return self._struct.pack(*(getattr(self, field.name) for field in self.FIELDS))

    def describe(self) -> list[tuple[str, int, str]]:
        """(name, offset in the structure, value as text) of each field, for `info --verbose`."""
        return [(field.name, field.offset, field.text(getattr(self, field.name))) for field in self.FIELDS]

    def values(self) -> dict[str, int | str]:
        """Fields and values, as JSON has them."""
        pairs = ((field, getattr(self, field.name)) for field in self.FIELDS)
        return {field.name: value if isinstance(value, int) else field.text(value) for field, value in pairs}

    @classmethod
    def mutant(cls, data: bytes, random: Random) -> bytes:
        """`data` with one field changed to a value at which parsers trip: limits, neighbours, single bits, noise."""
        field = random.choice(cls.FIELDS)
        old = int.from_bytes(data[field.offset : field.offset + field.size], "big")
        top = (1 << 8 * field.size) - 1
        values = [
            0,
            1,
            top,
            top >> 1,
            (top >> 1) + 1,
            old ^ 1 << random.randrange(8 * field.size),
            random.randint(0, top),
        ]
        values += [(old + 1) & top, (old - 1) & top, old << 1 & top, old >> 1, 1 << random.randrange(8 * field.size)]
        new = random.choice(values).to_bytes(field.size, random.choice(("big", "little")))
        return data[: field.offset] + new + data[field.offset + field.size :]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.pack() == other.pack()

    __hash__ = None  # type: ignore[assignment]  # structures change

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, _, text in self.describe())})"
