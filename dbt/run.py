"""The `run` command: its options, parsed by hand since argparse alone takes longer than a cached guest, and the run.

dbt/cli.py shows the help that belongs to these options (HELP below), so that there is one list of them.
This module is on the warm path.
"""

from __future__ import annotations

import gc
import os
import sys

from dbt.errors import DragomanError, InternalError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from dbt.launch import Origin

ENGINES = ("baseline", "optimizer", "interpreter", "reference")
HELP = """\
usage: dragoman run [OPTION…] PROGRAM [ARGUMENT…]

Run an AArch64 Linux program as if it were one of this machine.

options:
  -L ROOT              folder in which the guest's absolute paths are looked up first
  --engine ENGINE      baseline: compiled stencils, the default; optimizer: hot code compiled again, by LLVM as a whole;
                       interpreter: compiled handlers, exact and without executable memory of its own; reference:
                       plain Python, needs no compiler
  --wait               with the optimizer: the program waits for code that is compiled again, so that each run does the
                       same
  --strace             print each system call with its result on standard error
  --stats              print what was translated, and how fast, on standard error at the end; instructions are counted,
                       but on the optimizer, which has no regions where they are
  -E NAME=VALUE        set a variable in the guest's environment; may be repeated
  -U NAME              remove a variable from the guest's environment; may be repeated
  -g PORT              wait for gdb on 127.0.0.1:PORT, HOST:PORT or a Unix socket's path (with a slash in it)
  -0 ARGV0             what the program sees as its own name, instead of PROGRAM
  -h, --help           show this text

examples:
  dragoman run ./busybox sh -c 'echo $((6*7))'      a static program
  dragoman run -L ./arm64-root ./arm64-root/bin/ls  one whose libraries are in a folder
  dragoman run --strace -E LANG=C ./prog            its system calls, in another environment

exit status: the program's; if a signal ends the program, the same signal ends this command. 126: PROGRAM cannot be run;
127: PROGRAM does not exist; 125: Dragoman cannot do what the program needs; 2: the command line is wrong.
"""
LAST_PORT = 65535
FLAGS = {"--strace": "strace", "--stats": "stats", "--wait": "wait"}
VALUES = {"-L": "root", "-g": "gdb", "--engine": "engine", "-E": "set", "-U": "unset", "-0": "argv0"}


class RunOptions:
    """The options of `run`. What the guest sees of them is bytes; file names are text as os.fsdecode has it."""

    __slots__ = ("argv", "engine", "environ", "gdb", "path", "root", "stats", "strace", "wait")

    def __init__(self, path: str, argv: list[bytes], environ: list[bytes]) -> None:
        self.path = path
        self.argv = argv
        self.environ = environ
        self.root = ""
        self.engine = ENGINES[0]
        self.strace = False
        self.stats = False
        self.wait = False
        self.gdb = ""


def parse(arguments: list[str], environ: list[bytes]) -> RunOptions | None:
    """The options in `arguments` (without 'run'); None if help is wanted. Raises UsageError."""
    flags: list[str] = []
    values: list[tuple[str, str]] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        position += 1
        if word in ("-h", "--help"):
            return None
        if word in FLAGS:
            flags.append(FLAGS[word])
            continue
        name, value = _split(word)
        if name not in VALUES:
            raise UsageError(f"run: no option {word}", "`dragoman run --help` lists the options.")
        if value is None:
            if position == len(arguments):
                raise UsageError(f"run: {name} needs a value", "`dragoman run --help` lists the options.")
            value = arguments[position]
            position += 1
        values.append((VALUES[name], value))
    if position == len(arguments):
        raise UsageError("run: which program?", "Give the path of an AArch64 Linux program: dragoman run PROGRAM.")
    argv = [os.fsencode(word) for word in arguments[position:]]
    options = RunOptions(arguments[position], argv, list(environ))
    for flag in flags:
        setattr(options, flag, True)
    for name, value in values:
        _apply(options, name, value)
    return options


def _split(word: str) -> tuple[str, str | None]:
    """An option word and the value attached to it, if any: --engine=reference, -Lroot."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return word[:2], word[2:] or None


def _apply(options: RunOptions, name: str, value: str) -> None:
    raw = os.fsencode(value)
    if name == "root":
        if not os.path.isdir(value):
            raise UsageError(f"-L {value}: not a folder", "Name the folder that holds the guest's lib and usr.")
        options.root = value
    elif name == "engine":
        if value not in ENGINES:
            raise UsageError(f"no engine {value!r}", f"The engines are {', '.join(ENGINES)}.")
        options.engine = value
    elif name == "argv0":
        options.argv[0] = raw
    elif name == "gdb":
        port = value.rpartition(":")[2]
        if "/" not in value and not (port.isascii() and port.isdigit() and int(port) <= LAST_PORT):
            raise UsageError(f"-g {value}: no port", "Give a port, HOST:PORT, or a path with a slash in it.")
        options.gdb = value
    elif name == "set":
        key = raw.partition(b"=")[0] + b"="
        if key == b"=" or b"=" not in raw:
            raise UsageError(f"-E {value}: not NAME=VALUE", "For example: -E LANG=C. -U NAME removes a variable.")
        options.environ = [*(entry for entry in options.environ if not entry.startswith(key)), raw]
    else:
        key = raw + b"="
        options.environ = [entry for entry in options.environ if not entry.startswith(key)]


def run_command(arguments: list[str], origin: Origin) -> int:
    """The whole `run` command; its exit status, unless the program ends the process. Complains on standard error."""
    try:
        options = parse(arguments, origin.environ)
        if options is None:
            sys.stdout.write(HELP)
            return 0
        run_program(options, origin)
    except DragomanError as error:
        return report(error)


def run_program(options: RunOptions, origin: Origin) -> NoReturn:
    """Run the program of `options`, and end as it ends: with its exit status, or by dying of its signal."""
    from dbt.engine.cpu import Cpu
    from dbt.launch import finish_output
    from dbt.linux.process import Process

    cpu = Cpu(engine=options.engine)
    if cpu.baseline is not None:
        cpu.baseline.background = not options.wait
    hwcap, hwcap2 = cpu.hwcap
    process = Process(
        cpu,
        root=options.root,
        hwcap=hwcap,
        hwcap2=hwcap2,
        ignored=origin.ignored,
        pending=origin.pending,
        strace=options.strace,
        log=warn,
    )
    process.load(options.path, options.argv, options.environ)
    gc.freeze()
    gc.enable()
    if options.gdb:
        from dbt.gdb.server import debug_process

        debug_process(process, options.gdb)
    elif options.stats:
        from dbt.statistics import measured_run

        sys.stderr.write(measured_run(process))
    else:
        process.run()
    finish_output()
    process.finish()


def warn(text: str) -> None:
    """Say something about the run that the user should know."""
    sys.stderr.write(f"dragoman: {text}\n")


def report(error: DragomanError) -> int:
    """Say what went wrong in the words of the error; its exit status."""
    sys.stderr.write(f"dragoman: {error}\n")
    if isinstance(error, InternalError):
        sys.stderr.write("This is a bug of Dragoman, not of your program: please report it with this message.\n")
    return error.status
