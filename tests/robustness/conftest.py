"""The cache is filled first: random code meets every form, and would have them compiled one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from dbt.frontends.a64.guest import GUEST

from dbt.engine.cache import open_store
from tests.differential.variants import every_number


@pytest.fixture(scope="session")
def stencils(cache_home: Path) -> Path:
    """The folder of this build in the cache, all of its stencils compiled."""
    assert cache_home.exists()
    store = open_store(quiet=True)
    store.prepare(GUEST.name)
    store.compile(GUEST.name, every_number(GUEST.tables))
    return Path(store.folder)
