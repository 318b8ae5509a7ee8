"""vmdk and vpc: streams, headers, descriptors and sizes as qemu-img has them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from dbt.machine.block import BlockError, create_image, open_image

from .format_cases import SIZE, opened, qemu_content, qemu_options, tool

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")


def test_vmdk_streams_both_ways(tmp_path: Path) -> None:
    content = b"".join(bytes([k]) * 50_000 + random.Random(k).randbytes(30_000) for k in range(30)) + bytes(SIZE)
    content = content[:SIZE]
    (tmp_path / "r").write_bytes(content)
    words = ("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "r", "q")
    tool(tmp_path, *words)
    create_image(str(tmp_path / "a"), "vmdk", SIZE, {"subformat": "streamOptimized"})
    with opened(tmp_path, "a", "vmdk", writable=True) as disk:
        for at in range(0, 2_400_000, 65536):
            disk.write(at, content[at : at + 65536])
        with pytest.raises(BlockError, match="written once"):
            disk.write(0, b"x")
    for name in "aq":
        with opened(tmp_path, name, "vmdk") as disk:
            assert bytes(disk.read(0, SIZE)) == content
            assert bytes(disk.read(100_001, 10)) == content[100_001:100_011]
            assert disk.status(0, 1).compressed
            assert disk.node.check().clean  # type: ignore[attr-defined]
        assert qemu_content(tmp_path, "vmdk", name) == content


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_vmdk_of_several_files_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    tool(tmp_path, "qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={kind}", "q.vmdk", "4M")
    with pytest.raises(BlockError, match=kind):
        open_image(str(tmp_path / "q.vmdk"), "vmdk")


@pytest.mark.parametrize("options", [{}, {"force_size": True}, {"subformat": "fixed"}], ids=str)
def test_sizes_of_vpc_are_those_of_qemu(tmp_path: Path, options: dict[str, Any]) -> None:
    for size in (512, 100_000, 4 << 20, 3_000_000, (100 << 20) + 512, *([] if "subformat" in options else [137 << 30])):
        tool(tmp_path, "qemu-img", "create", "-q", "-f", "vpc", *qemu_options(options), "q", str(size))
        create_image(str(tmp_path / "a"), "vpc", size, options)
        ends = [(tmp_path / name).read_bytes()[-512:] for name in "aq"]
        for start, stop in ((28, 32), (40, 64)):  # who made it; sizes, geometry and kind
            assert ends[0][start:stop] == ends[1][start:stop], (size, start)
        with opened(tmp_path, "a", "vpc") as ours, opened(tmp_path, "q", "vpc") as theirs:
            assert ours.size == theirs.size >= size


@pytest.mark.parametrize("damaged", [False, True])
def test_what_a_guest_writes_into_a_fixed_vpc_is_no_footer(tmp_path: Path, damaged: bool) -> None:
    create_image(str(tmp_path / "dynamic"), "vpc", 4 << 20)
    create_image(str(tmp_path / "fixed"), "vpc", 4 << 20, {"subformat": "fixed"})
    fake = bytearray((tmp_path / "dynamic").read_bytes())
    if damaged:
        fake[100] ^= 1
    with opened(tmp_path, "fixed", "vpc", writable=True) as disk:
        disk.write(0, fake)
        disk.write(1 << 20, b"data")
    with opened(tmp_path, "fixed", "vpc") as disk:
        assert bytes(disk.read(0, len(fake))) == fake
        assert bytes(disk.read(1 << 20, 4)) == b"data"
        assert disk.node.info()["subformat"] == "fixed"


VMDK_OPTIONS: list[dict[str, Any]] = [
    {"subformat": kind, **more}
    for kind in ("monolithicSparse", "streamOptimized")
    for more in ({}, {"adapter_type": "ide"}, {"adapter_type": "buslogic"}, {"adapter_type": "lsilogic"},
                 {"adapter_type": "legacyESX"}, {"compat6": True}, {"hwversion": "13"}, {"toolsversion": "99"},
                 {"zeroed_grain": True})
]  # fmt: skip


@pytest.mark.parametrize("options", VMDK_OPTIONS, ids=str)
def test_headers_and_descriptors_of_vmdk_are_those_of_qemu(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "q").mkdir()
    tool(tmp_path / "q", "qemu-img", "create", "-q", "-f", "vmdk", *qemu_options(options), "x.vmdk", "300M")
    create_image(str(tmp_path / "x.vmdk"), "vmdk", 300 << 20, options)
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("x.vmdk", "q/x.vmdk"))
    end = 21 * 512  # of the descriptor
    assert (ours[:512], ours[end:]) == (theirs[:512], theirs[end:])
    texts = [
        re.sub(rb"\nCID=[0-9a-f]+\n", b"\nCID=by chance\n", data[512:end].rstrip(b"\0")) for data in (ours, theirs)
    ]
    assert texts[0] == texts[1]


def test_options_of_vmdk_that_cannot_be(tmp_path: Path) -> None:
    for options in (
        {"hwversion": "13", "compat6": True},
        {"toolsversion": '1"\nparentCID=0'},
        {"adapter_type": "scsi"},
    ):
        with pytest.raises(BlockError):
            create_image(str(tmp_path / "a"), "vmdk", SIZE, options)
