"""Mutated ELF files: through the loader, and what it takes runs for a moment, with system calls that harm nobody."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from random import Random
from struct import pack, pack_into
from typing import Final

from dbt.engine.cpu import Cpu
from dbt.engine.layout import N_PASS
from dbt.errors import UserError
from dbt.linux.process import Process
from tests.conftest import ROOT

BUDGET: Final = 400  # instructions of one turn
TURNS: Final = 6
SAMPLES: Final = ("hello", "fib", "string")
HEADERS: Final = 64 + 6 * 56
ENOSYS: Final = 38
MAP_ANONYMOUS: Final = 0x20
ALLOWED: Final = {93, 94, 214, 215, 216, 222, 226}  # exit, exit_group, brk, munmap, mremap, mmap, mprotect
VALUES: Final = (0, 1, 0x3F, 0xFFF, 0x1000, 1 << 31, (1 << 46) - 1, 1 << 46, 1 << 47, 1 << 63, (1 << 64) - 1)


class Harmless(Process):
    """A process whose calls reach nothing but its own memory."""

    def do(self, number: int, *args: int) -> int:
        """Few calls are there."""
        if number not in ALLOWED or (number == 222 and not args[3] & MAP_ANONYMOUS):
            return -ENOSYS
        return super().do(number, *args)


def interpreted(real: bytes) -> bytes:
    """The same program, position-independent and with an interpreter that is not there."""
    data = bytearray(real)
    pack_into("<H", data, 16, 3)
    name = b"/no/interpreter\0"
    pack_into("<IIQQQQQQ", data, 64 + 56, 3, 4, len(data), 0, 0, len(name), len(name), 1)
    pack_into("<H", data, 56, 2)
    return bytes(data + name)


class Attempts:
    """One CPU for all programs of a process; each of them begins as if by exec."""

    def __init__(self, engine: str) -> None:
        self._cpu = Cpu(engine=engine)
        if self._cpu.baseline is not None:
            self._cpu.baseline.count_instructions(on=True)
        files = [(ROOT / "bench" / "guests" / "bin" / name).read_bytes() for name in SAMPLES]
        self._files = [*files, interpreted(files[0])]
        self._path = Path(tempfile.mkdtemp(prefix="dragoman-images-")) / "program"

    def _mutated(self, random: Random) -> bytes:
        data = bytearray(random.choice(self._files))
        for _ in range(random.randint(1, 4)):
            kind = random.randrange(5)
            at = random.randrange(min(HEADERS, len(data) - 8))
            if kind == 0:
                data[at] ^= 1 << random.randrange(8)
            elif kind == 1:
                data[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif kind == 2:
                pack_into(
                    "<Q", data, at & -8, random.choice(VALUES) + random.choice((-1, 0, 0, 1, 4096)) & (1 << 64) - 1
                )
            elif kind == 3:
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            else:
                pack_into("<I", data, at & -4, random.getrandbits(32))
        if random.random() < 0.1:
            del data[random.randrange(len(data)) :]
        if random.random() < 0.05:
            data[16:18] = pack("<H", random.choice((2, 3)))
        return bytes(data)

    def attempt(self, seed: int) -> list[str]:
        """Load and run one: how it ended."""
        random = Random(f"image {seed}")
        self._path.unlink(missing_ok=True)
        self._path.write_bytes(self._mutated(random))
        self._path.chmod(0o755)
        cpu = self._cpu
        cpu.reset()
        process = Harmless(cpu)
        if cpu.baseline is not None:
            cpu.baseline.forbid_calls(range(N_PASS))
        try:
            process.load(os.fspath(self._path), [b"program"], [b"A=B"])
        except UserError as error:
            if str(self._path) not in str(error):
                raise AssertionError(f"which file? {error}") from error
            return [type(error).__name__]
        for _ in range(TURNS):
            process.handle(cpu.run(BUDGET))
            if process.status is not None:
                return [f"exit {process.status}" if process.status >= 0 else f"signal {-process.status}"]
        return ["still running"]
