"""Engines and the oracle, made once; how much is tried."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dbt.frontends.a64.guest import GUEST

from .coverage import Coverage
from .engines import ENGINES, Baseline, Engine, Reference
from .oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = int(os.environ.get("DRAGOMAN_DIFF_COUNT", "1"))  # cases of each form
SEED = os.environ.get("DRAGOMAN_DIFF_SEED", "0")
COVERAGE = pytest.StashKey[Coverage]()
BUILD = Path(__file__).parents[2] / "build"
CHOSEN = os.environ.get("DRAGOMAN_DIFF_ENGINES", "reference,baseline").split(",")


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Unicorn."""
    return Oracle()


# Engines live as long as a module of tests: two address spaces of full size do not fit into the host's.
@pytest.fixture(scope="module", params=CHOSEN)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """One of our engines."""
    made = ENGINES[request.param](GUEST)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference() -> Reference:
    """The reference engine."""
    return Reference(GUEST)


@pytest.fixture(scope="module")
def baseline() -> Iterator[Baseline]:
    """The baseline engine. Its stencils are all compiled first: about 40 seconds of CPU time, once."""
    made = Baseline(GUEST)
    yield made
    made.close()


@pytest.fixture(scope="session")
def coverage(request: pytest.FixtureRequest) -> Coverage:
    """What has been tried of what there is."""
    return request.config.stash.setdefault(COVERAGE, Coverage())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures in a line, and where the rest is."""
    found = config.stash.get(COVERAGE, None)
    if found is not None:
        found.write(BUILD / "coverage-forms.txt")
        terminalreporter.line(f"{found.summary()}; build/coverage-forms.txt has the rest")
