r"""A writer of AML (ACPI 6.4, chapter 20): each function is a term and returns its bytes.

    scope("\_SB", device("COM1", name("_HID", eisa_id("PNP0501")), name("_UID", 1)))

Numbers and texts stand for themselves; `path` is a name where one is used. Resource descriptors (6.4) are at the end.
"""

from __future__ import annotations

import struct

Term = bytes | int | str

ARG0, LOCAL0 = b"\x68", b"\x60"
PCI_CONFIG, SYSTEM_IO = 2, 1  # spaces of operation regions


def path(text: str) -> bytes:
    r"""A name: `\` is the root, `^` the parent, dots separate segments of up to four characters."""
    prefix = text[: len(text) - len(text.lstrip("\\^"))]
    segments = [segment.ljust(4, "_") for segment in text[len(prefix) :].split(".") if segment]
    if any(len(segment) > 4 or not segment.replace("_", "A").isalnum() for segment in segments):
        raise ValueError(f"{text!r} is no name in ACPI")
    count = len(segments)
    lead = b"\0" if not count else b"" if count == 1 else b"\x2e" if count == 2 else bytes((0x2F, count))
    return prefix.encode("ascii") + lead + "".join(segments).encode("ascii")


def integer(value: int) -> bytes:
    """A number in the shortest form."""
    if value < 2:
        return bytes((value,))
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if value < 1 << 8 * size:
            return bytes((prefix,)) + value.to_bytes(size, "little")
    raise ValueError(f"{value:#x} has more than 64 bits")


def term(value: Term) -> bytes:
    """A term, a number or a text."""
    if isinstance(value, int):
        return integer(value)
    return b"\x0d" + value.encode("ascii") + b"\0" if isinstance(value, str) else value


def _package_length(body: bytes) -> bytes:
    if len(body) + 1 < 0x40:
        return bytes((len(body) + 1,)) + body
    for more in (1, 2, 3):
        total = len(body) + 1 + more
        if total < 1 << 4 + 8 * more:
            return bytes((more << 6 | total & 0xF,)) + (total >> 4).to_bytes(more, "little") + body
    raise ValueError("a package of over 256 MiB")


def _block(opcode: bytes, *parts: Term) -> bytes:
    return opcode + _package_length(b"".join(map(term, parts)))


def scope(where: str, *terms: bytes) -> bytes:
    """More names in a place that is there."""
    return _block(b"\x10", path(where), *terms)


def device(called: str, *terms: bytes) -> bytes:
    """A device."""
    return _block(b"\x5b\x82", path(called), *terms)


def name(called: str, value: Term) -> bytes:
    """A named value."""
    return b"\x08" + path(called) + term(value)


def method(called: str, arguments: int, *terms: bytes, serialized: bool = False) -> bytes:
    """A method."""
    return _block(b"\x14", path(called), bytes((arguments | serialized << 3,)), *terms)


def package(*values: Term) -> bytes:
    """A list."""
    return _block(b"\x12", bytes((len(values),)), *values)


def buffer(data: bytes) -> bytes:
    """Bytes."""
    return _block(b"\x11", integer(len(data)), data)


def region(called: str, space: int, offset: int, length: int) -> bytes:
    """An operation region."""
    return b"\x5b\x80" + path(called) + bytes((space,)) + integer(offset) + integer(length)


def fields(of: str, *named: tuple[str, int], access: int = 1) -> bytes:
    """Names for (name, bits) of a region; `access` of 1: bytes."""
    units = b"".join(path(called) + _field_length(bits) for called, bits in named)
    return _block(b"\x5b\x81", path(of), bytes((access,)), units)


def _field_length(bits: int) -> bytes:
    if bits < 0x40:
        return bytes((bits,))
    return bytes((1 << 6 | bits & 0xF, bits >> 4))


def when(condition: bytes, *terms: bytes) -> bytes:
    """If."""
    return _block(b"\xa0", condition, *terms)


def give(value: Term) -> bytes:
    """Return."""
    return b"\xa4" + term(value)


def store(value: Term, target: bytes) -> bytes:
    """Store."""
    return b"\x70" + term(value) + target


def both(one: Term, other: Term, target: bytes = b"\0") -> bytes:
    """And, of bits."""
    return b"\x7b" + term(one) + term(other) + target


def either(one: Term, other: Term, target: bytes = b"\0") -> bytes:
    """Or, of bits."""
    return b"\x7d" + term(one) + term(other) + target


def is_less(one: Term, other: Term) -> bytes:
    """LLess."""
    return b"\x95" + term(one) + term(other)


def dword_field(source: bytes, offset: int, called: str) -> bytes:
    """CreateDWordField."""
    return b"\x8a" + source + integer(offset) + path(called)


def eisa_id(text: str) -> bytes:
    """An identifier as PNP0A03, compressed into a number (19.6.36)."""
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    number = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return integer(int.from_bytes(number.to_bytes(4, "big"), "little"))


def hardware_id(text: str) -> bytes:
    """An identifier of a device: compressed if it is one of seven characters."""
    return eisa_id(text) if len(text) == 7 else term(text)


# Resources (6.4)


def resources(*descriptors: bytes) -> bytes:
    """A buffer of descriptors with its end tag."""
    return buffer(b"".join(descriptors) + b"\x79\0")


def ports(start: int, length: int) -> bytes:
    """Ports of a device, with 16 bits decoded (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, start, start, 1, length)


def memory(start: int, length: int) -> bytes:
    """Memory of a device below 4 GiB (6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, 1, start, length)


def irq(number: int) -> bytes:
    """An edge-triggered ISA interrupt (6.4.2.1)."""
    return struct.pack("<BH", 0x22, 1 << number)


def interrupts(*numbers: int, edge: bool = False, shared: bool = False) -> bytes:
    """Active-high global interrupts (6.4.3.6)."""
    flags = 1 | edge << 1 | shared << 3
    return struct.pack(f"<BHBB{len(numbers)}I", 0x89, 2 + 4 * len(numbers), flags, len(numbers), *numbers)


def bus_numbers(first: int, last: int) -> bytes:
    """Bus numbers that a host bridge gives (6.4.3.5.3)."""
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 2, 0x0C, 0, 0, first, last, 0, last - first + 1)


def port_window(first: int, last: int, translation: int = 0) -> bytes:
    """Ports that it passes on; `translation`: where memory shows them (6.4.3.5.2)."""
    sizes = (0, first, last, translation, last - first + 1)
    if translation:
        return struct.pack("<BHBBBIIIII", 0x87, 23, 1, 0x0C, 0x13, *sizes)
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 1, 0x0C, 0x03, *sizes)


def memory_window(first: int, last: int) -> bytes:
    """Memory that it passes on (6.4.3.5)."""
    if last < 1 << 32:
        return struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 0x01, 0, first, last, 0, last - first + 1)
    return struct.pack("<BHBBBQQQQQ", 0x8A, 43, 0, 0x0C, 0x01, 0, first, last, 0, last - first + 1)
