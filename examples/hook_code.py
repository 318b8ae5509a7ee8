"""See blocks, instructions and accesses to memory go by, only where it is interesting.

python examples/hook_code.py
"""

from __future__ import annotations

import struct

import dbt

CODE, DATA = 0x10000, 0x40000
# x0 rounds of: ldr x2, [x1]; add x2, x2, x0; str x2, [x1], #8; subs x0, x0, #1; b.ne; then svc
LOOP = (0xF9400022, 0x8B000042, 0xF8008422, 0xF1000400, 0x54FFFF81, 0xD4000001)


def main() -> None:
    """Watch a loop, then let it go on unseen."""
    with dbt.open_cpu() as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x1000)
        cpu.memory.write(CODE, struct.pack(f"<{len(LOOP)}I", *LOOP))

        def store(access: dbt.MemoryAccess) -> None:
            print(f"{access.pc:#x} writes {access.size} bytes at {access.address:#x}: x2 is {cpu.registers['x2']}")
            if access.address == DATA + 16:
                seen.remove()  # enough

        blocks: list[int] = []
        adds: list[int] = []
        seen = cpu.on_memory(store, DATA, DATA + 64, "write")
        cpu.on_block(lambda entry: blocks.append(entry.pc))
        cpu.on_instruction(lambda entry: adds.append(entry.pc), CODE + 4, CODE + 8)
        cpu.registers.update({"x0": 100, "x1": DATA})
        print("stopped:", cpu.run(CODE))
        print(f"blocks: {len(blocks)}, additions: {len(adds)}")


if __name__ == "__main__":
    main()
