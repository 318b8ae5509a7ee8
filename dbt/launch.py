"""Where the `dragoman` command enters Python: bin/dragoman calls main() with its folder, its /proc/self/stat, and argv.

What the guest must get as if nobody stood between it and its caller is gathered here, in `Origin`, before Python's own
traces matter:

- Environment. Python adds LC_CTYPE to its environment under the C locale (PEP 538), also with -I. The block that the
  kernel handed over stays as it was in /proc/self/environ, so it is read there: all bytes, order, duplicates. What the
  launcher's shell itself changes is documented and cannot be undone here: it sets PWD to the working folder, and some
  shells drop variables whose names are no shell names.
- Arguments. Python runs with -X utf8, in which os.fsencode gives back every byte of an argument.
- Signal dispositions. Python ignores SIGPIPE and SIGXFSZ; what was ignored before is in field 33 of /proc/PID/stat as
  the launcher read it. Everything else (the other dispositions, the mask) is still as it was.

This module is on the warm path: see tests/cli/test_warm_path.py for what it may import.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

STAT_SIGIGNORE = 33  # proc(5): number of the field of /proc/PID/stat, counted from 1


class Origin:
    """What the process was started with: `environ` as the kernel had it, `ignored` a mask of signals (bit number - 1).

    `command` is how this very command can be started again, for a guest that executes it.
    """

    __slots__ = ("command", "environ", "ignored")

    def __init__(self, command: list[bytes], environ: list[bytes], ignored: int) -> None:
        self.command = command
        self.environ = environ
        self.ignored = ignored

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


def ignored_signals(stat: str) -> int:
    """The mask of ignored signals in a line of /proc/PID/stat; 0 if there is no such line."""
    fields = stat.rpartition(")")[2].split()  # the name of the process, field 2, may contain anything
    return int(fields[STAT_SIGIGNORE - 3]) if len(fields) > STAT_SIGIGNORE - 3 else 0


def main() -> NoReturn:
    """Run the command line in sys.argv as bin/dragoman lays it out, and leave the process."""
    gc.disable()  # what is made until the guest runs is there to stay: see dbt/run.py
    _, folder, stat, *arguments = sys.argv
    origin = Origin([os.fsencode(folder) + b"/dragoman"], read_environ(), ignored_signals(stat))
    sys.argv = ["dragoman", *arguments]
    leave(dispatch(arguments, origin))


def dispatch(arguments: list[str], origin: Origin) -> int:
    """Run one command line; its exit status."""
    if arguments[:1] == ["run"]:
        from dbt.bundle import use_bundle

        use_bundle()
        from dbt.run import run_command

        return run_command(arguments[1:], origin)
    gc.enable()  # the launcher has switched it off: a warm start would spend a tenth of its time looking for garbage
    gc.enable()
    from dbt.cli import main as cli_main

    return cli_main(arguments, origin)


def leave(status: int) -> NoReturn:
    """End the process, without Python's finalisation, which costs milliseconds."""
    finish_output()
    os._exit(status)


def finish_output() -> None:
    """What Python would do at its end and must not be left out: exit functions, buffered output."""
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()  # noqa: SLF001 - the documented way ends the interpreter as well
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the reader of our output is gone: there is nobody to tell
        pass
