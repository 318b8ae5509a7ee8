"""What only the interpreter promises: no memory that is executable and not a file's, and steps that are exact."""

from __future__ import annotations

import ctypes
import errno
import struct
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.backends.llvm.pack import HandlerPack
from dbt.frontends.guest import load_guest
from dbt.guests import GUESTS, PLAIN
from dbt.machine import native

import dbt
from dbt import cache_command
from dbt.engine import layout
from dbt.engine.cache import Store

if TYPE_CHECKING:
    from dbt.guests import Guest

CODE = 0x10000
PROGRAM = """
import ctypes, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(77)
import dbt
with dbt.open_cpu(engine=sys.argv[1]) as cpu:
    cpu.memory.map(0x10000, 0x1000, "rwx")
    cpu.memory.write(0x10000, bytes.fromhex("80 02 80 d2 00 04 00 f1 e1 ff ff 54 01 00 00 d4"))
    print(cpu.run(0x10000), cpu.registers["x0"])
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "x" in line.split()[1] and len(line.split()) < 6:
                print(line)
"""


def load(cpu: dbt.CPU, *code: int) -> None:
    cpu.memory.map(CODE, 0x1000, "rwx")
    cpu.memory.write(CODE, b"".join(word.to_bytes(4, "little") for word in code))


def test_nothing_becomes_executable_that_could_be_written() -> None:
    with dbt.open_cpu(engine="interpreter") as cpu:  # compiles, where that has not been done yet
        load(cpu, 0xD2800280, 0xF1000400, 0x54FFFFE1, 0xD4000001)
        cpu.run(CODE)
    done = subprocess.run([sys.executable, "-c", PROGRAM, "interpreter"], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert (done.stdout, done.returncode) == ("system call at pc 0x10010 0\n", 0), done.stderr


def test_steps_see_every_flag() -> None:
    with dbt.open_cpu(engine="interpreter") as cpu:
        load(cpu, 0xEB00001F, 0xB100041F, 0x54000040, 0xD4000001)  # cmp x0, x0; cmn x0, #1; b.eq +8; svc
        cpu.registers["pc"] = CODE
        cpu.step()
        assert cpu.registers["nzcv"] == 0x60000000
        cpu.step()
        assert cpu.registers["nzcv"] == 0
        cpu.step()
        assert cpu.registers["pc"] == CODE + 12


@pytest.mark.parametrize("engine", ["baseline", "interpreter", "reference"])
def test_a_carry_is_kept_for_an_instruction_whose_own_flags_nobody_reads(engine: str) -> None:
    with dbt.open_cpu(engine=engine) as cpu:
        load(cpu, 0xAB010000, 0xBA030042, 0xEB00001F, 0xD4000001)  # adds x0, x0, x1; adcs x2, x2, x3; cmp x0, x0; svc
        cpu.registers.update({"x0": (1 << 64) - 1, "x1": 1, "x2": 5, "x3": 6})
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["x2"] == 12


def test_long_budgets_are_exact_and_flags_are() -> None:
    with dbt.open_cpu(engine="interpreter") as cpu:
        load(cpu, 0xD2A00200, 0xF1000400, 0xEB00001F, 0x17FFFFFE)  # mov x0, #1 << 20; subs; cmp x0, x0; b
        for budget in (5000, 9999, 10001):
            before = cpu.executed
            assert isinstance(cpu.run(CODE, budget=budget), dbt.BudgetSpent)
            assert cpu.executed - before == budget
            count, rest = divmod(budget - 1, 3)
            assert cpu.registers["x0"] == (1 << 20) - count - (rest > 0)
            assert cpu.registers["pc"] == CODE + 4 + 4 * rest
            assert cpu.registers["nzcv"] == (0x20000000 if rest == 1 else 0x60000000)


def test_an_instruction_that_needs_the_register_of_the_step_faults_like_others() -> None:
    with dbt.open_cpu(engine="interpreter") as cpu:
        load(cpu, 0xD503201F, 0x48207C82, 0xD4000001)  # nop; casp x0, x1, x2, x3, [x4]
        cpu.registers.update({"x0": 1, "x1": 2, "x2": 3, "x3": 4})
        for address in (0x50000, 0x60000):
            cpu.registers["x4"] = address
            assert cpu.run(CODE) == dbt.MemoryFault(CODE + 4, address, "read")  # ESR_EL1.WnR
            assert [cpu.registers[f"x{n}"] for n in range(4)] == [1, 2, 3, 4]
        cpu.memory.map(0x60000, 0x1000)
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert [cpu.registers[f"x{n}"] for n in range(4)] == [0, 0, 3, 4]


def test_blocks_are_forgotten_when_the_arena_is_full() -> None:
    with dbt.open_cpu(engine="interpreter") as cpu:
        engine = cpu._cpu.baseline
        assert engine is not None
        engine.ctx.arena_end = engine.ctx.cold = engine.ctx.hot_start + (1 << 16) + 64 * layout.Step.size
        load(cpu, *[0xD503201F, 0x14000001] * 400, 0xD4000001)
        assert isinstance(cpu.run(CODE), dbt.SystemCall)
        assert cpu.registers["pc"] == CODE + 3204
        assert engine.ctx.n_flushes > 1


def refuse_executable_memory() -> None:
    """In a child: from here on no memory becomes executable that is not a file's, whoever asks (seccomp(2))."""
    load, jump_equal, jump_set, give = 0x20, 0x15, 0x45, 0x06
    number, prot, flags = 0, 32, 40  # of struct seccomp_data: nr, the low halves of args[2] and args[3]
    mmap, mprotect, executable, anonymous = 9, 10, 4, 0x20
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EACCES
    filters = [
        (load, 0, 0, number),
        (jump_equal, 0, 4, mmap),
        (load, 0, 0, prot),
        (jump_set, 0, 5, executable),
        (load, 0, 0, flags),
        (jump_set, 4, 3, anonymous),
        (jump_equal, 0, 2, mprotect),
        (load, 0, 0, prot),
        (jump_set, 1, 0, executable),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    code = b"".join(struct.pack("=HBBI", *line) for line in filters)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(filters), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privs, set_seccomp, by_filter = 38, 22, 2
    if libc.prctl(no_new_privs, 1, 0, 0, 0) or libc.prctl(set_seccomp, by_filter, program, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp")


@pytest.mark.parametrize("guest", [guest for guest in GUESTS if guest.kind != PLAIN], ids=lambda guest: guest.name)
def test_guests_run_where_no_memory_may_become_executable(guest: Guest) -> None:
    command = Path(sys.executable).with_name("dragoman")

    def run(engine: str, *, denied: bool) -> subprocess.CompletedProcess[str]:
        words: list[str | Path] = [command, "run", "--engine", engine, guest.path, str(guest.short)]
        prepare = refuse_executable_memory if denied else None
        return subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=prepare)

    assert run("interpreter", denied=False).stdout.strip() == guest.short_line  # handlers are compiled
    done = run("interpreter", denied=True)
    assert (done.stdout.strip(), done.returncode) == (guest.short_line, 0), done.stderr
    assert run("baseline", denied=True).returncode  # so it was denied


def test_cache_build_has_the_handlers_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wanted = cache_command.every_stencil("aarch64")[:5]
    monkeypatch.setattr(cache_command, "every_stencil", lambda _guest: wanted)
    said = StringIO()
    assert cache_command.build(said, interpreter=True) == 0
    assert "native parts of machines in " in said.getvalue()
    assert Store(quiet=True).has(native.IMAGE)
    assert "5 stencils of aarch64" in said.getvalue()
    assert "5 handlers of aarch64" in said.getvalue()
    (path,) = (tmp_path / "dragoman").glob("*/aarch64.handlers")
    tables = load_guest("aarch64").tables
    stamp = Store(quiet=True).stamp
    pack = HandlerPack.parse(path.read_bytes(), str(path), stamp, len(tables.forms), len(tables.fusable()))
    assert pack.numbers() == set(wanted)
