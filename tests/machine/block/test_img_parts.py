"""Parts of `dragoman img`: sizes as users write them, runs of zeroes, its threads, its help."""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING

import pytest
from dbt.machine.block.tool.copying import Crew, cut_up, gaps, runs
from dbt.machine.block.tool.images import people, size
from dbt.machine.block.tool.parser import build
from dbt.machine.block.tool.progress import Progress

if TYPE_CHECKING:
    from .img_images import Img


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("0", 0), ("4096", 4096), ("64K", 65536), ("64KiB", 65536), ("1.5G", 3 << 29), ("2TB", 2 << 40), ("7b", 7)],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "x", "-1", "1X", "1KK", "1 G", "0x10", "8E", "1.2.3", "K", "iB", "BiB"])
def test_sizes_that_are_none(text: str, img: Img) -> None:
    status, _, errors = img("create", "-f", "raw", "a.raw", f" {text}" if text.startswith("-") else text)
    assert status == 2
    assert "is no size" in errors
    assert not os.path.exists("a.raw")


def test_people() -> None:
    assert [people(n) for n in (0, 999, 1023, 1536, 64 << 40)] == [
        "0 bytes",
        "999 bytes",
        "1023 bytes",
        "1.5 KiB",
        "64 TiB",
    ]


@pytest.mark.parametrize("granule", [512, 4096, 65536])
def test_runs_find_zeroes_as_a_plain_loop_does(granule: int) -> None:
    rng = random.Random(granule)
    for length in (granule, 5 * granule, 5 * granule + 8, 5 * granule - 3, 1):
        for _ in range(20):
            buffer = bytearray(length)
            for _ in range(rng.randrange(4)):
                buffer[rng.randrange(length)] = rng.choice((0, 1, 255))
            expected = [any(buffer[at : at + granule]) for at in range(0, length, granule)]
            for kind in (buffer, memoryview(bytes(buffer))):
                found = list(runs(kind, length, granule))
                assert [found[0][0], found[-1][1]] == [0, length]
                assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(found))
                flat = [data for start, end, data in found for _ in range(start, end, granule)]
                assert flat == expected


def test_ranges_are_cut_at_multiples_and_have_gaps() -> None:
    assert list(cut_up([(3, 5), (6, 17)], 4)) == [(3, 4), (4, 5), (6, 8), (8, 12), (12, 16), (16, 17)]
    assert list(gaps([(3, 5), (6, 17)], 0, 20)) == [(0, 3), (5, 6), (17, 20)]
    assert list(gaps([(0, 20)], 0, 20)) == []


def test_an_error_in_one_thread_ends_all() -> None:
    seen = []

    def work(part: tuple[int, int], _: object) -> None:
        seen.append(part)
        if part[0] == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        Crew(((n, n + 1) for n in range(10**9)), work, chunk=1, threads=3).run(Progress(0, ""))
    assert len(seen) < 10**6


def test_every_command_has_help(img: Img) -> None:
    status, text, _ = img("--help")
    assert status == 0
    (actions,) = (a for a in build()._actions if a.dest == "command")
    assert actions.choices is not None
    names = [
        "create",
        "info",
        "check",
        "repair",
        "convert",
        "resize",
        "snapshot",
        "commit",
        "rebase",
        "map",
        "compare",
        "measure",
        "dd",
        "bench",
    ]
    assert set(names) <= set(actions.choices)
    for name in actions.choices:
        assert f"    {name} " in text
        status, own, _ = img(name, "--help")
        assert status == 0
        assert f"dragoman img {name}" in own
