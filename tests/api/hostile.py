"""A program for test_hostile.py: calls of the library with arguments that make no sense, in an order that is chance.

python -m tests.api.hostile ENGINE SEED CALLS. Whatever is passed, a call returns or raises an error that says what is
wrong with it; afterwards the CPU computes what it computed before. Prints each call that did anything else.
"""

from __future__ import annotations

import contextlib
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import dbt
from dbt.errors import GuestFault, UserError
from dbt.gdb.server import listen

if TYPE_CHECKING:
    from collections.abc import Callable

CODE, DATA = 0x10000, 0x40000
ADD = bytes.fromhex("00040091010000d4")  # add x0, x0, #1; svc
ALLOWED = (UserError, GuestFault)
NUMBERS = (
    0, 1, -1, 2, 3, 4, 7, 8, 0xFFF, 0x1000, 0x1001,
    CODE, CODE + 1, DATA, DATA + 0x3FFF, 1 << 31, 1 << 32, (1 << 46) - 1,
    1 << 46, (1 << 46) + 1, 1 << 47, (1 << 56) - 1, 1 << 56 | DATA, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64,
    1 << 200, -(1 << 63), -(1 << 100),
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, "", "x0", "rw", "x", "v31", "pc", "read", "write", "access",
    b"", b"abc", bytearray(8), 1.5, float("nan"), True,
    (), [], {}, {1, 2}, [1, -1], ["a"], (1 << 70,), object(), lambda *_: None, "\0", "\ud800", 1j,
)  # fmt: skip


def methods(cpu: dbt.CPU) -> dict[str, Callable[..., Any]]:
    """What is called. Snapshots and handles that come out of it are arguments of later calls."""
    memory, registers = cpu.memory, cpu.registers
    return {
        "map": memory.map, "unmap": memory.unmap, "protect": memory.protect, "read": memory.read, "write": memory.write,
        "map_io": lambda a, s, r=None, w=None, z=(1, 2): memory.map_io(a, s, read=r, write=w, sizes=z),
        "get": lambda n: registers[n], "set": registers.__setitem__, "delete": registers.__delitem__,
        "run": lambda s=None, u=(), b=1: cpu.run(s, until=u, budget=b), "step": cpu.step, "break_at": cpu.break_at,
        "watch": lambda a, s, k="write", b=False: cpu.watch(a, s, k, before=b), "stop": cpu.stop,
        "on_system_call": cpu.on_system_call, "on_fault": cpu.on_fault, "on_undefined": cpu.on_undefined,
        "on_block": cpu.on_block, "on_instruction": cpu.on_instruction, "on_memory": cpu.on_memory,
        "snapshot": cpu.snapshot, "restore": cpu.restore, "from_bytes": dbt.Snapshot.from_bytes,
        "instrument": cpu.instrument, "remove": cpu.remove, "mappings": memory.mappings,
        "listen": listen, "open_cpu": dbt.open_cpu, "open_program": dbt.open_program,
        "bits": lambda b: dbt.open_cpu(address_bits=b).close(),
    }  # fmt: skip


def main(engine: str, seed: str, calls: int) -> int:
    """The number of calls that went wrong."""
    random = Random(seed)
    wrong = 0
    made: list[Any] = []
    with dbt.open_cpu(engine=engine) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.map(DATA, 0x4000)
        table = methods(cpu)
        for number in range(calls):
            name = random.choice(list(table))
            arguments = [
                random.choice(made)
                if made and random.random() < 0.1
                else random.choice((NUMBERS, OTHERS)[random.random() < 0.4])
                for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 4)))
            ]
            text = f"{engine} {seed} {number}: {name}{tuple(arguments)!r}"
            print(text, file=sys.stderr)
            try:
                result = table[name](*arguments)
            except TypeError as error:
                if "argument" not in str(error) or "positional" not in str(error):  # too many or too few
                    wrong += 1
                    print(f"{text}: {type(error).__name__}: {error}")
            except ALLOWED as error:
                if not str(error):
                    wrong += 1
                    print(f"{text}: an error without a word: {error!r}")
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                wrong += 1
                print(f"{text}: {type(error).__name__}: {error}")
            else:
                if hasattr(result, "close"):
                    result.close()
                elif (hasattr(result, "remove") and not isinstance(result, list)) or isinstance(result, dbt.Snapshot):
                    made.append(result)
            if len(made) > 12:
                with contextlib.suppress(AttributeError, TypeError):
                    made.pop(0).remove()
        for each in made:
            with contextlib.suppress(AttributeError, TypeError):
                each.remove()
    with dbt.open_cpu(engine=engine) as cpu:
        cpu.memory.map(CODE, 0x1000, "rwx")
        cpu.memory.write(CODE, ADD)
        if not isinstance(cpu.run(CODE), dbt.SystemCall) or cpu.registers["x0"] != 1:
            wrong += 1
            print("afterwards a CPU does not work any more")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])) != 0)
