"""qed, vhdx, vmdk, vdi, vpc: against a model and against qemu-img and qemu-io, both ways; and mutated images."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import BlockError, Disk, Format, create_image, open_image

from .format_cases import (
    CASES,
    CHECKED,
    MUTANTS,
    SEED,
    SIZE,
    Case,
    bounded,
    exercise,
    make,
    name_of,
    opened,
    operate,
    qemu_content,
    qemu_options,
    tool,
)
from .qcow2_cases import merged

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_random_operations_leave_what_qemu_reads(tmp_path: Path, case: Case) -> None:
    driver, options = case
    model, pick = make(tmp_path, driver, options), random.Random(5)
    for _ in range(4):
        with opened(tmp_path, "a", driver, writable=True) as disk:
            assert disk.size == SIZE
            operate(disk, model, pick, 12)
            result = disk.node.check()  # type: ignore[attr-defined]
            assert result.clean, result.problems[:5]
    with opened(tmp_path, "a", driver) as disk:
        assert bytes(disk.read(0, SIZE)) == model
    assert qemu_content(tmp_path, driver, "a") == model
    if driver in CHECKED:
        tool(tmp_path, "qemu-img", "check", "-f", driver, "a")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_same_operations_by_qemu_and_by_us(tmp_path: Path, case: Case) -> None:
    driver, options = case
    model, pick = make(tmp_path, driver, options), random.Random(7)
    tool(tmp_path, "qemu-img", "create", "-q", "-f", driver, *qemu_options(options), "q", str(SIZE))
    with opened(tmp_path, "a", driver, writable=True) as disk:
        commands = operate(disk, model, pick, 30)
    done = tool(tmp_path, "qemu-io", "-f", driver, *[w for c in commands for w in ("-c", c)], "q")
    assert "failed" not in done
    for name in ("a", "q"):
        with opened(tmp_path, name, driver) as disk:
            assert bytes(disk.read(0, SIZE)) == model
            assert disk.node.check().clean  # type: ignore[attr-defined]
            if "backing_file" not in options and driver != "vhdx":  # qemu's vhdx has no block status
                assert our_map(disk) == qemu_map(tmp_path, name, driver)
        tool(tmp_path, "qemu-img", "compare", "-f", driver, "-F", driver, "a", "q")


def our_map(disk: Disk) -> list[dict[str, Any]]:
    """Where bytes are: of zeroes, formats and qemu differ in what they call allocated."""
    rows: list[dict[str, Any]] = []
    at = 0
    while at < disk.size:
        e = disk.status(at, disk.size - at)
        rows.append({"start": at, "length": e.length, "present": e.data, "zero": e.zero, "data": e.data,
                     "offset": e.offset if e.data else None})  # fmt: skip
        at += e.length
    return merged(rows)


def qemu_map(folder: Path, name: str, driver: str) -> list[dict[str, Any]]:
    rows = json.loads(tool(folder, "qemu-img", "map", "-f", driver, "--output=json", name))
    # A hole in the file below is data to us: the format says that it is there.
    return merged([{
        "start": row["start"], "length": row["length"], "present": "offset" in row, "zero": "offset" not in row,
        "data": "offset" in row, "offset": row.get("offset"),
    } for row in rows])  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_we_create_is_what_qemu_creates(tmp_path: Path, case: Case) -> None:
    driver, options = case
    make(tmp_path, driver, options)
    tool(tmp_path, "qemu-img", "create", "-q", "-f", driver, *qemu_options(options), "q", str(SIZE))
    ours, theirs = (json.loads(tool(tmp_path, "qemu-img", "info", "-f", driver, "--output=json", n)) for n in "aq")
    for found in (ours, theirs):
        for key in ("filename", "actual-size", "children", "full-backing-filename"):
            found.pop(key, None)
        details = found.get("format-specific", {}).get("data", {})
        for key in ("cid", "extents"):
            details.pop(key, None)
    assert ours == theirs
    node = open_image(str(tmp_path / "a"))  # probed
    assert node.driver == driver
    node.close()


MUTATED = [case for case in CASES if case[1].get("cluster_size") != 1 << 20]  # tables of 16 MiB take time to write


@pytest.mark.parametrize("case", MUTATED, ids=name_of)
def test_mutated_images_end_in_success_or_in_our_error(tmp_path: Path, case: Case) -> None:
    driver, options = case
    model, pick = make(tmp_path, driver, options), random.Random(SEED)
    with opened(tmp_path, "a", driver, writable=True) as disk:
        operate(disk, model, pick, 10)
        node = disk.node
        assert isinstance(node, Format)
        places = [(at, structure) for _, at, structure in node.structures()]
    good = (tmp_path / "a").read_bytes()
    tables = interesting(good)
    spec = {"driver": driver, "file": {"driver": "file", "filename": str(tmp_path / "m"), "no-flush": True}}
    failures = 0
    for k in range(-(-MUTANTS // sum(kind == driver for kind, _ in MUTATED))):
        data = bytearray(good)
        for _ in range(pick.choice([1, 1, 2, 5])):
            if places and pick.random() < 0.5:
                at, structure = pick.choice(places)
                data[at : at + structure.SIZE] = type(structure).mutant(bytes(data[at : at + structure.SIZE]), pick)
            else:
                at = pick.choice(tables) + pick.randrange(8)
                data[at : at + 8] = pick.choice([bytes(8), b"\xff" * 8, pick.randbytes(8), pick.randbytes(2)])[
                    : pick.choice([1, 4, 8])
                ]
        if pick.random() < 0.1:
            del data[pick.randrange(len(data)) :]
        (tmp_path / "m").write_bytes(data)
        with bounded(k):
            failures += bool(exercise(spec, pick))
    assert failures  # else nothing was broken


def interesting(data: bytes) -> list[int]:
    """Where something else than zeroes or a block of one value is, in steps of 8 bytes."""
    found = []
    for at in range(0, len(data) - 16, 512):
        block = data[at : at + 512]
        if block.count(block[0]) < len(block):
            found += [at + k for k in range(0, 512, 8) if any(block[k : k + 8])]
    return found or [0]


def test_a_backing_name_that_no_file_can_have(tmp_path: Path) -> None:
    create_image(str(tmp_path / "a"), "qed", 1 << 20, {"backing_file": "be\0low", "backing_fmt": "raw"})
    with pytest.raises(BlockError, match="has a byte of zero in it"):
        open_image(str(tmp_path / "a"), "qed")


def test_a_backing_file_whose_format_is_not_said(tmp_path: Path) -> None:
    create_image(str(tmp_path / "below"), "qcow2", 1 << 20)
    with Disk(open_image(str(tmp_path / "below"), "qcow2", writable=True)) as disk:
        disk.write(0, b"b" * 70_000)
    create_image(str(tmp_path / "a"), "qed", 1 << 20, {"backing_file": "below"})
    with opened(tmp_path, "a", "qed") as disk:
        assert bytes(disk.read(0, 1 << 20)) == (b"b" * 70_000).ljust(1 << 20, b"\0")
    assert qemu_content(tmp_path, "qed", "a") == (b"b" * 70_000).ljust(1 << 20, b"\0")
    (tmp_path / "below").write_bytes(bytes(1 << 20))
    with pytest.raises(BlockError, match="no format that is known"):
        open_image(str(tmp_path / "a"), "qed")


def test_a_file_that_grows_ahead_is_cut_off_when_it_is_closed(tmp_path: Path) -> None:
    for driver in ("vdi", "vpc", "vmdk"):
        create_image(str(tmp_path / "a"), driver, 128 << 20)
        with opened(tmp_path, "a", driver, writable=True) as disk:
            disk.write(100 << 20, b"x" * (3 << 20))
            assert (tmp_path / "a").stat().st_size > 32 << 20
        assert (tmp_path / "a").stat().st_size < 12 << 20
        assert qemu_content(tmp_path, driver, "a")[100 << 20 : 103 << 20] == b"x" * (3 << 20)
