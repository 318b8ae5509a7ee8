"""docs/support.md is what the tables say, and its system calls are Linux's."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from dbt.features import collect
from dbt.linux import passthrough
from dbt.linux.table import CALLS
from dbt.linux.unserved import UNSERVED, name_of
from dbt.support import page
from tests.conftest import ROOT

if TYPE_CHECKING:
    from tests.conftest import Command

SERVED = {number: name for number, (name, _) in CALLS.items()} | {row[0]: row[1] for row in passthrough.ROWS}
LEFT = {number: name for calls in UNSERVED.values() for number, name in calls.items()}


def test_the_page_is_the_tables() -> None:
    """`dragoman features --markdown >docs/support.md` writes it anew."""
    assert (ROOT / "docs" / "support.md").read_text() == page()


def test_no_call_is_served_and_not_served() -> None:
    assert not SERVED.keys() & LEFT.keys()
    assert sum(map(len, UNSERVED.values())) == len(LEFT)
    assert name_of(425) == "io_uring_setup (425)"
    assert name_of(9999) == "9999"


@pytest.mark.needs("aarch64-linux-gnu-gcc")
def test_the_calls_are_those_of_linux() -> None:
    words = ["aarch64-linux-gnu-gcc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    shared = {name: int(number) for name, number in re.findall(r"#define __NR3264_(\w+) (\d+)$", text, re.MULTILINE)}
    known = {int(number): name for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", text, re.MULTILINE)}
    aliases = re.findall(r"#define __NR_(\w+) __NR3264_(\w+)$", text, re.MULTILINE)
    known |= {shared[alias]: name for name, alias in aliases}
    known = {number: name for number, name in known.items() if name not in {"syscalls", "arch_specific_syscall"}}
    assert known == SERVED | LEFT


def test_what_is_said_to_be_missing_is() -> None:
    (guest,) = collect()["guests"]
    assert not {feature["name"] for feature in guest["features"]} & {"sve", "sve2", "sme", "mte", "bf16", "rng", "paca"}


def test_the_command_prints_it(dragoman: Command) -> None:
    assert dragoman("features", "--markdown").stdout.decode().startswith("# What is supported\n")
