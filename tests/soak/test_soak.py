"""Many random programs and pages on all engines: a bounded part of the soak that `python -m tests.soak` is.

DRAGOMAN_SOAK_PROGRAMS and DRAGOMAN_SOAK_PAGES are how many, DRAGOMAN_SOAK_START is the first number,
DRAGOMAN_SOAK_OPTIMIZER=N has only each Nth batch go to the optimizer, since a region takes LLVM 0.5 ms an instruction.
With CI=true there are 106,000 programs, each on the optimizer but those with a budget (there are no regions while
instructions are counted), and 6,000 pages; else fewer, and one batch in 15 goes to the optimizer.
"""

from __future__ import annotations

import os

import pytest

from .child import Options
from .parent import Parent, prepare

CI = os.environ.get("CI") == "true"
PROGRAMS = int(os.environ.get("DRAGOMAN_SOAK_PROGRAMS", "106000" if CI else "5000"))
PAGES = int(os.environ.get("DRAGOMAN_SOAK_PAGES", "6000" if CI else "1000"))
START = int(os.environ.get("DRAGOMAN_SOAK_START", "0"))
OPTIMIZER = {
    "programs": int(os.environ.get("DRAGOMAN_SOAK_OPTIMIZER", "1" if CI else "15")),
    "pages": int(os.environ.get("DRAGOMAN_SOAK_OPTIMIZER", "50")),
}


@pytest.mark.parametrize(("kind", "count"), [("programs", PROGRAMS), ("pages", PAGES)])
def test_all_engines_agree(kind: str, count: int) -> None:
    prepare()
    options = Options(kind, START, count, OPTIMIZER[kind], "")
    report = Parent(options, os.cpu_count() or 1).run()
    print(report.summary(kind))
    assert not report.wrong, report.details()
    assert report.done == count
    counts = report.counts
    assert counts["left out"] < 0.05 * count if kind == "programs" else counts["interpreter"] > 3 * count
    assert counts["interpreter"] >= count * 0.95
    assert counts["baseline"] >= count * 0.95
    assert counts["optimizer"] > 0 or count < 1000 * OPTIMIZER[kind]
    if kind == "programs":
        assert counts["unicorn"] > 0.6 * count
        if count >= 10_000 * OPTIMIZER[kind] > 0:
            assert counts["optimizer"] > 0.9 * count / OPTIMIZER[kind]  # all but those with a budget
