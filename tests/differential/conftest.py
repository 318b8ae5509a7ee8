"""Engines and the oracle, made once; how much is tried."""

from __future__ import annotations

import os

import pytest
from dbt.frontends.a64.guest import GUEST

from .engines import ENGINES, Engine
from .oracle import Oracle

COUNT = int(os.environ.get("DRAGOMAN_DIFF_COUNT", "1"))  # cases of each form
SEED = os.environ.get("DRAGOMAN_DIFF_SEED", "0")
CHOSEN = os.environ.get("DRAGOMAN_DIFF_ENGINES", "reference").split(",")


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Unicorn."""
    return Oracle()


@pytest.fixture(scope="session", params=CHOSEN)
def engine(request: pytest.FixtureRequest) -> Engine:
    """One of our engines."""
    return ENGINES[request.param](GUEST)
