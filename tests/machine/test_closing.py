"""A machine owns what its devices were given of the host: disks and shared folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dbt.machine.block import Disk, open_image
from dbt.machine.boards import Options, Plugged, load
from dbt.machine.device import Device
from dbt.machine.machine import Machine
from dbt.machine.ninep import Share

from dbt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def closed(share: Share) -> bool:
    return share.root == -1


def shared(share: Share, name: str) -> Plugged:
    return Plugged("virtio_9p", name, arguments={"share": share, "tag": name})


def test_a_machine_closes_disks_and_folders_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(open_image("driver=raw,file.driver=memory,file.size=1M", writable=True))
    flushed: list[str] = []
    monkeypatch.setattr(disk.node, "close", lambda: flushed.append("disk"))
    share = Share(str(tmp_path))
    options = Options(disks=(disk,), devices=(shared(share, "one"), shared(share, "two")))
    with load("virt").build(options) as machine:
        assert not closed(share)
        assert not flushed
    assert closed(share)
    assert flushed == ["disk"]
    machine.close()
    share.close()
    disk.close()
    assert flushed == ["disk"]


def test_all_is_closed_although_one_fails(tmp_path: Path) -> None:
    class Bad(Device):
        closings = 0

        def close(self) -> None:
            type(self).closings += 1
            raise OSError(28, "it does not end")

    machine = Machine()
    Bad("first", machine)
    share = Share(str(tmp_path))
    other = load("virt").build(Options(devices=(shared(share, "one"),)))
    machine.devices.update(other.devices)
    Bad("last", machine)
    with pytest.raises(OSError, match="does not end"):
        machine.close()
    assert Bad.closings == 2
    assert closed(share)


@pytest.mark.parametrize("board", ["virt", "pc"])
def test_a_board_that_cannot_be_built_closes_what_devices_had(board: str, tmp_path: Path) -> None:
    share = Share(str(tmp_path))
    with pytest.raises(UsageError, match="bridge"):
        load(board).build(Options(devices=(shared(share, "one"), Plugged("virtio_rng", bus="nowhere"))))
    assert closed(share)
