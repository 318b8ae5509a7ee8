"""Who writes where? A ring of records that translated code fills and Python drains, and a call on a condition.

python examples/watch_stores.py
"""

from __future__ import annotations

import struct

import dbt

CODE, DATA = 0x10000, 0x20000
# Fills an array of 16 words with squares.
PROGRAM = (
    0xD2800001,  # mov  x1, #0
    0x9B017C22,  # mul  x2, x1, x1
    0xF8217802,  # str  x2, [x0, x1, lsl #3]
    0x91000421,  # add  x1, x1, #1
    0xF100403F,  # cmp  x1, #16
    0x54FFFF81,  # b.ne the mul
    0xD4000001,  # svc  #0
)


class Stores(dbt.Plugin):
    """Records each store with the value of x2, and calls Python for those of more than 200."""

    exact = True  # it calls Python

    def __init__(self) -> None:
        super().__init__()
        self.ring = dbt.Ring(3, self.drain)

    def block(self, block: dbt.Block) -> None:
        """Only stores get anything inserted."""
        for instruction in block.instructions:
            for access in instruction.accesses:
                if access.kind != "read":
                    instruction.record(self.ring, instruction.pc, access, "x2")
                    instruction.add(lambda s: s.call(self.large, when=s.register("x2").ugt(s.constant(200))))

    def drain(self, records: list[tuple[int, ...]]) -> None:
        """A batch of records."""
        print(f"{len(records)} stores, the last of {records[-1][2]} to {records[-1][1]:#x} by {records[-1][0]:#x}")

    def large(self, event: dbt.Event) -> None:
        """The guest stands before the store."""
        print(f"at {event.pc:#x} x1 is {event.registers['x1']}: {event.instruction.text}")


def main() -> None:
    """Run the program with the plugin."""
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x1000)
        cpu.memory.write(CODE, struct.pack(f"<{len(PROGRAM)}I", *PROGRAM))
        cpu.registers["x0"] = DATA
        plugin = Stores()
        cpu.instrument(plugin)
        print(cpu.run(CODE))
        plugin.ring.flush()


if __name__ == "__main__":
    main()
