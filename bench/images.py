"""Disks by the commands, against qemu-img: converting, requests, describing. bench/storage.py: by the library."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import BenchError, Command, Figure, check, pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .suites import Setting

SIZE = 1 << 30
MIB = 1 << 20
SHELL = "/bin/sh"


def storage(setting: Setting) -> Iterator[Figure]:
    """All figures of disks."""
    tool = shutil.which("qemu-img")
    if tool is None:
        raise BenchError("qemu-img is missing: apt-get install qemu-utils")
    folder = Path(tempfile.mkdtemp(prefix="disks-", dir=setting.cache))
    try:
        yield from _convert(setting, tool, folder)
        yield from _requests(setting, tool, folder)
        yield from _info(setting, tool, folder)
    finally:
        shutil.rmtree(folder)


def _convert(setting: Setting, tool: str, folder: Path) -> Iterator[Figure]:
    """Each side writes a file of its own, again and again, as a user's command does."""
    full, sparse, text = (folder / f"{name}.raw" for name in ("full", "sparse", "text"))
    noise = random.Random(1)
    blocks = [noise.randbytes(MIB) for _ in range(16)]
    with full.open("wb") as data, sparse.open("wb") as zeroes, text.open("wb") as words:
        for n in range(SIZE // MIB):
            block = blocks[n % 16]
            data.write(block)
            zeroes.write(block if n % 4 == 0 else bytes(MIB))
            if n % 4 == 0:
                words.write(block[: MIB // 4].hex().encode() + bytes(MIB // 2))  # halves, and zeroes
    source = folder / "full.qcow2"
    check([tool, "convert", "-q", "-f", "raw", "-O", "qcow2", full, source], setting.environ)
    cases: tuple[tuple[str, Path, str, list[str]], ...] = (
        ("convert raw to qcow2", full, "qcow2", []),
        ("convert qcow2 to raw", source, "raw", []),
        ("convert, three quarters written zeroes", sparse, "qcow2", []),
        ("convert to zstd clusters", text, "qcow2", ["-c", "-o", "compression_type=zstd"]),
    )
    for name, image, made, more in cases:
        words_ = ["convert", "-q", "-f", image.suffix[1:], "-O", made, *more, str(image)]
        ours = _afresh(folder / "ours", [setting.dragoman, "img", *words_])
        theirs = _afresh(folder / "theirs", [tool, *words_])
        times = pairs(ours, theirs, setting.environ, setting.rounds)
        compared: Command = [tool, "compare", "-q", "-f", made, "-F", made, folder / "ours", folder / "theirs"]
        check(compared, setting.environ)
        yield Figure(name, "s", *times, goal=0.7, kind="storage")
    for name, more in (("convert over an image, kept until then", []), ("convert --overwrite", ["--overwrite"])):
        commands: list[Command] = []
        for tool_, extra, target in (([setting.dragoman, "img"], more, "ours"), ([tool], [], "theirs")):
            commands.append([*tool_, "convert", "-q", *extra, "-f", "raw", "-O", "qcow2", full, folder / target])
            check(commands[-1], setting.environ)
        yield Figure(name, "s", *pairs(commands[0], commands[1], setting.environ, setting.rounds), kind="storage")


def _afresh(target: Path, command: Command) -> Command:
    """The command, with a target that is not there: an old one costs us its space until the new one is whole."""
    return [SHELL, "-c", 'rm -f "$0" && exec "$@" "$0"', target, *command]


def _requests(setting: Setting, tool: str, folder: Path) -> Iterator[Figure]:
    """Requests on an allocated qcow2, timed by both sides themselves, without the start of the process."""
    image = folder / "full.qcow2"
    scattered = 4096 * 25_999  # a step that goes round the disk and comes by everywhere
    cases: tuple[tuple[str, list[str], float], ...] = (
        ("sequential reads of 1 MiB", ["-c", "1000", "-d", "8", "-s", "1M"], 0.6),
        ("sequential writes of 1 MiB", ["-w", "-c", "1000", "-d", "8", "-s", "1M"], 0.6),
        ("scattered reads of 4 KiB, depth 32", ["-c", "50000", "-d", "32", "-s", "4096", "-S", str(scattered)], 0.3),
    )
    for name, words, goal in cases:
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(setting.rounds):
            said = _output([setting.dragoman, "img", "bench", "--json", "-f", "qcow2", *words, image], setting)
            ours.append(float(json.loads(said)["seconds"]))
            said = _output([tool, "bench", "-q", "-t", "writeback", "-f", "qcow2", *words, image], setting)
            found = re.search(r"completed in ([\d.]+) seconds", said)
            if found is None:
                raise BenchError(f"qemu-img bench says {said!r}")
            theirs.append(float(found[1]))
        yield Figure(name, "s", ours, theirs, goal=goal, kind="storage")


def _output(command: Command, setting: Setting) -> str:
    done = subprocess.run(command, env=setting.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stdout


def _info(setting: Setting, tool: str, folder: Path) -> Iterator[Figure]:
    """The whole command on an image of 64 TiB."""
    image = folder / "large.qcow2"
    check([tool, "create", "-q", "-f", "qcow2", image, "64T"], setting.environ)
    ours: Command = [setting.dragoman, "img", "info", image]
    times = pairs(ours, [tool, "info", image], setting.environ, setting.rounds * 2)
    yield Figure("info on 64 TiB", "s", *times, limit=0.06, kind="storage")
