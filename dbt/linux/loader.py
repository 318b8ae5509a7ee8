"""Mapping an executable into a guest's memory, and its first stack.

Sources: linux/fs/binfmt_elf.c (what goes where), linux/arch/arm64/include/uapi/asm/auxvec.h, AAPCS64 (the stack pointer
is a multiple of 16).
"""

from __future__ import annotations

import os
from struct import pack

from dbt.errors import ProgramUnusable

from .abi import E2BIG, PAGE, page_up
from .elf import ET_DYN, PHDR_SIZE, Image, read_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_PRIVATE, MAP_ANONYMOUS = 2, 0x20
AT_NULL, AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_BASE, AT_FLAGS, AT_ENTRY = 0, 3, 4, 5, 6, 7, 8, 9
AT_UID, AT_EUID, AT_GID, AT_EGID, AT_PLATFORM, AT_HWCAP, AT_CLKTCK, AT_SECURE = 11, 12, 13, 14, 15, 16, 17, 23
AT_RANDOM, AT_HWCAP2, AT_EXECFN, AT_MINSIGSTKSZ = 25, 26, 31, 51
MIN_SIGNAL_STACK = 4720  # sigframe, frame record and slack, as linux/arch/arm64/kernel/signal.c adds them up

_PIE_BASE = 0x55_0000_0000
_STACK_GAP = 1 << 20  # between the stack and the highest mapping
_STACK_DEFAULT, _STACK_LARGEST = 8 << 20, 64 << 20
_STRING_LIMIT = 128 << 10  # of one argument, as the kernel
# mov x8, #139; svc #0: what a signal handler returns to where the program gives no restorer (the kernel's vDSO has it).
_SIGRETURN = pack("<II", 0xD2801168, 0xD4000001)


def open_image(process: Process, path: str) -> tuple[int, Image]:
    """Open and read an executable; returns its descriptor too. Raises ProgramUnusable or OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not be waited for: it is no program
    try:
        return fd, read_image(fd, path, process.memory.limit)
    except BaseException:
        os.close(fd)
        raise


def check_strings(argv: list[bytes], environment: list[bytes], stack: int) -> None:
    """Raise OSError(E2BIG) where the kernel does: a quarter of the stack for all, 128 KiB for one."""
    total = sum(len(text) + 9 for text in argv) + sum(len(text) + 9 for text in environment)
    if total > stack // 4 or any(len(text) >= _STRING_LIMIT for text in (*argv, *environment)):
        raise OSError(E2BIG, os.strerror(E2BIG))


def stack_size(process: Process) -> int:
    """Bytes of the first stack: the soft limit on stacks, within reason."""
    soft = process.limits_of(3)[0]
    return page_up(soft) if _STACK_DEFAULT // 64 <= soft <= _STACK_LARGEST else _STACK_DEFAULT


def load(process: Process, fd: int, image: Image, argv: list[bytes], environment: list[bytes], name: bytes) -> None:
    """Fill an empty address space with an image and its interpreter, build the stack, set PC and SP.

    `name` is the path as it was given (AT_EXECFN). Raises ProgramUnusable if it cannot be done.
    """
    memory = process.memory
    size = stack_size(process)
    top = memory.limit - PAGE
    memory.map(top - size, size, PROT_READ | PROT_WRITE, name="[stack]")
    process.stack = (top - size, top)
    process.mmap_top = top - size - _STACK_GAP
    bias = 0
    if not image.pie and image.end > top - size:
        raise ProgramUnusable(image.path, f"its end, {image.end:#x}, is where the stack has to be")
    if image.pie:
        span = image.end - image.start
        wanted = (_PIE_BASE if memory.limit > 2 * _PIE_BASE else memory.limit // 4) & -image.align
        found = memory.find_free(span + image.align, wanted, process.mmap_top)
        if not found:
            raise ProgramUnusable(image.path, f"no room for {span:#x} bytes")
        bias = ((found + image.align - 1) & -image.align) - image.start
    _map_image(process, fd, image, bias)
    base, entry = 0, image.entry + bias
    if image.interpreter:
        base, entry = _map_interpreter(process, image)
    process.brk_start = process.brk = page_up(image.end + bias)
    page = memory.find_free(PAGE, 0, process.mmap_top)
    if not page:
        raise ProgramUnusable(image.path, "it leaves no room for anything else")
    memory.map(page, PAGE, PROT_READ | PROT_WRITE, name="[sigpage]")
    memory.write(page, _SIGRETURN)
    memory.protect(page, PAGE, PROT_READ | PROT_EXEC)
    process.sigreturn = page
    auxv = [
        (AT_HWCAP, process.hwcap),
        (AT_PAGESZ, PAGE),
        (AT_CLKTCK, 100),
        (AT_PHDR, image.phdr + bias if image.phdr else 0),
        (AT_PHENT, PHDR_SIZE),
        (AT_PHNUM, image.phnum),
        (AT_BASE, base),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry + bias),
        (AT_UID, os.getuid()),
        (AT_EUID, os.geteuid()),
        (AT_GID, os.getgid()),
        (AT_EGID, os.getegid()),
        (AT_SECURE, 0),
        (AT_HWCAP2, process.hwcap2),
        (AT_MINSIGSTKSZ, MIN_SIGNAL_STACK),
    ]
    process.cpu.set_reg("sp", _build_stack(process, top, argv, environment, auxv, name))
    process.cpu.set_reg("pc", entry)


def _map_image(process: Process, fd: int, image: Image, bias: int) -> None:
    """Map the segments of a file: pages of the file, then zeroes."""
    memory = process.memory
    try:
        for address, memsz, offset, filesz, prot in image.segments:
            start = address + bias
            first = start & -PAGE
            data_end = start + filesz
            end = page_up(start + memsz)
            if filesz:
                pages = page_up(data_end)
                zero = memsz > filesz and pages != data_end
                memory.map(first, pages - first, prot | (PROT_WRITE if zero else 0), MAP_PRIVATE, fd,
                           offset & -PAGE, name=image.path)  # fmt: skip
                if zero:
                    memory.write(data_end, bytes(pages - data_end))
                    if not prot & PROT_WRITE:
                        memory.protect(first, pages - first, prot)
                first = pages
            if end > first:
                memory.map(first, end - first, prot)
    except OSError as error:
        raise ProgramUnusable(image.path, f"cannot be mapped: {error.strerror}") from None


def _map_interpreter(process: Process, image: Image) -> tuple[int, int]:
    """Map the dynamic loader that a program names; returns its base and its entry."""
    from . import paths

    path = os.fsdecode(paths.translate(process, image.interpreter))
    try:
        fd, loader = open_image(process, path)
    except OSError as error:
        raise ProgramUnusable(
            image.path,
            f"its interpreter {os.fsdecode(image.interpreter)} cannot be opened: {error.strerror}",
            "Dynamic programs need the folder that holds their libraries: -L ROOT.",
        ) from None
    try:
        if not loader.pie:
            raise ProgramUnusable(path, f"an interpreter that is not position-independent (type {ET_DYN})", "", 16)
        span = page_up(loader.end - loader.start)
        found = process.memory.find_free(span + loader.align, 0, process.mmap_top)
        if not found:
            raise ProgramUnusable(path, f"no room for {span:#x} bytes")
        bias = ((found + loader.align - 1) & -loader.align) - loader.start
        _map_image(process, fd, loader, bias)
    finally:
        os.close(fd)
    return bias, loader.entry + bias


def _build_stack(
    process: Process,
    top: int,
    argv: list[bytes],
    environment: list[bytes],
    auxv: list[tuple[int, int]],
    name: bytes,
) -> int:
    """Write strings, pointers and the auxiliary vector; returns the stack pointer."""
    position = top - 8
    blob: list[bytes] = [bytes(8)]

    def put(data: bytes) -> int:
        nonlocal position
        position -= len(data)
        blob.append(data)
        return position

    execfn = put(name + b"\0")
    env_pointers = [put(text + b"\0") for text in reversed(environment)][::-1]
    arg_pointers = [put(text + b"\0") for text in reversed(argv)][::-1]
    platform = put(b"aarch64\0")
    random = put(os.urandom(16))
    pairs = [*auxv, (AT_RANDOM, random), (AT_EXECFN, execfn), (AT_PLATFORM, platform), (AT_NULL, 0)]
    vector = pack(f"<{2 * len(pairs)}Q", *(value for pair in pairs for value in pair))
    words = [len(argv), *arg_pointers, 0, *env_pointers, 0]
    table = pack(f"<{len(words)}Q", *words) + vector
    put(bytes((position - len(table)) % 16))
    sp = put(table)
    process.memory.write(sp, b"".join(reversed(blob)))
    process.auxv = vector
    process.argv = argv
    process.environment = environment
    return sp
