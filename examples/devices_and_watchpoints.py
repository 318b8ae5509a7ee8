"""A bare CPU with a device in its address space, and a watchpoint that says who writes to a buffer.

python examples/devices_and_watchpoints.py
"""

from __future__ import annotations

import struct

import dbt

CODE, DATA, UART = 0x10000, 0x40000, 0x900_0000
# Prints the string at x0 through the UART at x1, and keeps the number of its characters at [x2].
PROGRAM = (
    0x38401403,  # loop: ldrb w3, [x0], #1
    0x340000E3,  # cbz  w3, done
    0xB9401824,  # wait: ldr w4, [x1, #24]   the flag register
    0x372FFFE4,  # tbnz w4, #5, wait         the FIFO is full
    0x39000023,  # strb w3, [x1]             the data register
    0x910004A5,  # add  x5, x5, #1
    0xF9000045,  # str  x5, [x2]
    0x17FFFFF9,  # b    loop
    0xD4000001,  # done: svc #0
)


class Uart:
    """Enough of an Arm PL011: UARTDR at 0, UARTFR at 24."""

    def __init__(self) -> None:
        self.sent = b""
        self.polls = 0

    def read(self, offset: int, size: int) -> int:
        """Each second look at the flags finds the FIFO full."""
        if (offset, size) != (24, 4):
            raise ValueError(f"{size} bytes at offset {offset} are not there")  # comes out of cpu.run
        self.polls += 1
        return (self.polls & 1) << 5

    def write(self, offset: int, size: int, value: int) -> None:
        """A character."""
        assert (offset, size) == (0, 1)
        self.sent += bytes([value])


def main() -> None:
    """Run the program with a device and a watchpoint."""
    uart = Uart()
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x1000)
        cpu.memory.write(CODE, struct.pack(f"<{len(PROGRAM)}I", *PROGRAM))
        cpu.memory.write(DATA, b"dragoman\0")
        cpu.memory.map_io(UART, 0x1000, read=uart.read, write=uart.write, sizes=(1, 4))
        cpu.registers.update({"x0": DATA, "x1": UART, "x2": DATA + 0x800})

        watch = cpu.watch(DATA + 0x800, 8)
        print("watched:", cpu.run(CODE))
        print("so far", uart.sent, "after", uart.polls, "looks at the flags")
        watch.remove()
        print("then:", cpu.run())
        print(uart.sent.decode(), "in", int.from_bytes(cpu.memory.read(DATA + 0x800, 8), "little"), "characters")

        cpu.registers["x1"] = UART + 8
        cpu.registers["x0"] = DATA
        try:
            cpu.run(CODE)
        except ValueError as error:
            print("the device says:", error, "- the CPU stands at", hex(cpu.registers["pc"]))


if __name__ == "__main__":
    main()
