"""Figures of devices as a table and as a plot: what a MiB costs by each way, and what costs grow with."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .measure import Figure

DEVICES = "devices: "  # what kinds of these figures start with
ACCESSES, COPIED, TIME, REGIONS = "accesses", "copied", "time", "regions"
COLUMNS = ((ACCESSES, "accesses for a MiB"), (COPIED, "bytes copied for a MiB"), (TIME, "host time for a MiB, ms"))


def of_kind(figures: Sequence[Figure], kind: str) -> dict[str, float]:
    """Medians of such figures by the name of the way."""
    chosen = [figure for figure in figures if figure.kind == DEVICES + kind]
    return {figure.name.rpartition(": ")[0]: statistics.median(figure.ours) for figure in chosen}


def table(figures: Sequence[Figure]) -> list[str]:
    """The ways below each other."""
    accesses, copied, seconds = (of_kind(figures, kind) for kind, _ in COLUMNS)
    if not accesses:
        return []
    lines = [f"{'for a MiB':32} {'accesses':>12} {'copied':>12} {'time':>12}"]
    for name, number in accesses.items():
        shown = f"{number:,.0f}" if number >= 100 else f"{number:,.1f}"
        lines.append(f"{name:32} {shown:>12} {copied[name] / 1024:>8,.0f} KiB {seconds[name] * 1000:>9,.2f} ms")
    return lines


def plot(figures: Sequence[Figure], path: Path) -> bool:
    """A row of bars and two growths; False where there are none, or no matplotlib."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    if not of_kind(figures, ACCESSES):
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    canvas = plt.figure(figsize=(13, 9))
    grid = canvas.add_gridspec(2, 6, hspace=0.3, wspace=0.35)
    for column, (kind, title) in enumerate(COLUMNS):
        _bars(canvas.add_subplot(grid[0, 2 * column : 2 * column + 2]), figures, kind, title, labels=column == 0)
    _lookups(canvas.add_subplot(grid[1, :3]), figures)
    _requests(canvas.add_subplot(grid[1, 3:]), figures)
    plt.savefig(path, bbox_inches="tight")
    plt.close()
    return True


def _bars(axes: Any, figures: Sequence[Figure], kind: str, title: str, *, labels: bool) -> None:  # noqa: ANN401
    values = of_kind(figures, kind)
    names = list(values)[::-1]
    scale = 1000 if kind == TIME else 1
    amounts = [values[name] * scale for name in names]
    bars = axes.barh(range(len(names)), amounts, color="tab:blue")
    shown = [f"{amount:,.0f}" if amount >= 100 else f"{amount:.2g}" for amount in amounts]
    axes.bar_label(bars, labels=shown, padding=2)
    axes.set_yticks(range(len(names)), names if labels else [""] * len(names))
    axes.set_xscale("log")
    axes.margins(x=0.35)
    axes.set_title(title, fontsize=10)


def _points(figures: Sequence[Figure], kind: str) -> tuple[list[float], list[float]]:
    chosen = [figure for figure in figures if figure.kind == DEVICES + kind]
    return [figure.at or 0 for figure in chosen], [statistics.median(figure.ours) for figure in chosen]


def _lookups(axes: Any, figures: Sequence[Figure]) -> None:  # noqa: ANN401
    counts, nanoseconds = _points(figures, REGIONS)
    axes.plot(counts, nanoseconds, marker="o")
    axes.set_xscale("log", base=4)
    axes.set_xticks(counts, [f"{count:,.0f}" for count in counts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("regions in the memory map")
    axes.set_title("one access, ns: a straight line is O(log n)", fontsize=10)


def _requests(axes: Any, figures: Sequence[Figure]) -> None:  # noqa: ANN401
    others = {ACCESSES, COPIED, TIME, REGIONS}
    places: list[float] = []
    kinds = dict.fromkeys(figure.kind[len(DEVICES) :] for figure in figures if figure.kind.startswith(DEVICES))
    for kind in kinds:
        counts, seconds = _points(figures, kind)
        if kind not in others and len(counts) > 1:
            milliseconds = [value * 1000 for value in seconds]
            line = axes.plot(counts, milliseconds, marker="o", label=kind)[0]
            axes.plot(counts, [milliseconds[-1] * n / counts[-1] for n in counts], "--", color=line.get_color(), lw=0.8)
            places = counts
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{count:,.0f}" for count in places])
    axes.minorticks_off()
    axes.legend()
    axes.set_xlabel("requests (128 KiB) or packets (1,514 bytes)")
    axes.set_title("host time, ms; dashed: what is linear", fontsize=10)
