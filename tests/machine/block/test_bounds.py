"""Formats in formats and in windows: what is inside neither sees nor changes what is behind the disk it is in."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import Disk, HostError, create_image, open_image

MIB, CLUSTER = 1 << 20, 1 << 16
GUARD = b"behind the window".ljust(64, b".") * 20_000


def fill(spec: dict[str, Any]) -> list[bytes]:
    """Write clusters until there is no room; those that fit."""
    written: list[bytes] = []

    def more(disk: Disk) -> None:
        for number in range(100):
            disk.write(number * CLUSTER, bytes([number + 1]) * CLUSTER)
            written.append(bytes([number + 1]) * CLUSTER)

    with Disk(open_image(spec, "qcow2", writable=True)) as disk:
        with pytest.raises(HostError, match="cannot grow") as caught:
            more(disk)
        assert caught.value.errno == errno.ENOSPC
        disk.write_zeroes(0, CLUSTER)  # what is there can be changed
        written[0] = bytes(CLUSTER)
    assert len(written) > 4
    return written


INNER: list[tuple[str, dict[str, Any]]] = [
    ("vdi", {}), ("vpc", {}), ("vpc", {"subformat": "fixed"}), ("vhdx", {}), ("qed", {}), ("vmdk", {}), ("qcow2", {}),
]  # fmt: skip


@pytest.mark.parametrize(("driver", "options"), INNER, ids=str)
def test_an_image_in_an_image_ends_with_it(tmp_path: Path, driver: str, options: dict[str, Any]) -> None:
    name = str(tmp_path / "inner")
    create_image(name, driver, MIB, options)
    spec = {"driver": "qcow2", "file": {"driver": driver, "file": {"driver": "file", "filename": name}}}
    create_image(spec, "qcow2", 16 * MIB)
    written = fill(spec)
    with Disk(open_image(spec, "qcow2")) as disk:
        assert [bytes(disk.read(number * CLUSTER, CLUSTER)) for number in range(len(written))] == written
    with Disk(open_image(name, driver)) as disk:
        assert disk.node.check().clean  # type: ignore[attr-defined]


def test_an_image_in_a_window_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"front" + bytes(MIB - 5) + bytes(MIB) + GUARD)
    file = {"driver": "file", "filename": str(path)}
    spec = {"driver": "qcow2", "file": {"driver": "raw", "offset": MIB, "size": MIB, "file": file}}
    create_image(spec, "qcow2", 16 * MIB)
    written = fill(spec)
    data = path.read_bytes()
    assert (data[:5], data[2 * MIB :]) == (b"front", GUARD)
    smaller = {"driver": "qcow2", "file": {"driver": "raw", "offset": MIB, "size": MIB // 2, "file": file}}
    with Disk(open_image(smaller, "qcow2")) as disk:  # as a hostile image has it: clusters behind the window
        found = [bytes(disk.read(number * CLUSTER, CLUSTER)) for number in range(len(written))]
        assert found[:3] == written[:3]
        assert set(found[6:]) == {bytes(CLUSTER)}
    with Disk(open_image(spec, "qcow2", writable=True)) as disk:
        for number in range(len(written)):
            disk.discard(number * CLUSTER, CLUSTER)
    assert path.read_bytes()[2 * MIB :] == GUARD
