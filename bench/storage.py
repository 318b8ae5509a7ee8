"""Storage figures in pairs against qemu: `python -m bench.storage [FOLDER]` (DESIGN: ratios of one run).

Sequential reads and writes of an allocated qcow2 image, by 1 MiB, against qemu-io; 4 KiB random reads 32 deep against
qemu-img bench (which reads in strides); info of a 64 TiB image. Everything is in the page cache.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable  # noqa: TC003 - costs nothing here
from pathlib import Path

from dbt.machine.block import READ, WRITE, Disk, Request, open_image

SIZE, STEP, READS, DEPTH = 1 << 30, 1 << 20, 100_000, 32
QEMU_BENCH = ["qemu-img", "bench", "-q", "-c", str(READS), "-d", str(DEPTH), "-s", "4096", "-S", str(1 << 20)]
INFO = "from dbt.machine.block import describe, open_image; describe(open_image('big.qcow2'))"


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(disk: Disk, operation: int, offsets: list[int], length: int, depth: int) -> None:
    """Requests at `offsets`, `depth` of them in flight."""
    buffers = [memoryview(bytearray(length)) for _ in range(depth)]
    room = threading.Semaphore(depth)

    def done(request: Request) -> None:
        assert request.error is None
        buffers.append(request.vectors[0])
        room.release()

    for at in offsets:
        room.acquire()
        request = Request(operation, at, [buffers.pop()], done)
        if disk.submit(request):
            done(request)
    disk.drain()


def qemu_io(folder: Path, word: str) -> float:
    """Seconds of qemu-io for the whole image by steps, without its start."""
    tool = ["qemu-io", "-t", "unsafe", "-f", "qcow2"]
    commands = [part for at in range(0, SIZE, STEP) for part in ("-c", f"{word} {at} {STEP}")]

    def call(words: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run([*tool, *words, "a.qcow2"], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    return timed(call(commands)) - timed(call(["-c", "read 0 512"]))


def main() -> None:
    """Print the table."""
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))

    def quiet(*words: str) -> None:
        subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    quiet("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", str(SIZE))
    quiet("qemu-img", "create", "-q", "-f", "qcow2", "big.qcow2", "64T")
    quiet("qemu-io", "-f", "qcow2", "-c", f"write -P 5 0 {SIZE}", "a.qcow2")
    spec = {"driver": "qcow2", "file": {"driver": "file", "filename": str(folder / "a.qcow2"), "no-flush": True}}
    steps = list(range(0, SIZE, STEP))
    places = [random.Random(1).randrange(SIZE // 4096) * 4096 for _ in range(READS)]
    print("figure               qemu      ours     ratio")
    for _ in range(2):
        rows = [
            ("sequential read", qemu_io(folder, "read"), READ),
            ("sequential write", qemu_io(folder, "write"), WRITE),
        ]
        for name, theirs, operation in rows:
            with Disk(open_image(spec, writable=operation == WRITE)) as disk:
                ours = timed(lambda d=disk, o=operation: run(d, o, steps, STEP, 8))  # type: ignore[misc]
            print(f"{name:18} {theirs:7.3f} s {ours:7.3f} s {theirs / ours:7.2f}")
        theirs = timed(lambda: quiet(*QEMU_BENCH, "-f", "qcow2", "a.qcow2"))
        with Disk(open_image(spec)) as disk:
            ours = timed(lambda d=disk: run(d, READ, places, 4096, DEPTH))  # type: ignore[misc]
        print(f"{'random 4 KiB reads':18} {theirs:7.3f} s {ours:7.3f} s {theirs / ours:7.2f}")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        quiet(sys.executable, "-c", INFO)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{'info, 64 TiB':18}           {used * 1000:5.0f} ms")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


if __name__ == "__main__":
    main()
