"""execve: a guest program replaces the guest in this process, a host program replaces us (linux/fs/exec.c)."""

from __future__ import annotations

import ctypes
import os
from struct import pack

from dbt.engine import hostmem
from dbt.errors import GuestFault, ProgramUnusable

from . import loader, paths
from .abi import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    E2BIG,
    EACCES,
    EINVAL,
    ELIBBAD,
    ELOOP,
    ENOENT,
    ENOEXEC,
)  # fmt: skip
from .elf import is_guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_EXECVE, _HOST_FACCESSAT, _HOST_FCNTL, _HOST_CLOSE, _HOST_PRCTL = 59, 269, 72, 3, 157
_X_OK, _F_GETFD, _FD_CLOEXEC, _PR_SET_NAME = 1, 1, 1, 15
_HEAD = 256  # bytes that decide what a file is (BINPRM_BUF_SIZE)
_SCRIPTS = 5  # interpreters of interpreters
_MAX_STRINGS = 1 << 16
_MAX_BYTES = 6 << 20  # a kernel's own limit: three quarters of 8 MiB
_STRING = 128 << 10
_SIGKILL = 9


def sys_execve(process: Process, path: int, argv: int, environment: int, *_: int) -> int:
    """Execute a program."""
    name = process.memory.read_cstring(path)
    return _execute(process, name, _strings(process, argv), _strings(process, environment))


def sys_execveat(process: Process, directory: int, path: int, argv: int, environment: int, flags: int, *_: int) -> int:
    """Execute a program named relative to a folder, or an open file."""
    name = process.memory.read_cstring(path)
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        return -EINVAL
    fd = process.descriptor(directory)
    if name[:1] != b"/" and fd != AT_FDCWD:
        if not name and not flags & AT_EMPTY_PATH:
            return -ENOENT
        name = (b"/dev/fd/%d/%s" % (fd, name)) if name else b"/dev/fd/%d" % fd
    if flags & AT_SYMLINK_NOFOLLOW and os.path.islink(name):
        return -ELOOP
    return _execute(process, name, _strings(process, argv), _strings(process, environment))


def _strings(process: Process, array: int) -> list[bytes]:
    """An array of strings that ends with a null pointer; a null array is empty. Raises OSError(E2BIG)."""
    found: list[bytes] = []
    size = 0
    while array:
        pointer = process.memory.read_u64(array)
        if not pointer:
            break
        try:
            found.append(process.memory.read_cstring(pointer, _STRING))
        except OSError:
            raise OSError(E2BIG, os.strerror(E2BIG)) from None
        size += len(found[-1]) + 9
        if size > _MAX_BYTES or len(found) > _MAX_STRINGS:
            raise OSError(E2BIG, os.strerror(E2BIG))
        array += 8
    return found


def _execute(process: Process, name: bytes, argv: list[bytes], environment: list[bytes]) -> int:
    """Find out what a file is, following `#!` lines, and execute it."""
    argv = argv or [b""]
    given = name
    for _ in range(_SCRIPTS + 1):
        host_name = paths.translate(process, name)
        result = int(process.call(_HOST_FACCESSAT, AT_FDCWD, process.scratch.text(host_name), _X_OK, 0))
        if result < 0:
            return result
        if not os.path.isfile(host_name):
            return -EACCES
        try:
            with open(host_name, "rb", buffering=0) as file:
                head = file.read(_HEAD)
        except PermissionError:
            return _execute_host(process, host_name, argv, environment)
        if is_guest(head):
            return _execute_guest(process, host_name, given, argv, environment)
        if head[:2] != b"#!":
            return _execute_host(process, host_name, argv, environment)
        interpreter = _interpreter(head)
        if not interpreter:
            return -ENOEXEC
        argv = [*interpreter, name, *argv[1:]]
        name = interpreter[0]
    return -ELOOP


def _interpreter(head: bytes) -> list[bytes]:
    """The interpreter of a script and its one argument (binfmt_script.c); empty if the line makes no sense."""
    line, end, _ = head[2:].partition(b"\n")
    words = line.strip(b" \t\0").split(None, 1)
    if not words or (not end and len(head) == _HEAD and len(words) == 1):
        return []
    return [words[0], words[1].strip(b" \t\0")] if len(words) > 1 else words


def _execute_guest(process: Process, path: bytes, given: bytes, argv: list[bytes], environment: list[bytes]) -> int:
    """Replace the guest by another guest program."""
    text = os.fsdecode(path)
    try:
        fd, image = loader.open_image(process, text)
    except ProgramUnusable:
        return -ENOEXEC
    try:
        loader.check_strings(argv, environment, loader.stack_size(process))
        if image.interpreter:
            wanted = paths.translate(process, image.interpreter)
            if not os.path.exists(wanted):
                return -ENOENT
            if not os.path.isfile(wanted):
                return -EACCES
            with open(wanted, "rb", buffering=0) as file:
                if not is_guest(file.read(_HEAD)):
                    return -ELIBBAD
        # From here on there is no way back.
        if process.vfork_pipe >= 0:
            from .clone import release_parent

            release_parent(process)
        process.signals.reset()
        process.cpu.reset()
        _close_on_exec(process, fd)
        process.exe = os.path.realpath(text)
        comm = os.path.basename(given)[:15]
        process.call(_HOST_PRCTL, _PR_SET_NAME, process.scratch.text(comm))
        try:
            loader.load(process, fd, image, argv, environment, given)
        except (ProgramUnusable, GuestFault, OSError) as error:
            process.missing_feature(str(error))
            process.status = -_SIGKILL
    finally:
        os.close(fd)
    return 0


def _close_on_exec(process: Process, keep: int) -> None:
    """Close the guest's descriptors that are to be closed at exec."""
    try:
        numbers = [int(entry) for entry in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(_HEAD))
    for number in numbers:
        if number != keep and number < process.fd_limit:
            flags = process.call(_HOST_FCNTL, number, _F_GETFD)
            if flags >= 0 and flags & _FD_CLOEXEC:
                process.call(_HOST_CLOSE, number)
    process.listings.clear()


def _execute_host(process: Process, path: bytes, argv: list[bytes], environment: list[bytes]) -> int:
    """Replace ourselves by a host program. Comes back only if that fails."""
    texts = [path, *argv, *environment]
    words = len(argv) + len(environment) + 2
    size = 8 * words + sum(len(text) + 1 for text in texts)
    block = hostmem.map_anonymous(size)
    at = block + 8 * words
    pointers = []
    for text in texts:
        pointers.append(at)
        at += len(text) + 1
    split = 1 + len(argv)
    table = [*pointers[1:split], 0, *pointers[split:], 0]
    data = pack(f"<{words}Q", *table) + b"".join(text + b"\0" for text in texts)
    ctypes.memmove(block, data, len(data))
    process.signals.hand_over()
    result = int(process.call(_HOST_EXECVE, pointers[0], block, block + 8 * split))
    process.signals.take_back()
    hostmem.unmap_memory(block, size)
    return result
