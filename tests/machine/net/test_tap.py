"""The host's interfaces, and the user-mode network with Linux's own stack as its guest: see kernel_guest.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dbt.machine.net import tap
from dbt.machine.net.errors import NetError

from tests.conftest import TUN

SCRIPT = Path(__file__).with_name("kernel_guest.py")
FIGURES = {"download MiB/s", "upload MiB/s"}


@pytest.mark.needs(TUN)
def test_linux_as_a_guest() -> None:
    command = ["unshare", "-Urn", sys.executable, str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts.pop("counts") == {}
    assert len(facts) == 23
    assert [name for name, fact in facts.items() if name not in FIGURES and fact is not True] == []


def test_without_rights_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tap, "DEVICE", str(tmp_path / "tun"))
    with pytest.raises(NetError, match=r"No such file[\s\S]*ip tuntap add"):
        tap.TapNet(threading.RLock())
    monkeypatch.setattr(tap, "DEVICE", os.devnull)
    with pytest.raises(NetError, match="Inappropriate ioctl"):
        tap.TapNet(threading.RLock())
