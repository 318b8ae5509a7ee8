"""The guest's memory as Python sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from dbt.control import arguments as check
from dbt.control.traps import Io, Traps
from dbt.engine import hostmem, layout
from dbt.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dbt.engine.cpu import Cpu
    from dbt.engine.memory import AddressSpace

T = TypeVar("T")
_PROTECTION: Final = {"r": hostmem.PROT_READ, "w": hostmem.PROT_WRITE, "x": hostmem.PROT_EXEC, "-": 0}


def _protection(text: str) -> int:
    check.text(text, "a protection")
    if not set(text) <= set(_PROTECTION):
        raise UserError(f"{text!r} is not a protection", 'Use letters of "rwx".')
    return sum(_PROTECTION[letter] for letter in set(text))


class Memory:
    """The guest's memory. Reads and writes raise GuestFault (with `address`) where it is not mapped for that.

    Mappings are changed by the thread that runs the CPU, or while none does: else UserError is raised.
    """

    def __init__(self, cpu: Cpu, traps: Traps | None = None) -> None:
        self._cpu = cpu
        self._boundary = cpu.boundary
        self._traps = traps or Traps(cpu)

    @property
    def _space(self) -> AddressSpace:
        return self._cpu.opened().memory

    @property
    def limit(self) -> int:
        """Guest addresses are below this."""
        return self._space.limit

    def map(self, address: int, size: int, protection: str = "rw") -> None:
        """Map zeroed pages for [address, address + size), replacing what is there; both are rounded out to pages."""
        start, length = self._pages(address, size)
        prot = _protection(protection)
        try:
            with self._boundary:
                self._space.map(start, length, prot)
        except OSError as error:
            raise UserError(f"the host cannot map {size} bytes: {error.strerror}", "Map less.") from None

    def unmap(self, address: int, size: int) -> None:
        """Take whole pages away."""
        start, length = self._pages(address, size)
        with self._boundary:
            self._space.unmap(start, length)

    def protect(self, address: int, size: int, protection: str) -> None:
        """Change the protection of mapped pages."""
        start, length = self._pages(address, size)
        prot = _protection(protection)
        try:
            with self._boundary:
                self._space.protect(start, length, prot)
        except OSError:
            raise UserError(f"not all of {address:#x}..{address + size:#x} is mapped", "Map it first.") from None

    def _reached(self, access: Callable[[bool], T]) -> T:
        """What an access gives, told whether it is alone: nothing changes mappings then until it is done."""
        with self._boundary.lock:
            if not self._boundary.elsewhere:
                return access(True)
        return access(False)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`."""
        check.address(address)
        check.number(size, "a size", 0, check.LARGEST_READ)
        try:
            return self._reached(lambda alone: self._space.read(address, size, alone=alone))
        except MemoryError:
            raise UserError(f"there is no memory for {size} bytes", "Read less at once.") from None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes. Code that was translated from them is dropped, at the next boundary."""
        check.address(address)
        raw = check.data(data, "what is written")
        self._reached(lambda alone: self._space.write(address, raw, alone=alone))
        self._boundary.change(lambda: self._space.on_code_change(address, address + len(raw)))

    def map_io(
        self,
        address: int,
        size: int,
        *,
        read: Callable[[int, int], int] | None = None,
        write: Callable[[int, int, int], None] | None = None,
        sizes: Collection[int] = (1, 2, 4, 8),
    ) -> Io:
        """Have functions answer for [address, address + size): `read(offset, size)`, `write(offset, size, value)`.

        They are called for the guest's loads and stores of one of `sizes`, whole; any other access, and one for which
        there is no function, stops with AccessRefused. What they raise comes out of `run`, with the guest as it was
        before the instruction. The result's `remove()` takes the device away.
        """
        self._cpu.opened()
        return self._traps.map_io(address, size, read, write, sizes)

    def mappings(self) -> list[tuple[int, int, str, str]]:
        """What is mapped, in order: (start, end, protection, name)."""
        return [
            (start, end, "".join(c if prot & _PROTECTION[c] else "-" for c in "rwx"), name)
            for start, end, prot, name, _offset in self._space.mappings()
        ]

    def _pages(self, address: int, size: int) -> tuple[int, int]:
        """(start, length) of the whole pages that hold a range."""
        check.number(address, "an address", 0)
        end = address + check.number(size, "a size", 1)
        if end > self.limit:
            raise UserError(
                f"{address:#x}..{end:#x} is not a range of guest addresses", f"They go from 0 to {self.limit:#x}."
            )
        start = address & -layout.PAGE_SIZE
        return start, (end + layout.PAGE_SIZE - 1 & -layout.PAGE_SIZE) - start
