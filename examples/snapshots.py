"""Try many inputs on one prepared state: a snapshot is put back in microseconds.

python examples/snapshots.py
"""

from __future__ import annotations

import struct
import time

import dbt

CODE, DATA, INPUT = 0x10000, 0x100000, 0x40000
# A check that is not written to be guessed: x0 = 1 if the two bytes at x1 are "OK", after spoiling 16 pages at x2.
PROGRAM = (
    0xD2800204,  # mov  x4, #16
    0xF9000044,  # str  x4, [x2]
    0x91400442,  # add  x2, x2, #4096
    0xF1000484,  # subs x4, x4, #1
    0x54FFFFA1,  # b.ne the store
    0x79400023,  # ldrh w3, [x1]
    0x528969E5,  # mov  w5, #0x4b4f    "OK", little-endian
    0x6B05007F,  # cmp  w3, w5
    0x1A9F17E0,  # cset w0, eq
    0xD4000001,  # svc  #0
)


def main() -> None:
    """Search for the input, from one snapshot."""
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(INPUT, 0x1000)
        cpu.memory.map(DATA, 64 << 20)
        cpu.memory.write(CODE, struct.pack(f"<{len(PROGRAM)}I", *PROGRAM))
        cpu.registers.update({"pc": CODE, "x1": INPUT, "x2": DATA})
        ready = cpu.snapshot()

        start, tried = time.perf_counter(), 0
        for first in range(ord("A"), ord("Z") + 1):
            for second in range(ord("A"), ord("Z") + 1):
                cpu.restore(ready)
                cpu.memory.write(INPUT, bytes((first, second)))
                tried += 1
                cpu.run()
                if cpu.registers["x0"]:
                    print("found", bytes((first, second)))
        took = time.perf_counter() - start
        print(f"{tried} inputs, {took / tried * 1e6:.0f} us each")

        cpu.restore(ready)
        data = ready.to_bytes()
    print("the snapshot of 64 MiB as bytes:", len(data))
    with dbt.open_cpu(engine="reference") as other:
        other.restore(dbt.Snapshot.from_bytes(data))
        print("on another engine:", other.run(budget=3), "x4 is", other.registers["x4"])


if __name__ == "__main__":
    main()
