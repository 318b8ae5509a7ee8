"""Where the `dragoman` command enters Python: bin/dragoman (dbt/engine/launcher.py) has main() called.

What the guest must get as if nobody stood between it and its caller is gathered here, in `Origin`, before Python's own
traces matter:

- Environment. Python adds LC_CTYPE to its environment under the C locale (PEP 538), also with -I. The block that the
  kernel handed over stays as it was in /proc/self/environ, so it is read there: all bytes, order, duplicates.
- Arguments. Python runs with -X utf8, in which os.fsencode gives back every byte of an argument.
- Signal dispositions. Python ignores SIGPIPE and SIGXFSZ, which loses those that were blocked and pending; the launcher
  says what was ignored and what was pending before that. Everything else (the other dispositions, the mask) is still as
  it was.

This module is on the warm path: see tests/cli/test_warm_path.py for what it may import.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the module signal imports enum, which takes its time
import gc
import os
import sys

from dbt.streams import Lost, occupy, say_lost, use_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SIGINT = 2
INTERRUPTED = 130  # exit status, as a shell's for a program that SIGINT has killed
GUESTS = ("trace", "coverage", "profile")  # beside `run`: the guest gets the descriptors as they are


class Origin:
    """What the process was started with: `environ` as the kernel had it, masks of signals (bit number - 1).

    `command` is how this very command can be started again, for a guest that executes it.
    """

    __slots__ = ("command", "environ", "ignored", "pending")

    def __init__(self, command: list[bytes], environ: list[bytes], ignored: int, pending: int = 0) -> None:
        self.command = command
        self.environ = environ
        self.ignored = ignored
        self.pending = pending

    def ignores(self, signal: int) -> bool:
        """Whether `signal` was ignored when the command was started."""
        return bool(self.ignored >> (signal - 1) & 1)


def read_environ() -> list[bytes]:
    """The environment as the kernel handed it over, one NAME=VALUE each; Python's own view of it without a /proc."""
    try:
        with open("/proc/self/environ", "rb", buffering=0) as file:
            block = file.readall()
    except OSError:
        return [name + b"=" + value for name, value in os.environb.items()]
    return block.split(b"\0")[:-1] if block else []


def main() -> NoReturn:
    """Run the command line in sys.argv as bin/dragoman lays it out, and leave the process."""
    gc.disable()  # what is made until the guest runs is there to stay: see dbt/run.py
    _, folder, signals, *arguments = sys.argv
    pending, ignored = int(signals[:16], 16), int(signals[16:32], 16)
    origin = Origin([os.fsencode(folder) + b"/dragoman"], read_environ(), ignored, pending)
    sys.argv = ["dragoman", *arguments]
    use_streams()
    try:
        status = dispatch(arguments, origin)
    except Lost as lost:
        say_lost(lost)
        status = 1
    leave(status)


def dispatch(arguments: list[str], origin: Origin) -> int:
    """Run one command line; its exit status."""
    if arguments[:1] == ["run"]:
        if not origin.ignores(SIGINT):
            # Python's own handler would show where it was, until the guest's disposition takes its place.
            _signal.signal(SIGINT, _signal.SIG_DFL)
        from dbt.bundle import use_bundle

        use_bundle()
        from dbt.run import run_command

        return run_command(arguments[1:], origin)
    if not set(arguments[:1]) & set(GUESTS):
        occupy()
    gc.enable()  # the launcher has switched it off: a warm start would spend a tenth of its time looking for garbage
    try:
        if not origin.ignores(SIGINT):
            _signal.signal(SIGINT, _signal.default_int_handler)  # before and after, an interrupt just ends the process
        from dbt.cli import main as cli_main

        return cli_main(arguments, origin)
    except KeyboardInterrupt:
        sys.stderr.write("dragoman: interrupted\n")
        return INTERRUPTED


def leave(status: int) -> NoReturn:
    """End the process, without Python's finalisation, which costs milliseconds."""
    if _signal.getsignal(SIGINT) is _signal.default_int_handler:
        _signal.signal(SIGINT, _signal.SIG_DFL)
    lost = finish_output()
    os._exit(status or int(lost))


def finish_output() -> bool:
    """What Python would do at its end and must not be left out: exit functions, buffered output.

    The result is whether output was lost, which is said here.
    """
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()  # noqa: SLF001 - the documented way ends the interpreter as well
    try:
        sys.stdout.flush()
    except Lost as lost:
        say_lost(lost)
        return True
    return False
