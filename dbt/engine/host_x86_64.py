"""What the native runtime needs to know of an x86-64 Linux host: system-call numbers, contexts, a few instructions.

Nothing else in dbt/engine/ knows the host's architecture; another host brings a module with the same names.
"""

from __future__ import annotations

from dbt.native import Assembly, Ptr, Struct, asm, cast, i64, native, new, struct, syscall, u32, u64

SYS_MPROTECT = 10
SYS_SIGACTION = 13
SYS_SIGPROCMASK = 14
SYS_SCHED_YIELD = 24
SYS_GETPID = 39
SYS_SIGALTSTACK = 131
SYS_GETTID = 186
SYS_TGKILL = 234
SYS_CLOCK_GETTIME = 228
SYS_PROCESS_VM_READV = 310

EINTR = 4

# Of the host's ucontext_t and siginfo_t (arch/x86/include/uapi/asm/sigcontext.h), in bytes.
UC_FLAGS = 72  # r12 to r15, in which translated code keeps the flag words
UC_RDI = 104  # and env
UC_RCX = 152  # and the interpreter its step
UC_RSP = 160
UC_RIP = 168
UC_ERR = 192
UC_SIGMASK = 296
SI_ADDR = 16
SIGINFO_BYTES = 128


@struct
class IoVec(Struct):
    """struct iovec."""

    base: u64
    size: u64


@native(inline=False)
def copy_own(to: u64, source: u64, size: u64) -> i64:
    """Copy our own memory through the kernel: bytes copied, or -errno. Unreadable pages end it, nothing faults."""
    local = new(IoVec)
    remote = new(IoVec)
    local.base = to
    local.size = size
    remote.base = source
    remote.size = size
    pid = syscall(SYS_GETPID)
    return syscall(SYS_PROCESS_VM_READV, pid, cast(u64, local), 1, cast(u64, remote), 1, 0)


@native(inline=True)
def load_mxcsr(place: Ptr[u32]) -> None:
    """Set the host's floating-point control and status from memory."""
    asm("ldmxcsr ($0)", "r,~{memory}", place)


@native(inline=True)
def store_mxcsr(place: Ptr[u32]) -> None:
    """Store the host's floating-point control and status to memory."""
    asm("stmxcsr ($0)", "r,~{memory}", place)


@native(inline=True)
def stack_pointer() -> u64:
    """The host stack pointer, near enough."""
    return asm("movq %rsp, $0", "=r")


@native(inline=True)
def patch_displacement(site: u64, code: u64) -> None:
    """Make the 32-bit displacement at `site` lead to `code`."""
    cast(Ptr[u32], site)[0] = u32(code - (site + 4))


# dragoman_area holds the address of the SignalArea; Python stores it there when the runtime is loaded.
#
# Between `begin` and `end` the system call has not been entered yet: a signal that arrives there goes to `abort`, so
# that a call never blocks with a signal already noted (as the C library does for cancellation). The first argument is
# the address of the word to look at, then the number and the arguments of the call in the order of the C convention.
SYSTEM_CALL = Assembly(
    "system_call",
    """
    .globl dragoman_system_call, dragoman_system_call_begin, dragoman_system_call_end, dragoman_system_call_abort
    .p2align 4
dragoman_system_call:
    movq %rsi, %rax
    movq %rdi, %r11
    movq %rdx, %rdi
    movq %rcx, %rsi
    movq %r8, %rdx
    movq %r9, %r10
    movq 8(%rsp), %r8
    movq 16(%rsp), %r9
dragoman_system_call_begin:
    cmpl $0, (%r11)
    jne dragoman_system_call_abort
    syscall
dragoman_system_call_end:
    retq
dragoman_system_call_abort:
    movq $-512, %rax
    retq
    .globl dragoman_signal_return
    .p2align 4
dragoman_signal_return:
    movq $15, %rax
    syscall
    .data
    .globl dragoman_area
    .p2align 3
dragoman_area:
    .quad 0
    .text
""",
    (
        "dragoman_system_call",
        "dragoman_system_call_begin",
        "dragoman_system_call_end",
        "dragoman_system_call_abort",
        "dragoman_signal_return",
        "dragoman_area",
    ),
)


@struct
class KernelSigaction(Struct):
    """The host kernel's struct sigaction."""

    handler: u64
    flags: u64
    restorer: u64
    mask: u64


SA_SIGINFO = 4
SA_ONSTACK = 0x08000000
SA_RESTART = 0x10000000
SA_NODEFER = 0x40000000
SA_RESTORER = 0x04000000


def keeping_handler(area: int, handler: int) -> bytes:
    """Machine code of a signal handler that copies the siginfo to its signal's place at `area`, and goes on at another.

    For the reference engine, which does without LLVM.
    """
    return b"".join((
        b"\x48\xb8", area.to_bytes(8, "little"),  # mov rax, area
        b"\x89\xf9\xc1\xe1\x07\x48\x01\xc8",  # mov ecx, edi; shl ecx, 7; add rax, rcx: SIGINFO_BYTES each
        b"\x57\x56\x48\x89\xc7",  # push rdi; push rsi; mov rdi, rax
        b"\xb9\x10\x00\x00\x00\xf3\x48\xa5",  # mov ecx, 16; rep movsq
        b"\x5e\x5f\x48\xb8", handler.to_bytes(8, "little"),  # pop rsi; pop rdi; mov rax, handler
        b"\xff\xe0",  # jmp rax
    ))  # fmt: skip
