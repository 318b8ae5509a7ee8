"""Figures as a table, as JSON, and as a plot."""

from __future__ import annotations

import json
import platform
import statistics
from typing import TYPE_CHECKING

from . import devices
from .guests import INTEGER, MEMORY
from .measure import NATIVE, interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .measure import Figure

HEADER = f"{'':32} {'Dragoman':>12} {'qemu':>12} {'speed':>8}  wanted"
SCALES = {
    "s": (1e3, "ms"),
    "us": (1e6, "us"),
    "MiB": (1, "MiB"),
    "ns": (1, "ns"),
    "B": (1, "B"),
    "x": (1, "x"),
    "": (1, ""),
}
# Geometric means that are wanted: of qemu's speed, and of native time.
GOALS = {"all kernels": 0.8, "optimizer, integer kernels": 2.5}
LIMITS = {"optimizer by native": 1.8}
KINDS = (INTEGER, MEMORY)


def _amount(values: Sequence[float], unit: str) -> str:
    if not values:
        return "-"
    scale, shown = SCALES[unit]
    digits = 2 if unit == "x" else 1
    return f"{statistics.median(values) * scale:,.{digits}f} {shown}".rstrip()


def line(figure: Figure) -> str:
    """One row of the table."""
    ratio = figure.ratio
    speed = "" if ratio is None else f"{ratio:.2f}x"
    wanted = ""
    if figure.limit is not None:
        wanted = f"<= {_amount([figure.limit], figure.unit)}"
    elif figure.goal is not None:
        wanted = f">= {figure.goal:.2f}x"
    verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
    ours, qemus = _amount(figure.ours, figure.unit), _amount(figure.qemus, figure.unit)
    return f"{figure.name:32} {ours:>12} {qemus:>12} {speed:>8}  {wanted:12} {verdict}".rstrip()


def means(figures: Iterable[Figure]) -> list[tuple[str, float]]:
    """Geometric means of the kernels' ratios by kind and of all, and of how many times as long as native they take."""
    figures = list(figures)
    groups: list[tuple[str, list[float]]] = []
    for engine in ("", "optimizer"):
        ratios = [[f.ratio for f in figures if f.kind == f"{engine} {kind}".strip() and f.ratio] for kind in KINDS]
        before = f"{engine}, " if engine else ""
        groups += zip((f"{before}{INTEGER} kernels", f"{before}{MEMORY} kernels"), ratios, strict=True)
        groups.append((f"{before}all kernels", [*ratios[0], *ratios[1]]))
    natives = {kind: [statistics.median(f.ours) for f in figures if f.kind == f"{NATIVE} {kind}"] for kind in KINDS}
    groups.append((f"optimizer by native, {INTEGER}", natives[INTEGER]))
    groups.append(("optimizer by native", [ratio for ratios in natives.values() for ratio in ratios]))
    return [(name, statistics.geometric_mean(values)) for name, values in groups if values]


def summary(figures: Sequence[Figure]) -> list[str]:
    """The lines below the table."""
    lines = []
    for name, mean in means(figures):
        wanted = ""
        if name in GOALS:
            wanted = f">= {GOALS[name]:.2f}x       {'met' if mean >= GOALS[name] else 'MISSED'}"
        elif name in LIMITS:
            wanted = f"<= {LIMITS[name]:.2f}x       {'met' if mean <= LIMITS[name] else 'MISSED'}"
        lines.append(f"{'geometric mean of ' + name:32} {'':12} {'':12} {mean:7.2f}x  {wanted}".rstrip())
    return [*lines, *slowest(figures), *devices.table(figures)]


def slowest(figures: Iterable[Figure]) -> list[str]:
    """The kernel that is slowest against qemu: the median ratio of its pairs, and between what that lies (interval)."""
    kinds = {f"{engine} {kind}".strip() for engine in ("", "optimizer") for kind in KINDS}
    kernels = [figure for figure in figures if figure.kind in kinds and figure.qemus]
    if not kernels:
        return []
    last = min(kernels, key=lambda figure: statistics.median(figure.pairs))
    low, high = interval(last.pairs)
    what = f"slowest against qemu: {last.name}"
    return [f"{what:58} {statistics.median(last.pairs):7.2f}x  {low:.2f} to {high:.2f} in {len(last.pairs)} pairs"]


def save_json(figures: Sequence[Figure], path: Path, qemu: str | None) -> None:
    """All single measurements, and what they were made on."""
    data = {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "qemu": qemu,
        "means": dict(means(figures)),
        "figures": [
            {
                "name": f.name, "kind": f.kind, "at": f.at, "unit": f.unit,
                "dragoman": f.ours, "qemu": f.qemus, "ratio": f.ratio,
            }
            for f in figures
        ],
    }  # fmt: skip
    path.write_text(json.dumps(data, indent=2) + "\n")


def plot(figures: Sequence[Figure], path: Path) -> bool:
    """Speed against qemu as a bar for each pair; False where there is none, or matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    chosen = [f for f in figures if f.ratio is not None][::-1]
    if not chosen:
        return False
    _, axes = plt.subplots(figsize=(7, 0.8 + 0.32 * len(chosen)))
    bars = axes.barh([f.name for f in chosen], [f.ratio or 0 for f in chosen], color="tab:blue")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.12)
    axes.set_xlabel("speed, qemu-aarch64-static = 1 (longer is better)")
    plt.savefig(path, bbox_inches="tight")
    plt.close()
    return True


def plot_lines(figures: Sequence[Figure], path: Path) -> bool:
    """Figures over something as lines, medians with the quartiles; False where there are none, or no matplotlib."""
    figures = [figure for figure in figures if not figure.kind.startswith(devices.DEVICES)]
    kinds = dict.fromkeys(figure.kind for figure in figures if figure.at is not None)
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    if not kinds:
        return False
    mpl.use("agg")
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(figsize=(7, 4))
    axes.set_ylabel(SCALES[next(f.unit for f in figures if f.at is not None)][1])
    for kind in kinds:
        points = [f for f in figures if f.kind == kind]
        scale = SCALES[points[0].unit][0]
        quartiles = [[value * scale for value in statistics.quantiles(f.ours, n=4)] for f in points]
        places = [f.at or 0 for f in points]
        low, middle, high = zip(*quartiles, strict=True)
        axes.plot(places, middle, marker="o", label=kind)
        axes.fill_between(places, low, high, alpha=0.2)
    axes.set_xscale("symlog", base=4)
    axes.set_yscale("log")
    axes.legend()
    plt.savefig(path, bbox_inches="tight")
    plt.close()
    return True
