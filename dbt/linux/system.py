"""System calls about the machine and the process's standing in it: uname, prctl, personality."""

from __future__ import annotations

import os

from .abi import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_PRCTL, _HOST_SETHOSTNAME = 157, 170
_UTSNAME_FIELD = 65
_QUERY_PERSONALITY = 0xFFFFFFFF
# prctl(2) options whose arguments are plain numbers: PDEATHSIG, DUMPABLE, KEEPCAPS, TIMING, TIMERSLACK, SECUREBITS,
# CAPBSET, CHILD_SUBREAPER, NO_NEW_PRIVS, THP_DISABLE, CAP_AMBIENT.
_PLAIN = frozenset((1, 3, 7, 8, 13, 14, 23, 24, 27, 28, 29, 30, 36, 38, 39, 41, 42, 47))
_TO_POINTER = {2: 4, 37: 4}  # GET_PDEATHSIG, GET_CHILD_SUBREAPER: the size of what is filled in
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_GET_NAME = 4, 15, 16
_NAME_SIZE = 16
# AArch64 and newer options that C libraries probe: tagged addresses, pointer authentication, SVE, MTE, VMA names.
_PROBED = frozenset((50, 51, 54, 55, 56, 60, 61, 63, 64, 0x53564D41))


def sys_uname(process: Process, buffer: int, *_: int) -> int:
    """Name the system: the host's kernel, the guest's machine."""
    host = os.uname()
    fields = (host.sysname, host.nodename, host.release, host.version, "aarch64", "(none)")
    encoded = b"".join(os.fsencode(field)[: _UTSNAME_FIELD - 1].ljust(_UTSNAME_FIELD, b"\0") for field in fields)
    process.memory.write(buffer, encoded)
    return 0


def sys_sethostname(process: Process, name: int, size: int, *_: int) -> int:
    """Name the machine."""
    return int(process.call(_HOST_SETHOSTNAME, process.pointer(name, size & 0xFFFFFFFF), size))


def sys_personality(process: Process, wanted: int, *_: int) -> int:
    """Remember a personality; its flags change nothing here."""
    before = process.personality
    if wanted & 0xFFFFFFFF != _QUERY_PERSONALITY:
        process.personality = wanted & 0xFFFFFFFF
    return before


def sys_prctl(process: Process, option: int, a: int, b: int, c: int, d: int, *_: int) -> int:
    """Control the process, as far as that concerns the guest and not the translator."""
    option &= 0xFFFFFFFF
    if option in _PLAIN:
        return int(process.call(_HOST_PRCTL, option, a, b, c, d))
    if option in _TO_POINTER:
        return int(process.call(_HOST_PRCTL, option, process.pointer(a, _TO_POINTER[option]), b, c, d))
    if option == _PR_SET_DUMPABLE:
        return 0 if a in {0, 1} else -EINVAL
    if option == _PR_SET_NAME:
        try:
            text = process.memory.read_cstring(a, _NAME_SIZE - 1)
        except OSError:  # it is longer: the rest does not matter
            text = process.memory.read(a, _NAME_SIZE - 1)
        return int(process.call(_HOST_PRCTL, option, process.scratch.text(text)))
    if option == _PR_GET_NAME:
        return int(process.call(_HOST_PRCTL, option, process.pointer(a, _NAME_SIZE)))
    if option not in _PROBED:
        process.missing_feature(f"prctl option {option} is not implemented: EINVAL")
    return -EINVAL
