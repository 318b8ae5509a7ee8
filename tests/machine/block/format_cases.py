"""What the tests of the smaller formats share: their option sets, and random operations with a model."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbt.machine.block import MAY_UNMAP, BlockError, Disk, Format, Node, create_image, open_image

MIB = 1 << 20
SIZE = 4 * MIB
Case = tuple[str, dict[str, Any]]
BACKED = {"backing_file": "below.raw", "backing_fmt": "raw"}
# qemu itself cannot open table_size=1.
CASES: list[Case] = [
    ("qed", {}), ("qed", {"cluster_size": 4096, "table_size": 2}), ("qed", {"cluster_size": 1 << 20, "table_size": 16}),
    ("qed", BACKED), ("qed", {"cluster_size": 8192, **BACKED}),
    ("vhdx", {}), ("vhdx", {"block_size": MIB, "block_state_zero": False}), ("vhdx", {"log_size": 2 * MIB}),
    ("vhdx", {"subformat": "fixed"}), ("vdi", {}), ("vdi", {"static": True}),
    ("vpc", {"force_size": True}), ("vpc", {"subformat": "fixed", "force_size": True}),
    ("vmdk", {}), ("vmdk", {"zeroed_grain": True, "adapter_type": "lsilogic"}), ("vmdk", {"compat6": True}),
    ("vmdk", {"adapter_type": "buslogic", "hwversion": "13"}), ("vmdk", {"adapter_type": "legacyESX"}),
]  # fmt: skip
CHECKED = {"qed", "vhdx", "vmdk", "vdi"}  # what qemu-img check can check


def name_of(case: tuple[str, dict[str, Any]]) -> str:
    return ",".join([case[0], *(f"{k}={v}" for k, v in case[1].items() if "backing" not in k)]) + (
        ",backed" if "backing_file" in case[1] else ""
    )


def tool(folder: Path, *words: str) -> str:
    """Run one of qemu's tools; its output."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (words, done.stdout[-800:], done.stderr[-800:])
    return done.stdout


def qemu_options(options: dict[str, Any]) -> list[str]:
    words = [
        f"{key}={value if not isinstance(value, bool) else 'on' if value else 'off'}" for key, value in options.items()
    ]
    return ["-o", ",".join(words)] if words else []


def qemu_content(folder: Path, driver: str, name: str) -> bytes:
    tool(folder, "qemu-img", "convert", "-f", driver, "-O", "raw", name, "out.raw")
    return (folder / "out.raw").read_bytes()


def make(folder: Path, driver: str, options: dict[str, Any]) -> bytearray:
    """A new image `a`; what it contains."""
    model = bytearray(SIZE)
    if "backing_file" in options:
        model[: 3 * MIB] = below = random.Random(1).randbytes(3 * MIB)
        (folder / "below.raw").write_bytes(below)
    create_image(str(folder / "a"), driver, SIZE, options)
    return model


def operate(disk: Disk, model: bytearray, pick: random.Random, steps: int) -> list[str]:
    """Random operations; the same in qemu-io's words."""
    commands = []
    for step in range(steps):
        offset = pick.randrange(len(model) // 512) * 512
        length = min(pick.choice([512, 4096, 69632, 300032, MIB]), len(model) - offset)
        if pick.random() < 0.3:
            offset &= -65536
            length = min(65536 * pick.randint(1, 20), len(model) - offset)
        action = pick.choice(["write"] * 4 + ["zero", "unmap", "discard", "flush", "read"])
        if action == "write":
            disk.write(offset, bytes([step + 1]) * length)
            model[offset : offset + length] = bytes([step + 1]) * length
            commands.append(f"write -P {step + 1} {offset} {length}")
        elif action in {"zero", "unmap"}:
            disk.write_zeroes(offset, length, MAY_UNMAP if action == "unmap" else 0)
            model[offset : offset + length] = bytes(length)
            commands.append(f"write -z {offset} {length}")
        elif action == "discard":
            disk.discard(offset, length)
            found = bytes(disk.read(offset, length))
            before = bytes(model[offset : offset + length])
            assert all(a in (b, 0) for a, b in zip(found, before, strict=True))  # as it was, or zero
            disk.write(offset, before)
        elif action == "flush":
            disk.flush()
        else:
            assert bytes(disk.read(offset, length)) == model[offset : offset + length]
    return commands


def exercise(image: dict[str, Any], pick: random.Random) -> str:
    """Open an image that may be anything, read, check, write, repair. What went wrong, "" if nothing; else a bug."""
    node: Node | None = None
    wrong = ""
    try:
        node = open_image(image, writable=bool(pick.getrandbits(1)), repair=bool(pick.getrandbits(1)))
        disk = Disk(node)
        list(node.structures() if isinstance(node, Format) else ())
        node.info()
        for _ in range(4):
            if not node.size:
                break
            offset = pick.randrange(node.size)
            length = min(pick.choice([1, 4096, 100_000]), node.size - offset)
            disk.status(offset, length)
            disk.read(offset, length)
            if node.writable:
                disk.write(offset, b"x" * length)
        if isinstance(node, Format):
            node.check("all" if node.writable else "")
    except BlockError as error:  # anything else is a bug
        wrong = error.reason
    finally:
        if node is not None:
            try:
                node.close()
            except BlockError as error:
                wrong = wrong or error.reason
    return wrong


MUTANTS = int(os.environ.get("DRAGOMAN_MUTANTS", "150"))  # of each format; 100000 on demand
SEED = int(os.environ.get("DRAGOMAN_SEED", "3"))  # others are other mutants
MEMORY = 64 << 20  # bytes more than before, of one mutant
SECONDS = 20  # of one mutant: far above what any takes, far below "for ever"


@contextmanager
def bounded(what: object) -> Iterator[None]:
    """What is done here takes bounded memory and time."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS, what
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY >> 10, what


def opened(folder: Path, name: str, driver: str, *, writable: bool = False) -> Disk:
    return Disk(open_image(str(folder / name), driver, writable=writable))
