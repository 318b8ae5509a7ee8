"""Images for the tests of `dragoman img`, and qemu-img."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from dbt.machine.block import Disk, open_image

MIB = 1 << 20
Img = Callable[..., tuple[int, str, str]]


def qemu_img(*words: str) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def patchwork(path: str, length: int, seed: int) -> bytes:
    """A raw image with data, holes, written zeroes and an end that is no multiple of anything."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(length)
        for _ in range(40):
            at = rng.randrange(length)
            file.seek(at)
            count = min(rng.choice((1, 512, 4096, 70_000, 300_000)), length - at)
            file.write(rng.randbytes(count) if rng.random() < 0.7 else bytes(count))
    return Path(path).read_bytes()


def content(path: str, driver: str | None = None) -> bytes:
    with Disk(open_image(path, driver)) as disk:
        return bytes(disk.read(0, disk.size))
