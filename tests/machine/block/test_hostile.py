"""Images that were made to harm: whatever is in them, opening, reading and checking end soon, at worst in a BlockError.

A bounded number of mutants here; DRAGOMAN_MUTANTS=100000 tries as many of each kind, DRAGOMAN_SEED=… others. Structures
are mutated where their declarations say that fields are, tables at whole entries, all of the metadata at random bytes.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import (
    COMPRESSED,
    WRITE,
    BlockError,
    Disk,
    ImageCorrupt,
    Request,
    create_image,
    open_image,
    open_node,
    parse_spec,
)
from dbt.machine.block.formats.qcow2.refcounts import _zero
from dbt.machine.block.registry import format_class, names

from .format_cases import SEED, bounded

MUTANTS = int(os.environ.get("DRAGOMAN_MUTANTS", "400"))
SIZE = 1 << 20
QCOW2: list[dict[str, Any]] = [
    {"cluster_size": 4096}, {"cluster_size": 16384, "extended_l2": True}, {"cluster_size": 512, "compat": "0.10"},
    {"cluster_size": 65536, "compression_type": "zstd"},
]  # fmt: skip


def image(options: dict[str, Any], path: Path) -> bytes:
    """A valid image with something of everything in it."""
    create_image(str(path), "qcow2", SIZE, options)
    with Disk(open_image(str(path), "qcow2", writable=True)) as disk:
        node: Any = disk.node
        cluster = node.geometry.cluster_size
        disk.write(0, b"a" * 100_000)
        node.snapshot_create("one")
        disk.write(50_000, b"b" * 100_000)
        disk.run(Request(WRITE, 4 * 65536, [memoryview(b"c" * cluster)], flags=COMPRESSED))
        disk.write_zeroes(6 * 65536, 65536)
    return path.read_bytes()


def places(node: Any, data: bytes) -> list[tuple[int, int]]:
    """(offset, bytes) of the metadata: structures and tables."""
    meta = node.meta
    cluster = node.geometry.cluster_size
    found = [(0, 600), (meta.l1_offset, 64), (meta.refcounts.table_offset, 64), node.snapshot_table]
    found += [(entry & 0x00FF_FFFF_FFFF_FE00, min(cluster, 4096)) for entry in meta.l1 if entry]
    found += [(entry, 512) for entry in meta.refcounts.table if entry]
    return [(at, min(length, len(data) - at)) for at, length in found if length > 0 or length < 0]


def mutants(data: bytes, structures: list[Any], tables: list[tuple[int, int]], pick: random.Random) -> Iterator[bytes]:
    while True:
        mutant = bytearray(data)
        for _ in range(pick.choice((1, 1, 1, 2, 4))):
            kind = pick.random()
            if kind < 0.4:
                _, at, structure = pick.choice(structures)
                size = type(structure).SIZE
                mutant[at : at + size] = type(structure).mutant(bytes(mutant[at : at + size]), pick)
            elif kind < 0.7:
                at, length = pick.choice(tables)
                at += pick.randrange(max(length // 8, 1)) * 8
                inside = pick.randrange(len(data)) & -512 | pick.choice((0, 1 << 63, 1 << 62))
                value = pick.choice([0, 1, (1 << 64) - 1, 1 << 62, 1 << 63 | 0x30000, pick.getrandbits(64), inside])
                mutant[at : at + 8] = value.to_bytes(8, "big")
            elif kind < 0.95:
                at, length = pick.choice(tables)
                at += pick.randrange(max(length, 1))
                if at < len(mutant):
                    mutant[at] = pick.randrange(256)
            else:
                del mutant[pick.randrange(len(mutant)) :]
        yield bytes(mutant)


def use(path: Path, driver: str, *, write: bool) -> str:
    """Do with an image what somebody would; the class of the error that ended it."""
    try:
        spec = {"driver": driver, "file": {"driver": "file", "filename": str(path), "no-flush": True}}
        node: Any = open_image(spec, writable=write)
    except BlockError as error:
        return type(error).__name__ if error.reason else "no reason"
    outcome = "fine"
    try:
        node.info()
        list(node.structures())
        for at in (0, 49_000, 4 * 65536, 6 * 65536, max(node.size - 4096, 0)):
            length = min(70_000, node.size - at)
            if length > 0:
                node.status(at, length)
                node.read(at, length, [memoryview(bytearray(length))])
        if not write:
            node.check()
        else:
            count = min(512, node.size)
            node.write(min(8 * 65536, node.size - count), count, [memoryview(bytes(count))])
            node.flush()
    except BlockError as error:
        outcome = type(error).__name__ if error.reason else "no reason"
    finally:
        try:
            node.close()
        except BlockError as error:
            outcome = type(error).__name__
    return outcome


@pytest.mark.parametrize("options", QCOW2, ids=str)
def test_mutated_qcow2_images(tmp_path: Path, options: dict[str, Any]) -> None:
    data = image(options, tmp_path / "a.qcow2")
    node: Any = open_image(str(tmp_path / "a.qcow2"), "qcow2")
    structures, tables = list(node.structures()), places(node, data)
    node.close()
    pick = random.Random(SEED)
    victim = tmp_path / "mutant.qcow2"
    outcomes: dict[str, int] = {}
    source = mutants(data, structures, tables, pick)
    for k in range(MUTANTS):
        mutant = next(source)
        victim.write_bytes(mutant)
        try:
            with bounded(k):
                outcome = use(victim, "qcow2", write=bool(k & 1))
        except BaseException:
            (tmp_path / f"culprit-{k}").write_bytes(mutant)
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes.get("ImageCorrupt", 0) > MUTANTS // 10
    assert len(outcomes) >= 2
    assert "no reason" not in outcomes


@pytest.mark.parametrize("driver", names("formats"))
def test_noise_is_no_image(tmp_path: Path, driver: str) -> None:
    pick = random.Random(2)
    path = tmp_path / "noise"
    for size in (0, 1, 511, 512, 4096, 70_000):
        path.write_bytes(pick.randbytes(size))
        if driver == "raw":
            open_image(str(path), driver).close()
            continue
        with pytest.raises(BlockError) as caught:
            open_image(str(path), driver)
        assert str(path) in str(caught.value)
        file = open_node(parse_spec(str(path)), writable=False)
        assert not format_class(driver).probe(path.read_bytes(), file)
        file.close()


def test_a_compressed_bomb_is_an_error(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", SIZE, {"compression_type": "zstd"})
    with Disk(open_image(str(path), "qcow2", writable=True)) as disk:
        content = random.Random(1).randbytes(6000).ljust(65536, b"\0")
        disk.run(Request(WRITE, 0, [memoryview(content)], flags=COMPRESSED))
        node: Any = disk.node
        offset, _ = node.geometry.compressed(node.meta.table(0).words[0])
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100 << 20))
    assert len(bomb) < 16384
    for frame in (bomb[:6000], zstandard.compress(bytes(100 << 20))[:6000]):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(frame)
        with Disk(open_image(str(path), "qcow2")) as disk, pytest.raises(ImageCorrupt, match="compressed cluster"):
            disk.read(0, 512)


@pytest.mark.parametrize("size", [1 << 62, (1 << 62) + 512])
def test_a_snapshot_of_an_impossible_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.qcow2"
    data = bytearray(image({"cluster_size": 512}, path))
    at = int.from_bytes(data[64:72], "big") + 40  # of its extra data
    assert int.from_bytes(data[at + 8 : at + 16], "big") == SIZE
    data[at + 8 : at + 16] = size.to_bytes(8, "big")
    path.write_bytes(data)
    with Disk(open_image(str(path), "qcow2", writable=True)) as disk:
        node: Any = disk.node
        with pytest.raises(ImageCorrupt, match=rf"a\.qcow2: at offset {at + 8:#x}: .*disk_size is {size}"):
            node.snapshot_apply("one")
        assert disk.size == SIZE
        assert node.check().clean


def test_refcounts_of_a_file_that_is_made_to_look_large(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    data = bytearray(image({"cluster_size": 512}, path))
    table = int.from_bytes(data[48:56], "big")
    data[table + 7] |= 1  # a block that is not aligned: all are made anew
    data[79] |= 1  # was not closed: repaired when it is opened
    path.write_bytes(data)
    os.truncate(path, 1 << 42)
    with pytest.raises(ImageCorrupt, match=f"a.qcow2: at offset {table:#x}: its refcounts cannot be made anew"):
        open_image(str(path), "qcow2", writable=True)


def test_refcount_blocks_that_are_all_full(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    create_image(str(path), "qcow2", SIZE, {"cluster_size": 4096})
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[48:56], "big")
    block = data[table : table + 8]
    data[table : table + 4096] = bytes(block) * 512  # one and the same
    at = int.from_bytes(block, "big")
    data[at : at + 4096] = b"\1\0\0\1" * 1024  # two bytes of zero again and again, and no count that is
    path.write_bytes(data)
    with Disk(open_image(str(path), "qcow2", writable=True)) as disk:
        begin = time.process_time()
        disk.write(0, b"behind all of them")
        assert time.process_time() - begin < 0.4  # 0.8 s, one count after the other; hours for as many as there may be
        assert bytes(disk.read(0, 18)) == b"behind all of them"


@pytest.mark.parametrize("code", "BHIQ")
def test_the_first_zero_of_a_table(code: str) -> None:
    rng = random.Random(code)
    choices = [0, *[1] * 20, *[1 << 8 * array(code).itemsize - 8] * 20]
    for _ in range(100):
        words = array(code, rng.choices(choices, k=rng.randrange(40)))
        for i in range(len(words) + 1):
            assert _zero(words, i) == next((k for k in range(i, len(words)) if not words[k]), len(words))
