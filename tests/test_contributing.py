"""What CONTRIBUTING.md quotes is what the code says, and its commands name what there is.

tests/machine/test_contributing.py runs its device and board.
"""

from __future__ import annotations

import re

from dbt.frontends.a64.guest import GUEST

from tests.conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def quoted(first: str) -> str:
    """The indented lines of the page from the one that begins with `first` on, moved to the left."""
    lines = TEXT.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(first))
    indent = len(lines[start]) - len(lines[start].lstrip())
    found = []
    for line in lines[start:]:
        if not line.startswith(" " * indent) or not line.strip():
            break
        found.append(line[indent:])
    return "\n".join(found)


def test_quoted_rows_are_in_the_code() -> None:
    for first, path in (
        ('("umulh",', "dbt/ir/ops.py"),
        ('(64, "write"', "dbt/linux/passthrough.py"),
        ("def sys_uname", "dbt/linux/system.py"),
    ):
        for line in quoted(first).splitlines():
            if line.strip() != "…":
                assert line.strip() in (ROOT / path).read_text(), (line, path)


def test_the_worked_instruction_is_in_its_file() -> None:
    source = (ROOT / "frontends/a64/data_source.py").read_text()
    for line in quoted('@a64("sf 1 0 11010110').splitlines():
        assert line.strip() in source, line


def test_the_tests_that_are_named_are_there() -> None:
    commands = re.findall(r"^ +\.venv-dev/bin/pytest (\S+) -k (\w+)$", TEXT, re.MULTILINE)
    known = {
        "tests/frontends/a64/test_text.py": {form.group for form in GUEST.forms[1:]},
        "tests/differential/test_forms.py": set(GUEST.modules),
    }
    assert [name for name, _ in commands] == list(known)
    for name, word in commands:
        assert (ROOT / name).is_file()
        assert word in known[name]
