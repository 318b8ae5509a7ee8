"""The commands `trace`, `coverage`, `profile` and `explain`: their options, and a program that runs under a plugin."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from dbt.errors import InternalError, UsageError, UserError
from dbt.run import ENGINES, RunOptions, parse, report, warn
from dbt.wording import sentence

if TYPE_CHECKING:
    from typing import NoReturn

    from dbt.instrument import Plugin
    from dbt.launch import Origin
    from dbt.linux.process import Process

_FATAL = (1, 2, 3, 10, 12, 13, 14, 15)  # SIGHUP, INT, QUIT, USR1, USR2, PIPE, ALRM, TERM: reported before they kill
STATUS = """\
exit status: the program's; if a signal ends the program, the same signal ends this command. 1: what the program did is
well, but the report could not be written; 2: the command line is wrong; 125, 126, 127: as for run.
"""
TRACED = """\
Without -i, -m or -s it shows all three. Forked children write to the same place, each line begins with the process.

examples:
  dragoman trace ./prog 2>&1 | less         everything
  dragoman trace -s -o calls ./prog a b     system calls only, into a file

"""
COVERED = """\
The file is in drcov's format, version 2, which Lighthouse, bncov, Cutter and others open. A forked child writes a file
of its own: OUTPUT.PID. A process that is killed by SIGKILL, or that executes a host program, writes none.

examples:
  dragoman coverage ./prog                  into prog.drcov
  dragoman coverage -o run1.drcov ./prog a  into run1.drcov

"""
PROFILED = """\
Instructions are counted exactly, block by block; functions are those of the ELF files' symbol tables. A forked child
writes a report of its own, about itself: OUTPUT.PID; without -o it goes to standard error as well.

examples:
  dragoman profile -n 5 ./prog              the five hottest functions and blocks
  dragoman profile --html page.html ./prog  a page with a map of widths and the code

"""
EXPLAINED = """\
The program is loaded and does not run, so it takes no arguments. Options may stand before and behind it.

examples:
  dragoman explain ./prog                                   the first block that would run
  dragoman explain ./prog --at main --engine interpreter    another block, on another engine
  dragoman explain ./prog --at loop --engine optimizer --html page.html

exit status: 0: shown; 2: the command line is wrong, or there is no code at ADDRESS; 125, 126, 127: as for run.
"""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parsers to argparse's subparsers."""

    def command(name: str, about: str, epilog: str, usage: str) -> argparse.ArgumentParser:
        found = commands.add_parser(
            name, help=about, description=sentence(about), epilog=epilog,
            usage=f"dragoman {name} {usage}", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        found.add_argument("-L", dest="root", metavar="ROOT", help="folder for the guest's absolute paths, as for run")
        return found

    def running(name: str, about: str, epilog: str) -> argparse.ArgumentParser:
        found = command(name, about, epilog + STATUS, "[OPTION…] PROGRAM [ARGUMENT…]")
        found.add_argument("-E", dest="set", metavar="NAME=VALUE", action="append", default=[],
                           help="set a variable in the guest's environment; may be repeated")  # fmt: skip
        found.add_argument("-U", dest="unset", metavar="NAME", action="append", default=[],
                           help="remove a variable from the guest's environment; may be repeated")  # fmt: skip
        found.add_argument("--engine", metavar="ENGINE", help=f"one of {', '.join(ENGINES)}; default: baseline")
        found.add_argument("words", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT…]",
                           help="what stands behind PROGRAM is for the program")  # fmt: skip
        return found

    trace = running("trace", "show what a program does: instructions, memory accesses, system calls", TRACED)
    trace.add_argument("-i", "--instructions", action="store_true", help="each instruction")
    trace.add_argument("-m", "--memory", action="store_true", help="each access to memory")
    trace.add_argument("-s", "--syscalls", action="store_true", help="each system call")
    trace.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard error")

    coverage = running("coverage", "write down which blocks of a program have run", COVERED)
    coverage.add_argument("-o", "--output", metavar="FILE", help="where to; default: the program's name with .drcov")

    profile = running("profile", "show in which functions and blocks a program's instructions are", PROFILED)
    profile.add_argument("-o", "--output", metavar="FILE", help="write the text to FILE instead of standard error")
    profile.add_argument("--html", metavar="FILE", help="write a page for a browser")
    profile.add_argument("-n", "--top", type=count, default=20, metavar="N", help="lines of each list (20)")

    about = "show a block or region as guest code, IR and host code, side by side"
    explain = command("explain", about, EXPLAINED, "[OPTION…] PROGRAM")
    explain.add_argument("--at", metavar="ADDRESS",
                         help="a number or symbol, or main+0x10 and such; default: the entry point")  # fmt: skip
    explain.add_argument(
        "--engine", dest="engines", metavar="ENGINE",
        help="baseline (default), reference, interpreter, optimizer (the region), or several with commas between",
    )  # fmt: skip
    explain.add_argument("--html", metavar="FILE", help="write a page for a browser instead")
    explain.add_argument("--width", type=count, metavar="N", help="columns of the text; default: the terminal's")
    explain.add_argument("program", metavar="PROGRAM")


def count(text: str) -> int:
    """A number of lines or columns, for argparse."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


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
    words: list[str] = [options.program] if "program" in options else list(options.words)
    if words[:1] == ["--"] and "program" not in options:
        del words[0]
    if not words:
        raise UsageError(f"{options.command}: which program?", f"dragoman {options.command} [OPTION…] PROGRAM.")
    flags = [word for name in getattr(options, "unset", ()) for word in ("-U", name)]
    flags += [word for pair in getattr(options, "set", ()) for word in ("-E", pair)]
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


def run(process: Process, plugin: Plugin | None, output: Output | None = None) -> NoReturn:
    """Run under a plugin, and end as the program ends; with 1 where it says 0 and what the tool had to say is lost."""
    from dbt.launch import finish_output

    if plugin is not None:
        process.cpu.instrument().add(plugin)
        process.signals.catch(_FATAL)
    try:
        if process.run() is None:
            raise InternalError(f"the program did not end: {process.cpu.describe_exit(process.cpu.env.exit)}")
        if output is not None:
            output.check()
    except UserError as error:
        if process.status is None:  # it has not ended: this is no report's
            raise
        report(error)
        if process.status == 0 and not process.child:
            process.status = error.status
    finish_output()
    process.finish()


class Output:
    """Where a tool writes, out of the guest's reach: a file, or what standard error was at the start."""

    def __init__(self, process: Process, path: str | None) -> None:
        self._path = path or "standard error"
        self._lost = ""
        if path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            try:
                self._fd = process.hide(os.open(path, flags, 0o666))
            except OSError as error:
                raise UsageError(f"{path}: {error.strerror}", "Name a file that can be written.") from None
        else:
            try:
                self._fd = process.hide(os.dup(2))
            except OSError:
                raise UsageError("standard error is closed", "Name a file: -o FILE.") from None

    def write(self, text: str) -> None:
        """Write at once: other processes may write to the same file. What comes after a failure is left out."""
        if self._lost:
            return
        data = text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError as error:
                self._lost = error.strerror or str(error)
                return

    def check(self) -> None:
        """Raise UserError if something could not be written."""
        if self._lost:
            raise UserError(f"{self._path}: {self._lost}")


def check_writable(path: str) -> None:
    """Raise UsageError if the file cannot be written; best before a program has run for an hour."""
    there = os.path.exists(path)
    if there and not os.path.isfile(path) and not os.path.isdir(path):
        return  # a device, or a pipe that would wait for its reader
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
        if not there:
            os.unlink(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "Name a file that can be written.") from None


def write_file(path: str, data: bytes) -> None:
    """Write a report. Raises UserError."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def own_path(path: str, *, child: bool) -> str:
    """The file of this process: children have their own, but for devices and pipes."""
    return path if not child or (os.path.exists(path) and not os.path.isfile(path)) else f"{path}.{os.getpid()}"
