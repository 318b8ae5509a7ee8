"""bench/: the arithmetic of figures, and a whole run in which both sides are qemu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.measure import BenchError, Figure, interval
from bench.movers import MIB, Counted, Mover, ata, network, virtio
from bench.suites import Setting

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
[ "$1" = run ] && shift
exec qemu-aarch64-static "$@"
"""


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd="/")


@pytest.mark.needs("qemu-aarch64-static")
def test_a_run_prints_a_table_and_saves_all_measurements(busybox: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "dragoman"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    done = bench("startup", "--rounds", "1", "--dragoman", stand_in, "--busybox", busybox, "--output", tmp_path / "out")
    assert "busybox echo, peak memory" in done.stdout, done.stderr
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["figures"]
    echo = next(figure for figure in figures if figure["name"] == "busybox echo")
    assert len(echo["dragoman"]) == len(echo["qemu"]) == 5
    assert echo["ratio"] > 0


def test_figures_over_something(tmp_path: Path) -> None:
    """Restores take longer with more pages written to, not with more memory: the figures are there to see that.

    What such a suite does not use need not be there.
    """
    nowhere = tmp_path / "nowhere"
    words = ("--rounds", "1", "--busybox", nowhere, "--qemu", nowhere, "--output", tmp_path)
    done = bench("snapshots", *words)
    assert "restore, 256 MiB by 1 MiB" in done.stdout, done.stderr
    assert (tmp_path / "lines.svg").exists() or "no plots: matplotlib is missing" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    lines = {figure["kind"] for figure in figures if figure["at"] is not None}
    assert len(lines) == 3
    assert all(min(figure["dragoman"]) > 0 for figure in figures)


@pytest.mark.needs("qemu-aarch64-static")
def test_a_wrong_result_is_no_measurement(busybox: Path, tmp_path: Path) -> None:
    done = bench("startup", "--dragoman", "/bin/false", "--busybox", busybox, "--output", tmp_path)
    assert done.returncode == 2
    assert "/bin/false" in done.stderr


def test_intervals_of_medians() -> None:
    """From tables of the sign test: of 15 samples the fourth from each end, of 5 all that there is."""
    assert interval([5, 1, 3, 2, 4]) == (1, 5)
    assert interval(range(6)) == (0, 5)
    assert interval(range(15)) == (3, 11)
    assert interval(range(100)) == (39, 60)


def test_means_and_the_slowest_kernel() -> None:
    figures = [
        Figure("a, optimizer", "s", [1.0, 1.0, 1.0], [4.0, 4.0, 4.0], kind="optimizer integer"),
        Figure("b, optimizer", "s", [1.0, 1.0, 1.0], [1.0, 0.8, 1.1], kind="optimizer integer"),
        Figure("c, optimizer", "s", [1.0], [2.0], kind="optimizer memory"),
        Figure("a, optimizer by native", "x", [2.0], kind="native integer"),
        Figure("c, optimizer by native", "x", [4.5], kind="native memory"),
    ]
    means = dict(report.means(figures))
    assert means["optimizer, integer kernels"] == pytest.approx(2)
    assert means["optimizer by native, integer"] == 2
    assert means["optimizer by native"] == pytest.approx(3)
    (line,) = report.slowest(figures)
    assert " ".join(line.split()) == "slowest against qemu: b, optimizer 1.00x 0.80 to 1.10 in 3 pairs"
    assert "MISSED" in next(line for line in report.summary(figures) if "optimizer by native " in line)


def test_what_a_suite_needs_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    setting = Setting(Path(sys.executable), str(nowhere), Path("busybox"), 1, tmp_path)
    assert setting.busybox.is_absolute()
    with pytest.raises(BenchError, match=r"nowhere is missing: apt-get install"):
        setting.qemus(Path("program"))


def test_an_unknown_suite_is_refused_with_the_list() -> None:
    done = bench("nonsense")
    assert done.returncode == 2
    assert "kernels" in done.stderr


@pytest.mark.parametrize(
    ("kind", "accesses", "copied"),
    [
        (ata.Pio, 65536 // 2, 2 * 65536), (ata.Multiple, 65536 // 2, 2 * 65536), (ata.Dma, 600, 10_000),
        (ata.Ahci, 240, 25_000), (ata.Queued, 7, 25_000), (virtio.Blk, 100, 20_000), (virtio.BlkQueued, 3, 20_000),
        (network.Card, 692, MIB), (network.CardBatches, 22, MIB), (network.CardLarge, 68, 4 * MIB),
        (virtio.Net, 692, MIB), (virtio.NetBatches, 22, MIB), (virtio.NetLarge, 68, 4 * MIB),
    ],
    ids=lambda value: str(getattr(value, "NAME", "")),
)  # fmt: skip
def test_ways_to_move_data(kind: type[Mover], accesses: int, copied: int) -> None:
    """The data arrives; accesses and copies are what each way is known for: by the word, or by the request."""
    mover = kind()
    if kind in {ata.Pio, ata.Multiple}:
        mover.size, mover.requests = 65536, 1
    counted = Counted(mover.machine)
    counted.watch(mover.move)
    assert mover.check()
    assert accesses * 0.9 <= counted.traps <= accesses * 1.02 + 20
    assert (copied * 0.8 if copied >= 65536 else 0) <= counted.copied <= copied * 1.05
