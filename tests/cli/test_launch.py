"""dbt/launch.py and bin/dragoman: what the guest must get as if nobody stood between it and its caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dbt.launch import Origin, ignored_signals

LAUNCHER = Path(sys.executable).with_name("dragoman")
# Stands in for dbt.launch: shows what it would be given.
PROBE = """
import os, posix, sys
sys.path.insert(0, {site!r})
from dbt import launch
def show(arguments, origin):
    print([os.fsencode(a) for a in arguments], sorted(origin.environ), origin.ignored, sep="\\n")
    return 0
launch.dispatch = show
launch.main()
"""


def probe(*arguments: bytes, environ: dict[bytes, bytes], restore_signals: bool = True) -> list[str]:
    """The launcher with its Python code replaced by PROBE: the arguments, environment and ignored signals it sees."""
    text = LAUNCHER.read_text()
    start, end = text.index("-c '") + 4, text.rindex('\' "$bin"')
    code = PROBE.format(site=str(Path(__file__).parents[2])).replace("'", "'\\''")
    text = text[:start] + code + text[end:]
    command = [b"/bin/sh", b"-c", text.replace("self=$0", f"self={LAUNCHER}").encode(), b"dragoman", *arguments]
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        command, env=environ, capture_output=True, check=True, restore_signals=restore_signals
    )
    return done.stdout.decode().splitlines()


def test_arguments_arrive_byte_for_byte() -> None:
    odd = [b"", b"a b", b"\xff\xfe", b"$(x) `y` \\ ' \"", "…".encode(), b"-c", b"\n"]
    for locale in ({}, {b"LC_ALL": b"C"}, {b"LANG": b"C.UTF-8"}):
        assert probe(*odd, environ=locale)[0] == repr(odd)


def test_environment_arrives_without_traces_of_python() -> None:
    environ = {b"A": b"\xff", b"PYTHONHOME": b"/nowhere", b"PYTHONPATH": b"/nowhere", b"EMPTY": b""}
    environ[b"PWD"] = os.fsencode(Path.cwd())  # the shell that the launcher is written for sets it
    expected = sorted(name + b"=" + value for name, value in environ.items())
    assert probe(environ=environ)[1] == repr(expected)


@pytest.mark.parametrize("python_ignores", [True, False])
def test_signals_ignored_by_the_caller_are_known(python_ignores: bool) -> None:
    # subprocess restores SIGPIPE and SIGXFSZ unless told not to; this Python itself ignores them.
    ignored = int(probe(environ={}, restore_signals=not python_ignores)[2])
    origin = Origin([], [], ignored)
    assert origin.ignores(signal.SIGPIPE) == python_ignores
    assert origin.ignores(signal.SIGXFSZ) == python_ignores
    assert not origin.ignores(signal.SIGTERM)


def test_stat_line_with_an_odd_process_name() -> None:
    fields = ["S", *"0" * 29, "4096", "0"]
    assert ignored_signals(f"1 (a) b) {' '.join(fields)}") == 4096
    assert ignored_signals("") == 0


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
