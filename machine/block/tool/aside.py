"""Targets that come into being whole: written beside their name, renamed at the end, removed if there is no end.

That is for files. A device or a server cannot be renamed: it is written where it is, and an unfinished one is told of.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from dbt.machine.block.errors import HostError
from dbt.machine.block.graph import open_node
from dbt.machine.block.spec import Spec, parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator


def _terminated(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: with what it has begun put in order."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _terminated) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def aside(image: str, driver: str, *, overwrite: bool = False, durable: bool = True) -> Iterator[Spec]:
    """The Spec of where to write what is to become `image` of format `driver`: beside it, or there (`overwrite`).

    `durable`: whoever writes has the content put on stable storage, so its name goes there as well.
    """
    spec = parse_spec(image, driver)
    file = spec.children.get("file")
    name = os.path.realpath(str(file.options["filename"])) if file is not None and file.driver == "file" else ""
    if not name or (os.path.exists(name) and not stat.S_ISREG(os.stat(name).st_mode)):
        try:
            yield spec
        except BaseException:
            sys.stderr.write(f"dragoman: {spec} is unfinished: what it holds is not to be used\n")
            raise
        return
    assert file is not None
    if overwrite:
        before = _state(name)
        try:
            yield spec
        except BaseException:
            begun = _state(name) != before
            if begun:
                os.unlink(name)
            what = "is removed: it was unfinished" if begun else "is as it was"
            sys.stderr.write(f"dragoman: {image} {what}\n")
            raise
        if durable and before is None:
            _sync_folder(name)
        return
    old = None
    if os.path.exists(name):  # nobody else uses it: it is locked from now on; whether it is on the disk is all the same
        old = open_node(Spec("file", {**file.options, "no-flush": True}), writable=True)
    folder, base = os.path.split(name)
    beside = os.path.join(folder, f".{base}.{os.getpid()}.unfinished")
    file.options["filename"] = beside
    try:
        yield spec
        try:
            if old is not None:
                os.chmod(beside, stat.S_IMODE(os.stat(name).st_mode))
            os.replace(beside, name)
        except OSError as error:
            raise HostError(name, error, doing="cannot take its place") from None
        if durable:
            _sync_folder(name)
    except BaseException:
        kept = "is as it was" if old is not None else "was not made"
        sys.stderr.write(f"dragoman: {image} {kept}: the unfinished one is removed\n")
        raise
    finally:
        file.options["filename"] = name
        if os.path.lexists(beside):
            os.unlink(beside)
        if old is not None:
            old.close()


def _sync_folder(name: str) -> None:
    """After a crash the name leads to the new file."""
    try:
        folder = os.open(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise HostError(name, error, doing="its name is not on stable storage") from None


def _state(name: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
