"""The commands `trace`, `coverage`, `profile` and `explain`: their options, and a program that runs under a plugin."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from dbt.errors import InternalError, UsageError
from dbt.run import ENGINES, RunOptions, parse, warn

if TYPE_CHECKING:
    from typing import NoReturn

    from dbt.instrument import Plugin
    from dbt.launch import Origin
    from dbt.linux.process import Process

_FATAL = (1, 2, 3, 10, 12, 13, 14, 15)  # SIGHUP, INT, QUIT, USR1, USR2, PIPE, ALRM, TERM: reported before they kill
STATUS = "The exit status is the program's; if a signal ends the program, the same signal ends this command."
TRACED = """\
Without -i, -m or -s it shows all three. Forked children write to the same place, each line begins with the process.
"""
COVERED = """\
The file is in drcov's format, version 2, which Lighthouse, bncov, Cutter and others open. A forked child writes a file
of its own: OUTPUT.PID. A process that is killed by SIGKILL, or that executes a host program, writes none.
"""
PROFILED = """\
Instructions are counted exactly, block by block; functions are those of the ELF files' symbol tables. A forked child
writes a report of its own, about itself: OUTPUT.PID; without -o it goes to standard error as well.
"""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parsers to argparse's subparsers."""
    form = argparse.RawDescriptionHelpFormatter
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-L", dest="root", metavar="ROOT", help="folder for the guest's absolute paths, as for run")
    common.add_argument("-E", dest="set", metavar="NAME=VALUE", action="append", default=[], help="as for run")
    common.add_argument("-U", dest="unset", metavar="NAME", action="append", default=[], help="as for run")
    common.add_argument("words", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT…]")

    def command(name: str, about: str, more: str = "") -> argparse.ArgumentParser:
        found = commands.add_parser(
            name, help=about, description=f"{about.capitalize()}.", epilog=more + STATUS, parents=[common],
            formatter_class=form,
        )  # fmt: skip
        if name != "explain":
            found.add_argument("--engine", metavar="ENGINE", help=f"one of {', '.join(ENGINES)}; default: baseline")
        return found

    trace = command("trace", "show what a program does: instructions, memory accesses, system calls", TRACED)
    trace.add_argument("-i", "--instructions", action="store_true", help="each instruction")
    trace.add_argument("-m", "--memory", action="store_true", help="each access to memory")
    trace.add_argument("-s", "--syscalls", action="store_true", help="each system call")
    trace.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard error")

    coverage = command("coverage", "write down which blocks of a program have run", COVERED)
    coverage.add_argument("-o", "--output", metavar="FILE", help="(default: the program's name with .drcov)")

    profile = command("profile", "show in which functions and blocks a program's instructions are", PROFILED)
    profile.add_argument("-o", "--output", metavar="FILE", help="write the text to FILE instead of standard error")
    profile.add_argument("--html", metavar="FILE", help="write a page for a browser")
    profile.add_argument("-n", "--top", type=int, default=20, metavar="N", help="functions and blocks of the text")

    explain = command("explain", "show a block or region as guest code, IR and host code, side by side")
    explain.epilog = (
        "The program is loaded and does not run. ADDRESS is a number or a symbol; default: the entry point."
    )
    explain.add_argument("--at", metavar="ADDRESS", help="address or symbol, also with an offset: main+0x10")
    explain.add_argument(
        "--engine", dest="engines", metavar="ENGINE",
        help="baseline (default), reference, interpreter, optimizer (the region), or several with commas between",
    )  # fmt: skip
    explain.add_argument("--html", metavar="FILE", help="write a page for a browser instead")
    explain.add_argument("--width", type=int, default=0, help="columns of the text (default: the terminal's)")


def command(options: argparse.Namespace, origin: Origin) -> int:
    """Run one of the commands; does not return where the program's end is the command's."""
    if options.command == "explain":
        from .explain import explain

        return explain(options, run_options(options, origin), sys.stdout)
    if options.command == "trace":
        from .trace import trace

        return trace(options, origin)
    if options.command == "coverage":
        from .coverage import coverage

        return coverage(options, origin)
    from .profile import profile

    return profile(options, origin)


def run_options(options: argparse.Namespace, origin: Origin) -> RunOptions:
    """What `run` would have made of the same options."""
    words = list(options.words)
    if words[:1] == ["--"]:
        del words[0]
    if not words:
        raise UsageError(f"{options.command}: which program?", f"dragoman {options.command} [OPTION…] PROGRAM.")
    flags = [word for name in options.unset for word in ("-U", name)]
    flags += [word for pair in options.set for word in ("-E", pair)]
    if options.root:
        flags += ["-L", options.root]
    if getattr(options, "engine", None):
        flags += ["--engine", options.engine]
    found = parse([*flags, "--", *words], origin.environ)
    assert found is not None
    return found


def load(options: RunOptions, *, origin: Origin | None = None, strace: bool = False) -> Process:
    """A process, loaded and ready to run."""
    from dbt.engine.cpu import Cpu
    from dbt.linux.process import Process

    cpu = Cpu(engine=options.engine)
    hwcap, hwcap2 = cpu.hwcap
    process = Process(
        cpu, root=options.root, hwcap=hwcap, hwcap2=hwcap2, strace=strace, log=warn,
        ignored=None if origin is None else origin.ignored, pending=0 if origin is None else origin.pending,
    )  # fmt: skip
    process.load(options.path, options.argv, options.environ)
    return process


def run(process: Process, plugin: Plugin | None) -> NoReturn:
    """Run under a plugin, and end as the program ends."""
    from dbt.launch import finish_output

    if plugin is not None:
        process.cpu.instrument().add(plugin)
        process.signals.catch(_FATAL)
    if process.run() is None:
        raise InternalError(f"the program did not end: {process.cpu.describe_exit(process.cpu.env.exit)}")
    finish_output()
    process.finish()


class Output:
    """Where a tool writes, out of the guest's reach: a file, or what standard error was at the start."""

    def __init__(self, process: Process, path: str | None) -> None:
        if path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            try:
                self._fd = process.hide(os.open(path, flags, 0o666))
            except OSError as error:
                raise UsageError(f"{path}: {error.strerror}", "Name a file that can be written.") from None
        else:
            self._fd = process.hide(os.dup(2))

    def write(self, text: str) -> None:
        """Write at once: other processes may write to the same file."""
        data = text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                return  # nobody reads it


def own_path(path: str, *, child: bool) -> str:
    """The file of this process: children have their own, but for devices and pipes."""
    return path if not child or (os.path.exists(path) and not os.path.isfile(path)) else f"{path}.{os.getpid()}"
