"""The `dragoman` command, native: starts the Python beside it with -I -S and changes nothing that a guest could see.

A shell script would: shells set PWD and the action of SIGCHLD, and drop variables whose names are no shell names. A
script of Python's cannot: pip takes the options out of its first line, and without them Python obeys variables that are
meant for the guest, and looks at site-packages, which takes longer than all of this.

The command gets its folder, and which signals are ignored and which are pending: Python ignores some itself, and loses
those of them that are pending (dbt/launch.py). SIGINT is blocked until Python has begun: while it sets itself up an
interrupt would be a fatal error with a traceback. It is an executable of its own, bin/dragoman;
dbt.backends.llvm.executable makes it of this module.
"""

from __future__ import annotations

from dbt.native import Assembly, Ptr, cast, native, new, syscall, table, u8, u64

from .host_x86_64 import SYS_SIGACTION, KernelSigaction

SYS_WRITE, SYS_MMAP, SYS_EXECVE, SYS_EXIT_GROUP, SYS_READLINK, SYS_SIGPENDING = 1, 9, 59, 231, 89, 127
SYS_SIGPROCMASK, SIG_BLOCK = 14, 0
READ_WRITE, PRIVATE_ANONYMOUS = 3, 0x22
PATH_BYTES = 4096
NAME_BYTES = 16  # more than /python3 and a zero
NO_PYTHON = 127  # exit status, as a shell's for a command that is not found
SIGNALS = 64
SIG_IGN = 1
SIGINT_BIT = 1  # of a mask
FIXED_WORDS = 10  # arguments of Python's in front of the command's own, and the null behind them
SLASH, COLON, ZERO, A_LESS_TEN = 0x2F, 0x3A, 0x30, 0x57

PROGRAM = b"""\
import _signal
import gc
import sys
if _signal.getsignal(2) is _signal.default_int_handler:
    _signal.signal(2, _signal.SIG_DFL)
if sys.argv[2][32] == "0":
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (2,))
gc.disable()
sys.path.append("%s/../lib/python%d.%d/site-packages" % (sys.argv[1], *sys.version_info[:2]))
try:
    from dbt.launch import main
except ModuleNotFoundError as error:
    if error.name not in ("dbt", "dbt.launch"):
        raise
    import site
    site.main()
    from dbt.launch import main
main()
"""
COMPLAINT = b"dragoman: there is no python3 beside it or in PATH that can be run\n"
COMPLAINT_BYTES = len(COMPLAINT)
SELF = table(u8, b"/proc/self/exe\0")
NAME = table(u8, b"python3\0")
ISOLATED = table(u8, b"-I\0")
NO_SITE = table(u8, b"-S\0")
OPTION = table(u8, b"-X\0")
UTF8 = table(u8, b"utf8\0")
COMMAND = table(u8, b"-c\0")
CODE = table(u8, PROGRAM + b"\0")
TEXT = table(u8, COMPLAINT)
PATH = table(u8, b"PATH=\0")
USUAL = table(u8, b"/usr/local/bin:/usr/bin:/bin\0")

# The kernel leaves the arguments on the stack: their count, their addresses, a null, the environment's addresses, a
# null (System V ABI, AMD64 supplement, section 3.4.1).
START = Assembly(
    "start",
    """
    .globl _start
    .p2align 4
_start:
    movq %rsp, %rdi
    andq $-16, %rsp
    call launch
    ud2
""",
    ("_start",),
)


@native(inline=False)
def after(text: Ptr[u8], prefix: Ptr[u8]) -> Ptr[u8]:
    """What is behind a prefix that a string has; null if it does not have it."""
    i: u64 = 0
    while prefix[i]:
        if text[i] != prefix[i]:
            return cast(Ptr[u8], 0)
        i += 1
    return text + i


@native(inline=False)
def put_name(path: Ptr[u8], length: u64) -> None:
    """Put `/python3` behind `length` bytes of a path."""
    path[length] = SLASH
    for i in range(u64(8)):
        path[length + 1 + i] = NAME[i]


@native(inline=False)
def run(path: Ptr[u8], words: Ptr[u64], environment: Ptr[u64]) -> None:
    """Execute `path`; comes back if that fails."""
    words[0] = cast(u64, path)
    syscall(SYS_EXECVE, cast(u64, path), cast(u64, words), cast(u64, environment))


@native(inline=False)
def search(path: Ptr[u8], words: Ptr[u64], environment: Ptr[u64]) -> None:
    """Execute the first python3 in PATH; comes back if there is none. `path`: room for its path."""
    folders = cast(Ptr[u8], USUAL)
    at = environment
    while at[0]:
        found = after(cast(Ptr[u8], at[0]), cast(Ptr[u8], PATH))
        if found:
            folders = found
            break
        at = at + 1
    while True:
        length: u64 = 0
        while folders[length] and folders[length] != COLON:
            if length < PATH_BYTES:
                path[length] = folders[length]
            length += 1
        if length and length < PATH_BYTES:
            put_name(path, length)
            run(path, words, environment)
        if folders[length] == 0:
            return
        folders = folders + length + 1


@native(inline=False)
def put_number(to: Ptr[u8], number: u64) -> None:
    """Write 16 hexadecimal digits."""
    for i in range(u64(16)):
        digit = u8(number >> (60 - 4 * i) & 15)
        to[i] = digit + (ZERO if digit < 10 else A_LESS_TEN)


@native(inline=False)
def put_signals(to: Ptr[u8]) -> None:
    """Write the masks of pending and of ignored signals, behind each other."""
    action = new(KernelSigaction)
    ignored: u64 = 0
    for signal in range(u64(1), u64(SIGNALS + 1)):
        if syscall(SYS_SIGACTION, signal, 0, cast(u64, action), 8) == 0 and action.handler == SIG_IGN:
            ignored |= u64(1) << (signal - 1)
    pending = new(u64, 1)
    pending[0] = 0
    syscall(SYS_SIGPENDING, cast(u64, pending), 8)
    put_number(to, pending[0])
    put_number(to + 16, ignored)


@native(inline=False)
def block_interrupt(to: Ptr[u8]) -> None:
    """Block SIGINT; write whether it was blocked, and a zero."""
    masks = new(u64, 2)
    masks[0] = u64(1) << SIGINT_BIT
    masks[1] = 0
    syscall(SYS_SIGPROCMASK, SIG_BLOCK, cast(u64, masks), cast(u64, masks + 1), 8)
    to[0] = ZERO + u8(masks[1] >> SIGINT_BIT & 1)
    to[1] = 0


@native(export=True)
def launch(stack: Ptr[u64]) -> None:
    """Become Python, with the arguments and the environment that are on the stack."""
    count = stack[0]
    environment = stack + count + 2
    folder = new(u8, PATH_BYTES + NAME_BYTES)
    python = new(u8, PATH_BYTES + NAME_BYTES)
    signals = new(u8, 40)
    put_signals(signals)
    block_interrupt(signals + 32)
    words = cast(
        Ptr[u64],
        syscall(SYS_MMAP, 0, (count + FIXED_WORDS) * 8, READ_WRITE, PRIVATE_ANONYMOUS, 0xFFFFFFFFFFFFFFFF, 0),
    )
    length = u64(syscall(SYS_READLINK, cast(u64, SELF), cast(u64, folder), PATH_BYTES))
    if length > PATH_BYTES:  # an error
        length = 0
    while length and folder[length - 1] != SLASH:
        length -= 1
    if length:
        length -= 1
    folder[length] = 0
    words[1] = cast(u64, ISOLATED)
    words[2] = cast(u64, NO_SITE)
    words[3] = cast(u64, OPTION)
    words[4] = cast(u64, UTF8)
    words[5] = cast(u64, COMMAND)
    words[6] = cast(u64, CODE)
    words[7] = cast(u64, folder)
    words[8] = cast(u64, signals)
    last: u64 = 9
    for i in range(u64(1), count):
        words[last] = stack[1 + i]
        last += 1
    words[last] = 0
    for i in range(length):
        python[i] = folder[i]
    put_name(python, length)
    run(python, words, environment)
    search(python, words, environment)
    syscall(SYS_WRITE, 2, cast(u64, TEXT), COMPLAINT_BYTES)
    syscall(SYS_EXIT_GROUP, NO_PYTHON)


__all__ = ["START", "launch"]
