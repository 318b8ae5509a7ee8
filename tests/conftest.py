"""What all tests share: tools that may be missing, Debian's arm64 busybox, a cache of their own, the command itself.

A test that needs a program from outside says so, `@pytest.mark.needs("qemu-aarch64-static")`. Where it is missing the
test is left out, and one line at the end of the run says what was left out and how to get it. CI must have everything:
with CI=true a missing tool is an error.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dbt.engine import build
from dbt.engine.host_x86_64 import SYS_SIGACTION

LIBC = ctypes.CDLL(None)
ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
BUSYBOX = "busybox-static:arm64"
USER = "an ordinary user"  # root may read, write and signal everything
ROOT_USER = "root"
TUN = "/dev/net/tun"  # and network namespaces, to use it without a trace
# What a test may need, and how to get it on Debian.
TOOLS = {
    "qemu-aarch64-static": "apt-get install qemu-user-static",
    "aarch64-linux-gnu-gcc": "apt-get install gcc-aarch64-linux-gnu",
    "chromium": "apt-get install chromium",
    "diod": "apt-get install diod",
    "diodcat": "apt-get install diod",
    "diodls": "apt-get install diod",
    "gdb-multiarch": "apt-get install gdb-multiarch",
    "iasl": "apt-get install acpica-tools",
    "acpiexec": "apt-get install acpica-tools",
    "acpixtract": "apt-get install acpica-tools",
    "qemu-io": "apt-get install qemu-utils",
    "qemu-img": "apt-get install qemu-utils",
    "qemu-system-aarch64": "apt-get install qemu-system-arm",
    "qemu-system-x86_64": "apt-get install qemu-system-x86",
    "nbdinfo": "apt-get install libnbd-bin",
    "nbdcopy": "apt-get install libnbd-bin",
    "nbdkit": "apt-get install nbdkit",
    "nbd-server": "apt-get install nbd-server",
    "qemu-nbd": "apt-get install qemu-utils",
    "openssl": "apt-get install openssl",
    "nbd-client": "apt-get install nbd-client",
    "ceph-mon": "apt-get install ceph-mon ceph-osd librbd1",
    "ceph-osd": "apt-get install ceph-mon ceph-osd librbd1",
    "rbd": "apt-get install ceph-common",
    "glusterd": "apt-get install glusterfs-server libgfapi0",
    USER: "run the tests as one",
    ROOT_USER: "run the tests as root",
    TUN: "mknod -m 666 /dev/net/tun c 10 200, and allow user namespaces",
    BUSYBOX: "bin/debian-package busybox-static:arm64 build/debian-arm64",
}
LEFT_OUT = pytest.StashKey[Counter[str]]()

Done = subprocess.CompletedProcess[bytes]
Command = Callable[..., Done]


def missing(tool: str) -> bool:
    """Whether `tool` cannot be had on this machine."""
    if tool == USER:
        return os.geteuid() == 0
    if tool == ROOT_USER:
        return os.geteuid() != 0
    if tool == TUN:
        return (
            not os.access(TUN, os.R_OK | os.W_OK)
            or subprocess.run(["unshare", "-Urn", "true"], check=False).returncode != 0
        )
    return debian_busybox() is None if tool == BUSYBOX else shutil.which(tool) is None


def needs(item: pytest.Item) -> list[str]:
    """The tools that a test names, checked against the list above."""
    tools = [tool for marker in item.iter_markers("needs") for tool in marker.args]
    if "busybox" in getattr(item, "fixturenames", ()):
        tools.append(BUSYBOX)
    for tool in tools:
        if tool not in TOOLS:
            raise pytest.UsageError(f"{item.nodeid} needs {tool!r}, which tests/conftest.py does not know")
    return tools


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here, and count it."""
    left_out = config.stash[LEFT_OUT] = Counter[str]()
    absent: dict[str, bool] = {}
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        lacking = [tool for tool in needs(item) if absent.setdefault(tool, missing(tool))]
        left_out.update(lacking)
        if lacking and os.environ.get("CI") == "true":
            item.add_marker(pytest.mark.usefixtures("_tools_are_there"))
        (dropped if lacking and os.environ.get("CI") != "true" else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


@pytest.fixture
def _tools_are_there(request: pytest.FixtureRequest) -> None:
    lacking = [f"{tool} ({TOOLS[tool]})" for tool in needs(request.node) if missing(tool)]
    pytest.fail(f"CI must have {', '.join(lacking)}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each tool that is missing."""
    for tool, count in sorted(config.stash.get(LEFT_OUT, Counter()).items()):
        terminalreporter.line(f"{count} tests left out: {tool} is missing: {TOOLS[tool]}", yellow=True)


def debian_busybox() -> Path | None:
    """Debian's busybox-static for arm64, from the package, kept in build/; None if it cannot be downloaded."""
    folder = BUILD / "debian-arm64"
    binary = folder / "bin" / "busybox"
    if not binary.exists():
        subprocess.run([ROOT / "bin" / "debian-package", BUSYBOX, folder], capture_output=True, check=False)
    return binary if binary.exists() else None


@pytest.fixture(scope="session")
def busybox() -> Path:
    """The path of Debian's arm64 busybox."""
    path = debian_busybox()
    assert path is not None
    return path


# A shell without job control has what it starts with & ignore them.
for _number, _action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _action)

GLIBCS: Final = 3 << 31  # the signals 32 and 33: ignored under make, until glibc uses them for its threads


def withheld() -> dict[str, int]:
    """The signals that are blocked in this thread or ignored in this process, as the kernel has them."""
    with open("/proc/thread-self/status", encoding="ascii") as file:
        fields = [line.split() for line in file if line.startswith(("SigBlk:", "SigIgn:"))]
    return {name: int(mask, 16) & ~GLIBCS for name, mask in fields}


@pytest.fixture(autouse=True)
def _signals_are_left_alone() -> Iterator[None]:
    """What a test leaves blocked or ignored, guests of later tests would inherit: it is that test's fault."""
    before = withheld()
    yield
    assert withheld() == before


def default_signals() -> None:
    """In a child, before its program starts: give every signal its default action, whatever was inherited.

    nohup has some ignored, and so has whoever is started by posix_spawn(3), as by make: glibc has signal 32 ignored
    there, which Python cannot name.
    """
    for number in range(1, 65):
        LIBC.syscall(SYS_SIGACTION, number, bytes(32), None, 8)  # SIGKILL and SIGSTOP refuse


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the session's own, for code under test in this process and in others.

    DRAGOMAN_TESTS_CACHE: a folder with what it starts from, so that several sessions need not compile the same.
    """
    folder = tmp_path_factory.mktemp("cache")
    if start := os.environ.get("DRAGOMAN_TESTS_CACHE"):
        shutil.copytree(start, folder, dirs_exist_ok=True)
    folder.chmod(0o700)
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    for worker in build._pool().workers:
        worker.close()


@pytest.fixture(scope="session")
def dragoman(cache_home: Path) -> Command:
    """Runs the installed command with the given arguments; keywords go to subprocess.run."""
    program = Path(sys.executable).with_name("dragoman")
    assert program.exists(), "the tests run in an environment that Dragoman is installed in: see `make test`"
    assert cache_home.exists()

    def run(*arguments: str | Path, stdin: bytes = b"", timeout: float = 120, **keywords: Any) -> Done:
        words = [program, *arguments]
        return subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, check=False, **keywords)

    return run


@pytest.fixture(scope="session")
def warm(dragoman: Command) -> Command:
    """The command, after the smallest guest has run once: the cache holds what every start needs."""
    first = dragoman("run", ROOT / "bench" / "guests" / "bin" / "hello")
    assert first.stdout == b"hello from AArch64\n", first.stderr.decode()
    return dragoman
