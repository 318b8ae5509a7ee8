"""dbt/launch.py and bin/dragoman: what the guest must get as if nobody stood between it and its caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.backends.llvm.executable import launcher

from dbt import launch, streams
from dbt.launch import Origin
from tests.conftest import default_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Command

LAUNCHER = Path(sys.executable).with_name("dragoman")
# In the place of what the command does: shows what it would be given.
PROBE = """
def dispatch(arguments, origin):
    print([os.fsencode(a) for a in arguments], sorted(origin.environ), origin.ignored, origin.command, origin.pending,
          [*map(int, _signal.pthread_sigmask(0, []))], sep="\\n")
    return 0
"""


@pytest.fixture(scope="module", params=["installed", "made now"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher in an environment that has dbt.launch, ending with PROBE, and what it imports."""
    folder = tmp_path_factory.mktemp("environment")
    package = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "dbt"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "streams.py").write_text(Path(streams.__file__).read_text())
    (package / "launch.py").write_text(Path(launch.__file__).read_text() + PROBE)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(sys.executable)
    made = folder / "bin" / "dragoman"
    made.write_bytes(LAUNCHER.read_bytes() if request.param == "installed" else launcher())
    made.chmod(0o755)
    return made


def probe(
    command: Path,
    *arguments: bytes,
    environ: dict[bytes, bytes],
    restore_signals: bool = True,
    before: Callable[[], None] | None = None,
) -> list[str]:
    """What PROBE is given."""
    done = subprocess.run(
        [command, *arguments], env=environ, capture_output=True, check=True, restore_signals=restore_signals,
        preexec_fn=before,
    )  # fmt: skip
    return done.stdout.decode().splitlines()


def test_arguments_arrive_byte_for_byte(command: Path) -> None:
    odd = [b"", b"a b", b"\xff\xfe", b"$(x) `y` \\ ' \"", "…".encode(), b"-c", b"\n"]
    for locale in ({}, {b"LC_ALL": b"C"}, {b"LANG": b"C.UTF-8"}):
        assert probe(command, *odd, environ=locale)[0] == repr(odd)


def test_environment_arrives_without_traces_of_python_or_a_shell(command: Path) -> None:
    environ = {b"A": b"\xff", b"PYTHONHOME": b"/nowhere", b"PYTHONPATH": b"/nowhere", b"EMPTY": b""}
    environ |= {b"no shell's": b"name", b"1-2.3": b"x", b"\xfe": b"y", b"PWD": b"/elsewhere", b"OLDPWD": b""}
    expected = sorted(name + b"=" + value for name, value in environ.items())
    assert probe(command, environ=environ)[1] == repr(expected)
    assert probe(command, environ={})[1] == "[]"


def test_many_arguments(command: Path) -> None:
    many = [b"%d" % number for number in range(20000)]
    assert probe(command, *many, environ={})[0] == repr(many)


@pytest.mark.parametrize("python_ignores", [True, False])
def test_signals_ignored_by_the_caller_are_known(command: Path, python_ignores: bool) -> None:
    # subprocess restores SIGPIPE and SIGXFSZ unless told not to; this Python itself ignores them.
    ignored = int(probe(command, environ={}, restore_signals=not python_ignores)[2])
    origin = Origin([], [], ignored)
    assert origin.ignores(signal.SIGPIPE) == python_ignores
    assert origin.ignores(signal.SIGXFSZ) == python_ignores
    assert not origin.ignores(signal.SIGTERM)


def test_every_ignored_signal_is_known(command: Path) -> None:
    wanted = [1, 2, 11, 17, 34, 64]

    def ignore() -> None:
        default_signals()
        for number in wanted:
            signal.signal(number, signal.SIG_IGN)

    found = int(probe(command, environ={}, before=ignore)[2])
    assert found == sum(1 << (number - 1) for number in wanted)


def test_every_pending_signal_is_known(command: Path) -> None:
    wanted = [2, 13, 25, 64]

    def raise_them() -> None:
        default_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, wanted)
        for number in wanted:
            os.kill(os.getpid(), number)

    found = probe(command, environ={}, before=raise_them)
    assert int(found[4]) == sum(1 << (number - 1) for number in wanted)


@pytest.mark.parametrize("blocked", [[], [2], [1, 2, 10]])
def test_the_mask_stays_as_it_was(command: Path, blocked: list[int]) -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    found = probe(command, environ={}, before=block)
    assert found[5] == repr(blocked)


def test_an_interrupt_at_any_time_shows_no_traceback(warm: Command) -> None:
    """Python takes some 10 ms to set itself up, the command a bit more."""
    assert warm("features").returncode == 0
    for milliseconds in range(0, 60, 3):
        with subprocess.Popen([LAUNCHER, "features"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
        assert (process.returncode, said) in {(-2, b""), (130, b"dragoman: interrupted\n"), (0, b"")}


def test_the_command_knows_itself(command: Path) -> None:
    assert probe(command, environ={})[3] == repr([os.fsencode(command)])


def test_without_a_python_beside_it(command: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bin" / "dragoman"
    bare.parent.mkdir()
    bare.write_bytes(command.read_bytes())
    bare.chmod(0o755)
    done = subprocess.run([bare], env={"PATH": "/nowhere::/nobody"}, capture_output=True, check=False)
    assert done.returncode == 127
    assert done.stderr == b"dragoman: there is no python3 beside it or in PATH that can be run\n"
    # The first one of PATH then. It gets what is needed to go on.
    (tmp_path / "other").mkdir()
    python = tmp_path / "other" / "python3"
    python.write_text('#!/bin/sh\nprintf "%s|" "$1" "$2" "$3" "$4" "$7" "$9"\n')
    python.chmod(0o755)
    long = "/x" * 3000
    done = subprocess.run(
        [bare, "run"], env={"PATH": f"{long}:/nowhere:{python.parent}"}, capture_output=True, check=True
    )
    assert done.stdout.decode() == f"-I|-S|-X|utf8|{bare.parent}|run|"


@pytest.mark.parametrize("ignored", [0, 1 << 1])
def test_an_interrupt_is_the_guests_from_the_start(ignored: int) -> None:
    code = f"""
import signal
from dbt import launch, streams
launch.dispatch(["run", "--help"], launch.Origin([], [], {ignored}))
print(signal.getsignal(signal.SIGINT))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("SIG_DFL" in done.stdout.splitlines()[-1] or done.stdout.splitlines()[-1] == "0") == (not ignored)


def test_reached_through_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to(LAUNCHER)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "second").symlink_to("../first")
    for path in (tmp_path / "first", tmp_path / "folder" / "second"):
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, cwd="/")
        assert done.stdout.startswith("dragoman ")
    done = subprocess.run(
        ["second", "--version"], capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}/folder:/usr/bin"}
    )
    assert done.stdout.startswith("dragoman ")
