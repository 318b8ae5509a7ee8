"""The one-line cases of tests/cases/*.txt (format: text.py), on Unicorn and our engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import capstone
import pytest

from .case import CODE, differences
from .text import Line, parse

if TYPE_CHECKING:
    from .engines import Engine
    from .oracle import Oracle

FILES = sorted((Path(__file__).parents[1] / "cases").glob("*.txt"))
OWN = "# not in unicorn"  # at the end of a line: the oracle is known to do something else


def lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines without comments."""
    numbered = enumerate(path.read_text().splitlines(), 1)
    return [(number, line) for number, line in numbered if line.strip() and not line.startswith("#")]


CASES = [pytest.param(line, id=f"{path.stem}:{number}") for path in FILES for number, line in lines(path)]


def disassembled(line: Line) -> str:
    """Capstone's text of the words."""
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    return "; ".join(f"{i.mnemonic} {i.op_str}".strip() for i in disassembler.disasm(line.case.code, CODE))


@pytest.mark.parametrize("text", CASES)
def test_case(text: str, oracle: Oracle, engine: Engine) -> None:
    """The words are what the text says, and do what it says."""
    line = parse(text.removesuffix(OWN))
    if line.asm:
        assert disassembled(line) == line.asm
    assert not list(differences(line.expected, engine.run(line.case, {line.pc}))), engine.name
    if OWN not in text:
        assert not list(differences(line.expected, oracle.run(line.case))), "unicorn"
