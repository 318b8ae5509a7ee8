"""The command line as a user meets it: help, features, cache, and what is said about bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.guests import BY_NAME, GREETING

from dbt import statistics

if TYPE_CHECKING:
    from tests.conftest import Command

HELLO = BY_NAME["hello"].path
FIB = BY_NAME["fib"].path


def elf(machine: int = 183, size: int = 64) -> bytes:
    """The head of an ELF-64 executable, cut to `size` bytes."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little")
    return head.ljust(64, b"\0")[:size]


def test_no_command_and_help_show_what_there_is(dragoman: Command) -> None:
    for words in ([], ["--help"], ["help"]):
        done = dragoman(*words)
        assert done.returncode == 0
        for command in (b"run", b"features", b"cache", b"demo"):
            assert b"    " + command in done.stdout


def test_an_unknown_command_is_a_usage_error(dragoman: Command) -> None:
    done = dragoman("fly")
    assert done.returncode == 2
    assert b"fly" in done.stderr


def test_features_as_json_say_what_the_tables_have(dragoman: Command) -> None:
    facts = json.loads(dragoman("features", "--json").stdout)
    (guest,) = facts["guests"]
    assert guest["forms"] > guest["instructions"] > 100
    assert {"fp", "asimd", "atomics", "crc32"} <= {feature["name"] for feature in guest["features"]}
    assert facts["engines"] == ["baseline", "optimizer", "interpreter", "reference"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", b"empty"),
        (b"plain text\n", b"not an ELF"),
        (elf(size=30), b"truncated"),
        (elf(machine=62), b"x86-64"),
        (elf(), b""),
    ],
)
def test_what_cannot_be_run_is_named_with_the_reason(
    content: bytes, says: bytes, dragoman: Command, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    done = dragoman("run", program)
    assert done.returncode == 126
    assert done.stderr.startswith(b"dragoman: " + os.fsencode(program) + b": ")
    assert says in done.stderr
    assert b"Traceback" not in done.stderr


def test_missing_folder_and_not_executable(dragoman: Command, tmp_path: Path) -> None:
    assert dragoman("run", tmp_path / "nothing").returncode == 127
    assert dragoman("run", tmp_path).returncode == 126
    plain = tmp_path / "plain"
    plain.write_bytes(HELLO.read_bytes())
    plain.chmod(0o644)
    done = dragoman("run", plain)
    assert done.returncode == 126
    assert b"chmod +x" in done.stderr


@pytest.mark.needs("an ordinary user")
def test_unreadable(dragoman: Command, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(HELLO.read_bytes())
    secret.chmod(0o111)
    done = dragoman("run", secret)
    assert done.returncode == 126
    assert b"ermission" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_that_ends_the_guest_ends_the_command(number: signal.Signals, busybox: Path, warm: Command) -> None:
    assert warm("run", busybox, "sh", "-c", f"kill -{number.value} $$").returncode == -number


def test_statistics_count_every_instruction(warm: Command) -> None:
    done = warm("run", "--stats", HELLO)
    assert done.stdout.decode() == GREETING + "\n"
    assert b"dragoman: stats: executed 8 instructions\n" in done.stderr


def test_statistics_of_the_optimizer_are_those_of_regions(warm: Command) -> None:
    done = warm("run", "--stats", "--engine", "optimizer", "--wait", FIB, "30")
    facts = statistics.read(done.stderr.decode())
    assert facts["regions_compiled"] > 0
    assert "executed" not in facts
    assert facts["time"] > 0


def test_strace_names_the_calls(warm: Command) -> None:
    done = warm("run", "--strace", HELLO)
    assert done.stdout.decode() == GREETING + "\n"
    assert b"write(1, " in done.stderr
    assert b"exit_group(0)" in done.stderr


def test_environment_and_name_options(busybox: Path, warm: Command) -> None:
    environ = {**os.environ, "GONE": "1", "KEPT": "2"}
    script = "echo $0 ${GONE-unset} $KEPT $NEW"
    done = warm("run", "-U", "GONE", "-E", "NEW=3 4", "-0", "busybox", busybox, "sh", "-c", script, env=environ)
    assert done.stdout == b"sh unset 2 3 4\n", done.stderr.decode()


def test_cache_commands(dragoman: Command, tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    assert b"0 builds" in dragoman("cache", "info", env=environ).stdout
    assert dragoman("run", HELLO, env=environ).returncode == 0
    assert stat.S_IMODE((tmp_path / "dragoman").stat().st_mode) == 0o700
    assert b"this build" in dragoman("cache", "info", env=environ).stdout
    done = dragoman("cache", "verify", env=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"good" in done.stdout
    assert b"removed 1 build\n" in dragoman("cache", "clear", env=environ).stdout
    assert not list((tmp_path / "dragoman").iterdir())


@pytest.mark.parametrize("name", ["runtime.image", "aarch64.tables", "aarch64.pack"])
def test_a_damaged_cache_file_is_found_and_rebuilt(
    name: str, warm: Command, cache_home: Path, dragoman: Command, tmp_path: Path
) -> None:
    warm("run", HELLO)
    shutil.copytree(cache_home / "dragoman", tmp_path / "dragoman")
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    (path,) = (tmp_path / "dragoman").glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    done = dragoman("cache", "verify", env=environ)
    assert done.returncode == 1
    assert b"damaged" in done.stdout
    again = dragoman("run", HELLO, env=environ)
    assert again.stdout.decode() == GREETING + "\n", again.stderr.decode()
    assert again.stderr.count(b": damaged") == 1
    assert dragoman("cache", "verify", env=environ).returncode == 0


def test_a_cache_that_others_can_write_is_not_used(dragoman: Command, tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    (tmp_path / "dragoman").mkdir()
    (tmp_path / "dragoman").chmod(0o777)
    done = dragoman("run", HELLO, env=environ)
    assert done.stdout.decode() == GREETING + "\n"
    assert b"chmod 700" in done.stderr
    assert not list((tmp_path / "dragoman").iterdir())
    assert dragoman("cache", "info", env=environ).returncode == 1


def test_an_interrupt_ends_a_command(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = Path(sys.executable).with_name("dragoman")
    with subprocess.Popen([command, "cache", "build"], env=environment, stderr=subprocess.PIPE) as process:
        while not any(tmp_path.rglob("lock")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, b"dragoman: interrupted\n")
