"""Block devices: on a loop device where that may be had, and on a file behind the same code."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbt.machine.block import MAY_UNMAP, BadOption, Disk, HostError, RequestRefused, create_image, open_image

SIZE = 8 << 20


def loop_device(path: Path) -> str | None:
    """A loop device over `path`; None where there are none."""
    if shutil.which("losetup") is None:
        return None
    done = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.fixture(params=["file", "loop"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "device"
    path.write_bytes(b"d" * SIZE)
    if request.param == "file":
        yield str(path)
        return
    name = loop_device(path)
    if name is None:
        pytest.skip("no loop device here")
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)


@pytest.mark.parametrize("direct", ["off", "on"])
def test_a_device_is_read_written_and_zeroed(device: str, direct: str) -> None:
    pick, model = random.Random(1), bytearray(b"d" * SIZE)
    with Disk(open_image(f"driver=raw,file.driver=host-device,file.filename={device},file.direct={direct}",
                         writable=True)) as disk:  # fmt: skip
        assert disk.size == SIZE
        for _ in range(40):
            offset = pick.randrange(SIZE - 100_000)
            length = pick.choice([1, 512, 4096, 100_000])
            if pick.random() < 0.5:
                offset &= -4096
                length = length + 4095 & -4096
            action = pick.choice(["write", "zero", "read"])
            if action == "write":
                model[offset : offset + length] = data = pick.randbytes(length)
                disk.write(offset, data)
            elif action == "zero":
                model[offset : offset + length] = bytes(length)
                disk.write_zeroes(offset, length, pick.choice((0, MAY_UNMAP)))
            else:
                assert bytes(disk.read(offset, length)) == model[offset : offset + length]
        disk.discard(4096, 65536)
        found = bytes(disk.read(4096, 65536))
        assert all(a in (b, 0) for a, b in zip(found, model[4096:69632], strict=True))
        disk.flush()
        model[4096:69632] = found
        assert bytes(disk.read(0, SIZE)) == model


def test_a_format_on_a_device_ends_where_it_ends(device: str) -> None:
    spec = f"driver=qcow2,file.driver=host-device,file.filename={device}"
    create_image(spec, "qcow2", 64 << 20)
    with Disk(open_image(spec, writable=True)) as disk:
        disk.write(0, b"x" * (2 << 20))
        with pytest.raises(HostError) as caught:
            disk.write(4 << 20, b"y" * (16 << 20))
        assert caught.value.errno == 28
        assert bytes(disk.read(0, 2 << 20)) == b"x" * (2 << 20)
        disk.flush()
        assert disk.node.check().corruptions == 0  # type: ignore[attr-defined]
    with pytest.raises(RequestRefused, match="are needed"):
        create_image(f"driver=raw,file.driver=host-device,file.filename={device}", "raw", SIZE + 1)


def test_a_device_is_no_file(device: str) -> None:
    if device.startswith("/dev/"):
        with pytest.raises(BadOption, match="host-device"):
            open_image(device, "raw")
