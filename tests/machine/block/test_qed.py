"""qed: the mark of an image that is in use, growing, backing files."""

from __future__ import annotations

from pathlib import Path

import pytest
from dbt.machine.block import BlockError, create_image

from .format_cases import make, opened, tool

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")


def test_qed_that_was_not_closed_is_repaired(tmp_path: Path) -> None:
    make(tmp_path, "qed", {"cluster_size": 4096})
    path = tmp_path / "a"
    disk = opened(tmp_path, "a", "qed", writable=True)
    disk.write(0, b"a" * 4096)
    disk.write(8192, b"b" * 4096)
    disk.flush()
    data = path.read_bytes()
    disk.close()
    assert path.read_bytes() != data  # closed is not dirty
    path.write_bytes(data[:-4096])  # the last cluster did not make it
    with opened(tmp_path, "a", "qed") as disk:
        assert disk.node.check().corruptions == 1  # type: ignore[attr-defined]
        with pytest.raises(BlockError, match=r"L2 entry 2 is .*, where no cluster can be"):
            disk.read(8192, 1)
    with opened(tmp_path, "a", "qed", writable=True) as disk:
        assert bytes(disk.read(0, 12288)) == b"a" * 4096 + bytes(8192)
    tool(tmp_path, "qemu-img", "check", "-f", "qed", "a")


def test_qed_grows_and_hides_its_backing(tmp_path: Path) -> None:
    (tmp_path / "below.raw").write_bytes(b"z" * (3 << 20))
    create_image(str(tmp_path / "a"), "qed", 1 << 20, {"backing_file": "below.raw", "backing_fmt": "raw"})
    with opened(tmp_path, "a", "qed", writable=True) as disk:
        disk.resize(2 << 20)
        assert bytes(disk.read(0, 2 << 20)) == b"z" * (1 << 20) + bytes(1 << 20)
        with pytest.raises(BlockError, match="cannot be made smaller"):
            disk.resize(1 << 20)
        disk.node.change_backing("", "")  # type: ignore[attr-defined]
    with opened(tmp_path, "a", "qed") as disk:
        assert bytes(disk.read(0, 2 << 20)) == bytes(2 << 20)
    tool(tmp_path, "qemu-img", "check", "-f", "qed", "a")
