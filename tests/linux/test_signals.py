"""Dispositions, masks, delivery, the frame, and calls that are cut short."""

from __future__ import annotations

import errno
import os
from struct import pack, unpack
from typing import TYPE_CHECKING, Any

import pytest

from dbt.engine import layout
from dbt.linux import sigframe
from dbt.linux.signals import OWN, SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_RESTORER, SA_SIGINFO, bit

from .conftest import HEAP, READ_ONLY, UNMAPPED

if TYPE_CHECKING:
    from dbt.linux.process import Process

STACK = HEAP + 0x10000
HANDLER, RESTORER, PC = 0x500000, 0x600000, 0x400010
USR1, USR2, SEGV, CHLD = 10, 12, 11, 17
INFO = pack("<iii", USR1, 0, 0).ljust(128, b"\7")


@pytest.fixture
def running(process: Process, cpu: Any) -> Process:
    """A process with a stack, in the middle of things."""
    process.memory.map(HEAP + 0x8000, 0x8000, 3)
    for index in range(31):
        cpu.x[index] = 0x1000 + index
    for index in range(32):
        cpu.set_reg(f"v{index}", 1 << 100 | index)
    cpu.set_reg("sp", STACK)
    cpu.set_reg("pc", PC)
    cpu.set_reg("nzcv", 0xA0000000)
    cpu.set_reg("fpsr", 0x11)
    cpu.set_reg("fpcr", 0x22)
    process.sigreturn = 0x700000
    return process


def handle(process: Process, signal: int, flags: int = 0, mask: int = 0) -> None:
    process.signals.set_action(signal, (HANDLER, flags, RESTORER, mask))


def arrive(process: Process, cpu: Any, signal: int) -> None:
    cpu.signals.arrived.append((signal, pack("<iii", signal, 0, 0).ljust(128, b"\7")))
    cpu.env.poll = 1
    process.signals.deliver()


def test_frame_as_the_kernel_builds_it(running: Process, cpu: Any) -> None:
    handle(running, USR1, SA_SIGINFO | SA_RESTORER, bit(USR2))
    arrive(running, cpu, USR1)
    sp = cpu.reg("sp")
    assert sp == STACK - 16 - 4688
    assert cpu.reg("pc") == HANDLER
    assert (cpu.x[0], cpu.x[1], cpu.x[2]) == (USR1, sp, sp + 128)
    assert cpu.x[29] == sp + 4688
    assert cpu.x[30] == RESTORER
    assert running.signals.mask == bit(USR1) | bit(USR2)
    body = running.memory.read(sp, 4688 + 16)
    assert body[:128] == INFO
    assert unpack("<Q", body[168:176]) == (0,)  # uc_sigmask
    context = body[128 + 176 :]
    assert unpack("<Q", context[:8]) == (0,)
    assert list(unpack("<31Q", context[8:256])) == [0x1000 + index for index in range(31)]
    assert unpack("<QQQ", context[256:280]) == (STACK, PC, 0xA0000000)
    assert unpack("<IIII", context[288:304]) == (0x46508001, 528, 0x11, 0x22)
    assert context[304:320] == (1 << 100).to_bytes(16, "little")
    assert unpack("<II", context[288 + 528 : 288 + 536]) == (0, 0)
    assert unpack("<QQ", body[4688:]) == (0x1000 + 29, 0x1000 + 30)


def test_return_restores_everything(running: Process, cpu: Any) -> None:
    handle(running, USR1)
    arrive(running, cpu, USR1)
    assert cpu.x[30] == running.sigreturn
    for index in range(31):
        cpu.x[index] = 5
    for name in ("v3", "nzcv", "fpsr", "fpcr"):
        cpu.set_reg(name, 0)
    assert running.do(139, *[0] * 6) == 0x1000
    assert [cpu.x[index] for index in range(1, 31)] == [0x1000 + index for index in range(1, 31)]
    assert (cpu.reg("sp"), cpu.reg("pc"), cpu.reg("nzcv")) == (STACK, PC, 0xA0000000)
    assert (cpu.reg("fpsr"), cpu.reg("fpcr"), cpu.reg("v3")) == (0x11, 0x22, 1 << 100 | 3)
    assert running.signals.mask == 0


@pytest.mark.parametrize("sp", [UNMAPPED, STACK - 8, (1 << 64) - 16, READ_ONLY])
def test_broken_frames_kill(running: Process, cpu: Any, sp: int) -> None:
    cpu.set_reg("sp", sp)
    running.do(139, *[0] * 6)
    assert running.status == -SEGV


def test_frame_without_room_kills(running: Process, cpu: Any) -> None:
    handle(running, USR1)
    cpu.set_reg("sp", UNMAPPED)
    arrive(running, cpu, USR1)
    assert running.status == -SEGV


def test_alternate_stack(running: Process, cpu: Any) -> None:
    running.memory.map(0x800000, 0x4000, 3)
    running.memory.write(HEAP, pack("<QIIQ", 0x800000, 0, 0, 0x4000))
    assert running.do(132, HEAP, 0, 0, 0, 0, 0) == 0
    handle(running, USR1, SA_ONSTACK | SA_NODEFER)
    arrive(running, cpu, USR1)
    first = cpu.reg("sp")
    assert 0x800000 < first < 0x804000
    assert running.do(132, 0, HEAP, 0, 0, 0, 0) == 0
    assert unpack("<QII", running.memory.read(HEAP, 16)) == (0x800000, 1, 0)
    assert running.do(132, HEAP, 0, 0, 0, 0, 0) == -errno.EPERM
    arrive(running, cpu, USR1)
    assert cpu.reg("sp") < first
    arrive(running, cpu, USR1)
    arrive(running, cpu, USR1)
    assert running.status == -SEGV  # it does not run over the end of the alternate stack


def test_alternate_stack_arguments(running: Process) -> None:
    for words, result in (((0x1000, 0, 0, 100), -errno.ENOMEM), ((0x1000, 77, 0, 0x4000), -errno.EINVAL)):
        running.memory.write(HEAP, pack("<QIIQ", *words))
        assert running.do(132, HEAP, 0, 0, 0, 0, 0) == result
    assert running.do(132, UNMAPPED, 0, 0, 0, 0, 0) == -errno.EFAULT


def test_faults(running: Process, cpu: Any) -> None:
    handle(running, SEGV, SA_SIGINFO)
    cpu.env.value, cpu.env.fault_error = READ_ONLY + 8, 2
    cpu.exits = [layout.EXIT_FAULT, layout.EXIT_BUDGET]
    assert running.run() is None
    body = running.memory.read(cpu.reg("sp"), 4688)
    assert unpack("<iiiiQ", body[:24]) == (SEGV, 0, 2, 0, READ_ONLY + 8)  # SEGV_ACCERR
    assert unpack("<Q", body[304:312]) == (READ_ONLY + 8,)
    assert unpack("<IIQ", body[304 + 288 + 528 :][:16]) == (0x45535201, 16, 0x24 << 26 | 1 << 25 | 1 << 6 | 0xF)
    cpu.exits = [layout.EXIT_FAULT]
    assert running.run() == -SEGV  # it is blocked now


@pytest.mark.parametrize(
    ("reason", "signal"),
    [
        (layout.EXIT_UNDEFINED, 4),
        (layout.EXIT_UNIMPLEMENTED, 4),
        (layout.EXIT_BREAKPOINT, 5),
        (layout.EXIT_FETCH, 11),
        (layout.EXIT_ALIGNMENT, 7),
        (layout.EXIT_BUS, 7),
    ],
)
def test_traps_kill_without_a_handler(running: Process, cpu: Any, reason: int, signal: int) -> None:
    cpu.exits = [reason]
    assert running.run() == -signal


def test_masks(running: Process) -> None:
    running.memory.write_u64(HEAP, bit(USR1) | bit(9) | bit(SEGV))
    assert running.do(135, 0, HEAP, HEAP + 8, 8, 0, 0) == 0
    assert running.memory.read_u64(HEAP + 8) == 0
    assert running.signals.mask == bit(USR1) | bit(SEGV)
    blocked = _host_mask()
    assert blocked & bit(USR1)
    assert not blocked & OWN
    assert running.do(135, 1, HEAP, HEAP + 8, 8, 0, 0) == 0
    assert running.memory.read_u64(HEAP + 8) == bit(USR1) | bit(SEGV)
    assert not _host_mask() & bit(USR1)
    assert running.do(135, 7, HEAP, 0, 8, 0, 0) == -errno.EINVAL
    assert running.do(135, 0, HEAP, 0, 4, 0, 0) == -errno.EINVAL


def _host_mask() -> int:
    with open("/proc/thread-self/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))


def test_actions(running: Process, cpu: Any) -> None:
    running.memory.write(HEAP, pack("<4Q", HANDLER, SA_RESTART | 1, RESTORER, bit(9) | bit(USR2)))
    assert running.do(134, CHLD, HEAP, HEAP + 32, 8, 0, 0) == 0
    assert cpu.signals.dispositions[CHLD] == ("handler", 1)
    assert running.memory.read(HEAP + 32, 32) == bytes(32)
    assert running.do(134, CHLD, 0, HEAP + 32, 8, 0, 0) == 0
    assert unpack("<4Q", running.memory.read(HEAP + 32, 32)) == (HANDLER, SA_RESTART | 1, RESTORER, bit(USR2))
    for signal in (0, 9, 19, 65):
        assert running.do(134, signal, HEAP, 0, 8, 0, 0) == -errno.EINVAL
    running.signals.set_action(USR1, (1, 0, 0, 0))
    running.signals.reset()
    assert running.signals.action(CHLD)[0] == 0
    assert running.signals.action(USR1)[0] == 1


def test_reset_hand(running: Process, cpu: Any) -> None:
    handle(running, USR1, SA_RESETHAND)
    arrive(running, cpu, USR1)
    assert running.signals.action(USR1)[0] == 0
    running.signals.set_mask(0)
    arrive(running, cpu, USR1)
    assert running.status == -USR1


def test_default_actions(running: Process, cpu: Any) -> None:
    arrive(running, cpu, CHLD)
    assert running.status is None
    arrive(running, cpu, USR2)
    assert running.status == -USR2


def cut_short(process: Process, cpu: Any, flags: int, number: int) -> None:
    """A call that a signal ends with EINTR."""
    handle(process, USR1, flags)
    process.handlers[number] = lambda *_: -errno.EINTR
    cpu.x[8], cpu.x[0] = number, 77
    cpu.signals.arrived.append((USR1, INFO))
    cpu.env.poll = 1
    process.handle(layout.EXIT_SYSCALL)


@pytest.mark.parametrize(
    ("flags", "number", "again"), [(0, 63, False), (SA_RESTART, 63, True), (SA_RESTART, 73, False)]
)
def test_restart(running: Process, cpu: Any, flags: int, number: int, again: bool) -> None:
    cut_short(running, cpu, flags, number)
    assert cpu.reg("pc") == HANDLER
    running.do(139, *[0] * 6)
    body = running.memory.read(cpu.reg("sp") - 16 - 4688, 4688)
    x0, pc = unpack("<Q", body[312:320])[0], unpack("<Q", body[304 + 264 : 304 + 272])[0]
    assert (x0, pc) == ((77, PC - 4) if again else ((1 << 64) - errno.EINTR, PC))


def test_not_started_is_always_made_again(running: Process, cpu: Any) -> None:
    cpu.env.poll = 1  # and nothing arrives
    cpu.x[8], cpu.x[0] = 63, 77
    running.handlers[63] = lambda *_: -512
    running.handle(layout.EXIT_SYSCALL)
    assert (cpu.x[0], cpu.reg("pc")) == (77, PC - 4)


def test_suspend_delivers_under_its_mask_and_restores(running: Process, cpu: Any) -> None:
    handle(running, USR1)
    running.signals.set_mask(bit(USR1) | bit(USR2))
    running.memory.write_u64(HEAP, bit(USR2))
    cpu.env.poll = 1
    assert running.signals.wait_with_mask(bit(USR2), -errno.EINTR) == -errno.EINTR
    arrive(running, cpu, USR1)
    saved = running.memory.read_u64(cpu.reg("sp") + 168)
    assert saved == bit(USR1) | bit(USR2)
    assert running.signals.mask == bit(USR1) | bit(USR2)
    running.do(139, *[0] * 6)
    assert running.signals.mask == bit(USR1) | bit(USR2)
    running.signals.set_mask(0)


def test_blocked_fault_signal_waits(running: Process, cpu: Any) -> None:
    handle(running, SEGV)
    running.signals.set_mask(bit(SEGV))
    arrive(running, cpu, SEGV)
    assert cpu.reg("pc") == PC
    assert running.do(136, HEAP, 8, 0, 0, 0, 0) == 0
    assert running.memory.read_u64(HEAP) == bit(SEGV)
    running.signals.set_mask(0)
    assert cpu.env.poll == 1
    running.signals.deliver()
    assert cpu.reg("pc") == HANDLER


@pytest.mark.parametrize("signal", [9, 15, 11])
def test_ends_as_the_guest_ended(process: Process, cpu: Any, signal: int) -> None:
    pid = os.fork()
    if not pid:
        import signal as python_signals

        cpu.signals.die = lambda number: number == 9 or python_signals.signal(number, python_signals.SIG_DFL)
        process.status = -signal
        process.finish()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal


def test_frame_size() -> None:
    assert sigframe.FRAME_SIZE == 4688
