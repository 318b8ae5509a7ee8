"""The exceptions of Dragoman: four kinds of trouble, told apart by class, and worded for four different readers.

    DragomanError
    ├── UserError                what the user asked cannot be done: says what, why and what to do instead
    │   ├── UsageError           a wrong command line or wrong arguments to the API (status 2)
    │   ├── ProgramNotFound      there is no such file (status 127, as shells have it)
    │   ├── ProgramUnusable      it is there, and cannot be run: not an ELF, wrong machine, unreadable … (status 126)
    │   └── CacheUnusable        the cache folder cannot be trusted or written: one can go on without it
    ├── GuestError               what the guest did wrong, met by Python code that works for it
    │   └── GuestFault           an access to guest memory that the guest may not make: (address, access)
    ├── Unimplemented            what a later version may be able to do, named exactly
    └── InternalError            our own bug: nothing that users or guests do may cause one

What a guest does wrong in its own code never comes as an exception: it is an exit reason (dbt/engine/layout.py,
EXIT_...), because no Python exception may travel through translated frames. GuestFault is for the Python side of a
system call or of the API, which turns it into EFAULT, a signal, or an exit.

This module is on the warm path: it imports nothing.
"""

from __future__ import annotations

READ, WRITE, FETCH = "read", "write", "fetch"


class DragomanError(Exception):
    """The root of all errors that Dragoman raises on purpose; `status` is the exit status for the command line."""

    status = 1


class UserError(DragomanError):
    """What the user asked cannot be done. `hint` says what to do instead."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


class UsageError(UserError):
    """The command line or the arguments of an API call are wrong."""

    status = 2


class ProgramNotFound(UserError):
    """The program does not exist."""

    status = 127

    def __init__(self, path: str, reason: str = "no such file", hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path = path
        self.reason = reason


class ProgramUnusable(UserError):
    """The program exists and cannot be run: `reason` says what is wrong with it, at `offset` of the file if known."""

    status = 126

    def __init__(self, path: str, reason: str, hint: str = "", offset: int | None = None) -> None:
        where = path if offset is None else f"{path}: at offset {offset:#x}"
        super().__init__(f"{where}: {reason}", hint)
        self.path = path
        self.reason = reason
        self.offset = offset


class CacheUnusable(UserError):
    """The translation cache cannot be trusted or written."""

    def __init__(self, path: str, reason: str, hint: str = "") -> None:
        super().__init__(f"cache {path}: {reason}", hint)
        self.path = path
        self.reason = reason


class GuestError(DragomanError):
    """What the guest did wrong, met by Python code that works for it."""


class GuestFault(GuestError):
    """An access to guest memory that is not mapped, or not for that: the guest address, and READ, WRITE or FETCH."""

    def __init__(self, address: int, access: str = READ) -> None:
        super().__init__(address, access)
        self.address = address
        self.access = access

    def __str__(self) -> str:
        return f"guest {self.access} at {self.address:#x}"


class Unimplemented(DragomanError):
    """Something that Dragoman does not do yet; the message names it exactly."""

    status = 125


class InternalError(DragomanError):
    """Our own bug: please report it with what the message says."""

    status = 70  # EX_SOFTWARE of sysexits.h
