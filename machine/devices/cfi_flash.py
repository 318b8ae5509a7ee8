"""Parallel NOR flash with the Intel command set and the Common Flash Interface (JESD68, Intel 3 Volt StrataFlash).

Several chips side by side make the width of the bus: a command goes to all of them, and each answers in its lane. Reads
of the array are memory (a ROM device); while the chips answer something else, they are calls. Operations are done at
once. Programming clears bits and erasing a block sets them. Locks, suspending and the protection registers are not
there. With a disk (`attach`) what changes is written back in the background; a read-only one makes it a ROM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.block import READ, WRITE, Request
from dbt.machine.device import Device
from dbt.machine.errors import MapError
from dbt.machine.memory import PAGE, AccessSizes, Attributes, Memory, ROMDevice
from dbt.machine.registers import Fifo, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbt.machine.block import Disk
    from dbt.machine.machine import Machine

READY, ERASE_ERROR, PROGRAM_ERROR = 0x80, 0x20, 0x10
ARRAY, PROGRAM, OTHER_PROGRAM, ERASE, CLEAR, LOCK, STATUS, IDENTITY, QUERY, BUFFER, CONFIRM = (
    0xFF, 0x40, 0x10, 0x20, 0x50, 0x60, 0x70, 0x90, 0x98, 0xE8, 0xD0,
)  # fmt: skip
MAKER, CHIP = 0x89, 0x18  # Intel, 28F128J3
BUFFER_BITS = 11  # log2 of the write buffer's bytes
PIECE = 1 << 20  # bytes that are written back at once
NEXT_DATA, NEXT_COUNT, NEXT_WORDS, NEXT_CONFIRM = range(1, 5)


class CfiFlash(Device):
    """NOR flash, Intel command set with the Common Flash Interface (JESD68); commands, no registers."""

    command = State(ARRAY, bits=8)
    expects = State(bits=3)  # what the next write is: 0 is a command
    status = State(READY, bits=8)
    words_left = State(bits=16)
    block = State(bits=64)
    start = State(bits=64)
    buffer = Fifo(1 << BUFFER_BITS)
    touched = Fifo(1 << BUFFER_BITS)  # ones where the buffer has data

    def __init__(
        self, name: str, machine: Machine, size: int, *, block: int = 0x40000, width: int = 4, chip_width: int = 2,
        memory: Memory | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, machine)
        if size % block or width not in {1, 2, 4} or width % chip_width or block & (block - 1):
            raise MapError(f"{name}: {size:#x} bytes in blocks of {block:#x}, {width} wide, chips {chip_width} wide")
        self.size, self.block_size, self.width, self.chip_width = size, block, width, chip_width
        self.chips = width // chip_width
        self.flash = ROMDevice(name, size, self, AccessSizes((1, width), (1, width)), memory)
        self.regions["WINDOW"] = self.flash
        self._query = self._make_query()
        self._dirty: set[int] = set()  # pages that are to be written back
        self._writing = False

    # The file behind it

    def attach(self, disk: Disk) -> None:
        """Have the content of a disk, and write back what changes. Before the machine runs; waits for the host."""
        if disk.size > self.size or (disk.node.writable and disk.size != self.size):
            raise MapError(f"{self.name}: flash of {self.size:,} bytes, and {disk.node.name} has {disk.size:,}")
        memory, at = self.flash.memory, 0
        memory.clear(0, self.size)
        while at < disk.size:
            extent = disk.status(at, min(disk.size - at, PIECE))
            if not extent.zero:
                disk.run(Request(READ, at, [memory.view[at : at + extent.length]]))
                memory.written(at, extent.length)
            at += extent.length
        self.disk = disk
        if disk.node.writable:
            memory.observe(self._changed)

    def disks(self) -> Iterable[Disk]:
        """None: the content is in the memory, and a restored one is written back."""
        return ()

    def _changed(self, offset: int, length: int) -> None:
        self._dirty.update(range(offset // PAGE, (offset + length - 1) // PAGE + 1))
        self._write_back()

    def _write_back(self) -> None:
        """Begin to write a run of pages, if none is on its way."""
        while self._dirty and not self._writing and self.disk is not None:
            first = last = min(self._dirty)
            while last in self._dirty and (last - first) * PAGE < PIECE:
                self._dirty.discard(last)
                last += 1
            start, end = first * PAGE, min(last * PAGE, self.size)
            data = memoryview(bytes(self.flash.memory.view[start:end]))
            self._writing = True
            request = Request(WRITE, start, [data], self._wrote, context=range(first, last))
            if self.disk.submit(request):  # an error that was known at once
                self._landed(request)
                return

    def _wrote(self, request: Request) -> None:
        with self.machine.lock:
            self._landed(request)
            if request.error is None:
                self._write_back()

    def _landed(self, request: Request) -> None:
        self._writing = False
        if request.error is not None:  # tried again when something else is written
            self.status |= ERASE_ERROR | PROGRAM_ERROR
            self._dirty.update(request.context)

    @property
    def busy(self) -> bool:
        """Whether something is being written back."""
        return self._writing

    def settle(self) -> None:
        """Wait for what is being written back."""
        if self.disk is not None:
            self.disk.drain()

    def _writable(self) -> bool:
        if self.disk is None or self.disk.node.writable:
            return True
        self.guest_error("it is a ROM")
        self.status |= ERASE_ERROR | PROGRAM_ERROR
        return False

    def _make_query(self) -> dict[int, int]:
        size, block = self.size // self.chips, self.block_size // self.chips
        blocks = size // block - 1
        geometry = (size.bit_length() - 1, 2, 0, BUFFER_BITS, 0, 1, blocks & 0xFF, blocks >> 8)
        return {
            **dict(enumerate(b"QRY\x01\0\x31\0", 0x10)),  # Intel's command set; the extended table is at 0x31
            **dict(enumerate((0x45, 0x55, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0), 0x1B)),  # volts, typical and longest times
            **dict(enumerate((*geometry, block >> 8 & 0xFF, block >> 16), 0x27)),
            **dict(enumerate(b"PRI10", 0x31)),
            0x3F: 1,
        }

    def on_reset(self) -> None:
        """The chips answer with the array; its content stays."""
        self._show()

    def on_restore(self) -> None:
        """Answer with what was chosen, if it can be."""
        whole = 1 << BUFFER_BITS
        fits = len(self.buffer) == len(self.touched) and len(self.buffer) in {0, whole}
        fits = fits and self.block in range(0, self.size, self.block_size) and self.start in range(0, self.size, whole)
        if not fits or self.expects > NEXT_CONFIRM or (self.expects == NEXT_WORDS and not self.words_left):
            self.buffer.clear()
            self.touched.clear()
            self.expects = self.block = self.start = 0
        self._show()

    def _show(self) -> None:
        self.flash.direct = self.command == ARRAY

    def _lanes(self, value: int) -> int:
        return sum(value << 8 * self.chip_width * chip for chip in range(self.chips))

    # The handler of the region

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """What the chips answer while they do not answer with the array."""
        del attributes
        if self.command == IDENTITY:
            value = self._lanes({0: MAKER, 1: CHIP}.get(offset // self.width & 0xFF, 0))
        elif self.command == QUERY:
            value = self._lanes(self._query.get(offset // self.width & 0xFF, 0))
        else:
            value = self._lanes(self.status)
        return value >> 8 * (offset % self.width) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A command, or what a command waits for."""
        del attributes
        if self.expects == 0:
            self._command(offset, value & 0xFF)
        elif self.expects == NEXT_DATA:
            self._program(offset, value.to_bytes(size, "little"))
            self.expects = 0
        elif self.expects == NEXT_COUNT:
            self._start_buffer(offset, value)
        elif self.expects == NEXT_WORDS:
            self._fill_buffer(offset, value.to_bytes(size, "little"))
        else:
            self._confirm(value & 0xFF)
        self._show()

    def _command(self, offset: int, command: int) -> None:
        if command in {PROGRAM, OTHER_PROGRAM}:
            self.expects = NEXT_DATA
        elif command == ERASE:
            self.block = offset & -self.block_size
            self.expects = NEXT_CONFIRM
        elif command == LOCK:
            self.expects = NEXT_CONFIRM
        elif command == BUFFER:
            self.block = offset & -self.block_size
            self.expects = NEXT_COUNT
        elif command == CLEAR:
            self.status = READY
            command = ARRAY
        elif command not in {STATUS, IDENTITY, QUERY, ARRAY}:
            if command not in {0x00, 0xF0}:  # what other command sets reset with
                self.guest_error(f"there is no command {command:#x}")
            command = ARRAY
        self.command = command

    def _confirm(self, value: int) -> None:
        command, self.expects = self.command, 0
        if command == ERASE and value == CONFIRM:
            if self._writable():
                view = self.flash.memory.view
                view[self.block : self.block + self.block_size] = b"\xff" * self.block_size
                self.flash.memory.written(self.block, self.block_size)
        elif command == BUFFER and value == CONFIRM:
            self._flush_buffer()
        elif command == LOCK and value in {0x01, CONFIRM}:
            self.unimplemented("blocks are locked or unlocked")
        elif value == ARRAY:
            self.command = ARRAY
        else:
            self.guest_error(f"command {command:#x} is followed by {value:#x}")
            self.status |= ERASE_ERROR | PROGRAM_ERROR  # both: a wrong sequence of commands
        self.buffer.clear()
        self.touched.clear()

    def _program(self, offset: int, data: bytes) -> None:
        if not self._writable():
            return
        view = self.flash.memory.view
        old = view[offset : offset + len(data)]
        view[offset : offset + len(data)] = bytes(a & b for a, b in zip(old, data, strict=True))
        self.flash.memory.written(offset, len(data))

    # Programming through the buffer: a count, the words, a confirmation

    def _start_buffer(self, offset: int, value: int) -> None:
        words = (value & 0xFF if self.chip_width == 1 else value & 0xFFFF) + 1
        if words * self.width > 1 << BUFFER_BITS or offset & -self.block_size != self.block:
            self.guest_error(f"the write buffer has {1 << BUFFER_BITS} bytes of one block, not {words * self.width}")
            self.status |= ERASE_ERROR | PROGRAM_ERROR
            self.expects = 0
            return
        self.words_left = words
        self.start = 0
        self.expects = NEXT_WORDS

    def _fill_buffer(self, offset: int, data: bytes) -> None:
        if not self.buffer:
            self.start = offset & -(1 << BUFFER_BITS)
            self.buffer += bytes(1 << BUFFER_BITS)
            self.touched += bytes(1 << BUFFER_BITS)
        at = offset - self.start
        if 0 <= at <= len(self.buffer) - len(data) and offset & -self.block_size == self.block:
            self.buffer[at : at + len(data)] = data
            self.touched[at : at + len(data)] = b"\1" * len(data)
        else:
            self.guest_error("a word for the write buffer is beyond it")
            self.status |= PROGRAM_ERROR
        self.words_left -= 1
        if not self.words_left:
            self.expects = NEXT_CONFIRM

    def _flush_buffer(self) -> None:
        end = min(len(self.buffer), self.size - self.start)
        for at in range(0, end, self.width):
            if self.touched.find(1, at, at + self.width) >= 0:
                part = zip(self.touched[at : at + self.width], self.buffer[at : at + self.width], strict=True)
                self._program(self.start + at, bytes(value if there else 0xFF for there, value in part))
