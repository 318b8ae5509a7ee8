"""vhdx: differencing disks, blocks that are partially present, the log."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from dbt.machine.block import BlockError, Format, create_image, open_image

from .format_cases import SIZE, opened, qemu_content, tool

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")


def vhdx_child(folder: Path) -> bytes:
    """A parent `p` and a differencing disk `c` of it; what the child reads as."""
    create_image(str(folder / "p"), "vhdx", SIZE, {"block_size": 1 << 20})
    content = bytearray(random.Random(2).randbytes(SIZE))
    with opened(folder, "p", "vhdx", writable=True) as disk:
        disk.write(0, content)
    create_image(str(folder / "c"), "vhdx", SIZE, {"block_size": 1 << 20, "backing_file": "p"})
    with opened(folder, "c", "vhdx", writable=True) as disk:
        disk.write(700_000, b"c" * 100_000)
        disk.write_zeroes(2 << 20, 1 << 20)
        content[700_000:800_000] = b"c" * 100_000
        content[2 << 20 : 3 << 20] = bytes(1 << 20)
        assert not disk.status(1 << 20, 1).allocated
        assert disk.status(2 << 20, 1 << 20).zero
    return bytes(content)


def test_vhdx_differencing(tmp_path: Path) -> None:
    content = vhdx_child(tmp_path)
    with opened(tmp_path, "c", "vhdx", writable=True) as disk:
        assert bytes(disk.read(0, SIZE)) == content
        assert disk.node.info()["parent-locator"]["relative_path"] == "p"
        assert disk.node.check().clean  # type: ignore[attr-defined]
        disk.resize(5 << 20)
        assert bytes(disk.read(0, 5 << 20)) == content + bytes(1 << 20)
    with opened(tmp_path, "p", "vhdx", writable=True) as disk:
        disk.write(0, b"changed")
    with pytest.raises(BlockError, match="was changed since"):
        open_image(str(tmp_path / "c"), "vhdx")


def test_vhdx_blocks_that_are_partially_present(tmp_path: Path) -> None:
    content = bytearray(vhdx_child(tmp_path))
    data = bytearray((tmp_path / "c").read_bytes())
    bat = 3 << 20
    entry = int.from_bytes(data[bat : bat + 8], "little")
    assert entry & 7 == 6
    data[bat : bat + 8] = (entry | 7).to_bytes(8, "little")
    ratio = (1 << 23) * 512 // (1 << 20)
    data += bytes(-len(data) % (1 << 20))
    data[bat + 8 * ratio : bat + 8 * ratio + 8] = (len(data) | 6).to_bytes(8, "little")
    present = random.Random(4)
    bitmap = bytearray(1 << 20)
    host = entry & -(1 << 20)
    for sector in range(2048):
        if present.random() < 0.5:
            bitmap[sector // 8] |= 1 << sector % 8
            data[host + sector * 512 : host + sector * 512 + 512] = b"m" * 512
            content[sector * 512 : sector * 512 + 512] = b"m" * 512
    (tmp_path / "c").write_bytes(data + bitmap)
    with opened(tmp_path, "p", "vhdx") as parent:
        below = bytes(parent.read(0, 1 << 20))
    for sector in range(2048):
        if not bitmap[sector // 8] >> sector % 8 & 1:
            content[sector * 512 : sector * 512 + 512] = below[sector * 512 : sector * 512 + 512]
    with opened(tmp_path, "c", "vhdx", writable=True) as disk:
        assert bytes(disk.read(0, SIZE)) == content
        disk.write(5000, b"w" * 3000)
        content[5000:8000] = b"w" * 3000
        assert bytes(disk.read(0, SIZE)) == content
        assert disk.node.check().clean  # type: ignore[attr-defined]


def test_vhdx_partial_blocks_take_linear_time(tmp_path: Path) -> None:
    block, half = 8 << 20, 4 << 20
    create_image(str(tmp_path / "p"), "vhdx", block, {"block_size": block})
    create_image(str(tmp_path / "c"), "vhdx", block, {"block_size": block, "backing_file": "p"})
    with opened(tmp_path, "c", "vhdx", writable=True) as disk:
        disk.write(0, b"c" * block)
    data = bytearray((tmp_path / "c").read_bytes())
    bat, ratio = 3 << 20, (1 << 23) * 512 // block
    data[bat] |= 7
    data += bytes(-len(data) % (1 << 20))
    data[bat + 8 * ratio : bat + 8 * ratio + 8] = (len(data) | 6).to_bytes(8, "little")
    (tmp_path / "c").write_bytes(data + b"\x55" * (1 << 20))  # every other sector
    with opened(tmp_path, "c", "vhdx") as disk:
        begin = time.process_time()
        assert bytes(disk.read(0, half)) == (b"c" * 512 + bytes(512)) * (half // 1024)
        assert time.process_time() - begin < 1.5  # 28 s if each lookup goes through what is left


def test_vhdx_log_is_replayed(tmp_path: Path) -> None:
    create_image(str(tmp_path / "a"), "vhdx", SIZE, {"block_size": 1 << 20})
    before = (tmp_path / "a").read_bytes()
    bat = 3 << 20
    disk = opened(tmp_path, "a", "vhdx", writable=True)
    for block in (3, 1, 0):
        disk.write(block << 20, bytes([block + 1]) * (1 << 20))
    crashed = bytearray((tmp_path / "a").read_bytes())
    disk.close()
    expected = b"\1" * (1 << 20) + b"\2" * (1 << 20) + bytes(1 << 20) + b"\4" * (1 << 20)
    crashed[bat : bat + 4096] = before[bat : bat + 4096]  # the BAT's sector did not make it to its place
    for reader in ("ours, reading", "ours", "qemu"):
        path = tmp_path / reader.replace(", ", "-")
        path.write_bytes(crashed)
        if reader == "qemu":
            tool(tmp_path, "qemu-img", "check", "-r", "all", "-f", "vhdx", path.name)
            assert qemu_content(tmp_path, "vhdx", path.name) == expected
        with opened(tmp_path, path.name, "vhdx", writable=reader == "ours") as disk:
            assert bytes(disk.read(0, SIZE)) == expected
            assert disk.node.check().clean  # type: ignore[attr-defined]
        if reader == "ours":
            assert qemu_content(tmp_path, "vhdx", path.name) == expected
        if reader == "ours, reading":
            assert path.read_bytes() == crashed
    broken = bytearray(crashed)
    broken[1 << 20 : 2 << 20] = bytes(1 << 20)
    (tmp_path / "b").write_bytes(broken)
    with pytest.raises(BlockError, match="the log has no valid entries"):
        open_image(str(tmp_path / "b"), "vhdx")
    node = open_image(str(tmp_path / "b"), "vhdx", writable=True, repair=True)
    assert isinstance(node, Format)
    assert node.check("all").corruptions_fixed
    node.close()
    with opened(tmp_path, "b", "vhdx") as disk:
        assert disk.node.check().clean  # type: ignore[attr-defined]


def test_vhdx_log_wraps(tmp_path: Path) -> None:
    create_image(str(tmp_path / "a"), "vhdx", 1 << 30, {"block_size": 1 << 20})
    disk = opened(tmp_path, "a", "vhdx", writable=True)
    for block in range(200):  # 8 KiB each, the log has 1 MiB
        disk.write(block << 20, bytes([block + 1]) * 512)
    tool(tmp_path, "cp", "--sparse=always", "a", "b")  # 200 MiB, nearly all of them holes
    disk.close()
    with open(tmp_path / "b", "r+b") as file:
        os.pwrite(file.fileno(), bytes(4096), 3 << 20)  # the BAT's sector did not make it to its place
    with opened(tmp_path, "a", "vhdx") as whole, opened(tmp_path, "b", "vhdx") as replayed:
        for block in range(200):
            assert bytes(whole.read(block << 20, 1024)) == bytes([block + 1]) * 512 + bytes(512)
            assert bytes(replayed.read(block << 20, 1024)) == bytes([block + 1]) * 512 + bytes(512)
