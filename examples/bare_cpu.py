"""A CPU without a system: map memory, put code there, run it in steps, and see why it stops.

python examples/bare_cpu.py
"""

from __future__ import annotations

import struct

import dbt

CODE, DATA = 0x10000, 0x20000
# Sums the bytes from x0 to x1 into x2, then asks its "kernel" (svc) what to do with the sum.
PROGRAM = (
    0xD2800002,  # mov  x2, #0
    0x38401403,  # ldrb w3, [x0], #1
    0x8B030042,  # add  x2, x2, x3
    0xEB01001F,  # cmp  x0, x1
    0x54FFFFA1,  # b.ne the ldrb
    0xD4000001,  # svc  #0
)


def main() -> None:
    """Run the program whole, in pieces, and into a fault."""
    text = b"an interpreter and guide in foreign lands"
    with dbt.open_cpu("aarch64") as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x1000, "rw")
        cpu.memory.write(CODE, struct.pack(f"<{len(PROGRAM)}I", *PROGRAM))
        cpu.memory.write(DATA, text)
        cpu.registers.update({"x0": DATA, "x1": DATA + len(text)})

        print(cpu.run(CODE, budget=10), "- ten instructions, exactly")
        print(cpu.run(until=CODE + 8), f"- before the addition, x3 is {chr(cpu.registers['x3'])!r}")
        match cpu.run():
            case dbt.SystemCall(pc=pc):
                print(f"system call before {pc:#x}: the sum is {cpu.registers['x2']}, Python says {sum(text)}")
            case other:
                print("unexpected:", other)

        cpu.registers["x0"] = 0xDEAD_0000
        print(cpu.run(CODE), "- nothing was lost, it could go on from there")


if __name__ == "__main__":
    main()
