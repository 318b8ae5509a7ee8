"""bench/signals.py: the guest answers on qemu and on our engines, and percentiles are what they are called."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dbt.run import ENGINES

DRAGOMAN = Path(sys.executable).with_name("dragoman")
QEMU = "qemu-aarch64-static"


@pytest.fixture
def signals() -> Any:
    """The module, whose constants tests change."""
    return import_module("bench.signals")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_busy_guest_answers(signals: Any, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "UNCOUNTED", 3)
    guest = signals.write_guest(tmp_path / "busy")
    found = signals.latencies([DRAGOMAN, "run", "--engine", engine, guest], os.environ, 20)
    assert len(found) == 20
    assert min(found) > 0


def test_a_guest_that_ends_is_no_measurement(signals: Any) -> None:
    with pytest.raises(signals.BenchError, match="/bin/true"):
        signals.latencies(["/bin/true"], os.environ, 1)


def test_percentiles(signals: Any) -> None:
    samples = [float(number) for number in range(1000, 0, -1)]
    assert signals.percentile(samples, 0.99) == 990
    assert signals.percentile(samples, 1) == 1000
    assert signals.percentile([5.0], 0.99) == 5


@pytest.mark.needs("qemu-aarch64-static")
def test_the_suite_saves_every_sample(signals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SIGNALS", 9)
    monkeypatch.setattr(signals, "UNCOUNTED", 2)
    monkeypatch.setattr(signals, "ENGINES", ("baseline",))
    cache = tmp_path / "cache"
    cache.mkdir()
    setting = import_module("bench.suites").Setting(DRAGOMAN, QEMU, tmp_path, 2, cache)
    figures = list(signals.signals(setting))
    assert [figure.name.partition(": ")[2] for figure in figures] == ["median", "99 of 100", "longest"]
    samples = json.loads((tmp_path / "signals.json").read_text())["samples"]
    assert {name: len(values) for name, values in samples.items()} == {"baseline": 9, "qemu": 9}
    assert figures[2].ours == [pytest.approx(max(samples["baseline"]) / 1e6, abs=1e-6)]
