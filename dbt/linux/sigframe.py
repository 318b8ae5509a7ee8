"""The frame that a signal handler of an AArch64 program finds on its stack, and the way back from it.

Source: linux/arch/arm64/kernel/signal.c and include/uapi/asm/{sigcontext,ucontext}.h. From the stack pointer up:
siginfo (128 bytes), ucontext {flags, link, stack, mask (padded to 128 bytes), sigcontext (16-byte aligned)}; sigcontext
is {fault address, x0 … x30, sp, pc, pstate} and 4096 bytes of records {magic, size, …}, of which fpsimd_context is
always there, esr_context after a fault; above it all a frame record {fp, lr} for unwinders.
"""

from __future__ import annotations

from struct import pack, unpack, unpack_from

from dbt.errors import GuestFault

from .abi import EINVAL, ENOMEM, EPERM, U64
from .signals import SA_ONSTACK, SA_RESTORER, SA_SIGINFO, SIGSEGV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

UCONTEXT = 128  # offset in the frame
_STACK, _MASK, _MCONTEXT = 16, 40, 176  # in ucontext
_REGS, _RECORDS = 8, 288  # in sigcontext
_RECORDS_SIZE = 4096
FRAME_SIZE = UCONTEXT + _MCONTEXT + _RECORDS + _RECORDS_SIZE
MIN_STACK = 4720  # AT_MINSIGSTKSZ, see loader.py
FPSIMD_MAGIC, FPSIMD_SIZE = 0x46508001, 528
ESR_MAGIC, ESR_SIZE = 0x45535201, 16
SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 1, 2, 1 << 31
_NZCV = 0xF0000000
_PRIVILEGED = 0x3DF  # PSTATE: mode and AArch32, masks of interrupts (arch/arm64/kernel/ptrace.c: valid_user_regs)


def on_altstack(altstack: tuple[int, int, int], sp: int) -> bool:
    """Whether a stack pointer is on the alternate stack (one that disarms itself never counts)."""
    base, flags, size = altstack
    return not flags & SS_AUTODISARM and base < sp <= base + size


def altstack_flags(altstack: tuple[int, int, int], sp: int) -> int:
    """ss_flags as a program sees them."""
    if not altstack[2]:
        return SS_DISABLE
    return (SS_ONSTACK if on_altstack(altstack, sp) else 0) | altstack[1] & SS_AUTODISARM


def set_altstack(process: Process, base: int, flags: int, size: int) -> int:
    """Set the stack for handlers with SA_ONSTACK (kernel/signal.c: do_sigaltstack); 0 or -errno."""
    signals = process.signals
    if on_altstack(signals.altstack, process.cpu.reg("sp")):
        return -EPERM
    mode = flags & ~SS_AUTODISARM
    if mode not in {0, SS_DISABLE, SS_ONSTACK}:
        return -EINVAL
    if mode == SS_DISABLE:
        base = size = 0
    elif size < MIN_STACK:
        return -ENOMEM
    signals.altstack = (base, flags, size)
    return 0


def push(
    process: Process,
    signal: int,
    info: bytes,
    action: tuple[int, int, int, int],
    mask: int,
    fault: int,
    syndrome: int,
) -> bool:
    """Build a frame and go to the handler; False if the stack cannot take it."""
    cpu, signals = process.cpu, process.signals
    handler, flags, restorer, _ = action
    sp, pc = cpu.reg("sp"), cpu.reg("pc")
    top = sp
    alternate = signals.altstack
    if flags & SA_ONSTACK and alternate[2] and not on_altstack(alternate, sp):
        top = alternate[0] + alternate[2]
    record = (top & U64) - 16 & -16
    frame = record - FRAME_SIZE
    if top == sp and on_altstack(alternate, sp) and not on_altstack(alternate, frame):
        return False
    x = [cpu.x[index] for index in range(31)]
    # As it was set, not whether it is in use (kernel/signal.c: __save_altstack).
    stack = pack("<QIIQ", alternate[0], alternate[1], 0, alternate[2])
    head = pack("<QQ", 0, 0) + stack + pack("<Q", mask & U64) + bytes(_MCONTEXT - _MASK - 8)
    context = pack("<Q31QQQQ", fault & U64, *x, sp, pc, cpu.reg("nzcv") & _NZCV)
    records = pack("<IIII", FPSIMD_MAGIC, FPSIMD_SIZE, cpu.reg("fpsr") & 0xFFFFFFFF, cpu.reg("fpcr") & 0xFFFFFFFF)
    records += b"".join(cpu.reg(f"v{index}").to_bytes(16, "little") for index in range(32))
    if syndrome:
        records += pack("<IIQ", ESR_MAGIC, ESR_SIZE, syndrome)
    padding = bytes(_RECORDS - len(context))
    body = info.ljust(UCONTEXT, b"\0")[:UCONTEXT] + head + context + padding + records
    body += bytes(FRAME_SIZE - len(body)) + pack("<QQ", x[29], x[30])
    try:
        process.memory.write(frame, body)
    except GuestFault:
        return False
    if alternate[1] & SS_AUTODISARM:
        signals.altstack = (0, SS_DISABLE, 0)
    cpu.clear_exclusive()
    cpu.x[0] = signal
    if flags & SA_SIGINFO:
        cpu.x[1] = frame
        cpu.x[2] = frame + UCONTEXT
    cpu.x[29] = record
    cpu.x[30] = restorer if flags & SA_RESTORER else process.sigreturn
    cpu.set_reg("sp", frame)
    cpu.set_reg("pc", handler)
    return True


def sys_rt_sigreturn(process: Process, *_: int) -> int:
    """Go back to where a handler was entered; a frame that makes no sense kills with SIGSEGV."""
    cpu, signals = process.cpu, process.signals
    sp = cpu.reg("sp")
    if sp & 15:
        return _bad_frame(process)
    try:
        body = process.memory.read(sp, FRAME_SIZE)
    except GuestFault:
        return _bad_frame(process)
    at = UCONTEXT + _MCONTEXT
    vectors = _find_fpsimd(body[at + _RECORDS :])
    if vectors is None:
        return _bad_frame(process)
    values = unpack_from("<31QQQQ", body, at + _REGS)
    if values[33] & _PRIVILEGED:
        return _bad_frame(process)
    for index in range(31):
        cpu.x[index] = values[index]
    cpu.set_reg("sp", values[31])
    cpu.set_reg("pc", values[32])
    cpu.set_reg("nzcv", values[33] & _NZCV)
    fpsr, fpcr = unpack("<II", vectors[8:16])
    cpu.set_reg("fpcr", fpcr)
    cpu.set_reg("fpsr", fpsr)
    for index in range(32):
        cpu.set_reg(f"v{index}", int.from_bytes(vectors[16 + 16 * index : 32 + 16 * index], "little"))
    cpu.clear_exclusive()
    set_altstack(process, *unpack_from("<QIxxxxQ", body, UCONTEXT + _STACK))
    signals.set_mask(unpack_from("<Q", body, UCONTEXT + _MASK)[0])
    return int(values[0])


def _find_fpsimd(records: bytes) -> bytes | None:
    """The fpsimd_context among the records; None if it is not there or the records are broken."""
    at = 0
    found = None
    while at + 8 <= len(records):
        magic, size = unpack_from("<II", records, at)
        if not magic:
            return found
        if size < 8 or size & 15 or at + size > len(records):
            return None
        if magic == FPSIMD_MAGIC:
            if size != FPSIMD_SIZE:
                return None
            found = records[at : at + size]
        at += size
    return None


def _bad_frame(process: Process) -> int:
    """Answer a broken frame as the kernel does."""
    process.signals.force(SIGSEGV, 1, process.cpu.reg("sp"))
    return int(process.cpu.x[0])
