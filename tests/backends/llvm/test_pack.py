"""Pack files: what is written is what is read, growing keeps what code refers to, damage is noticed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from dbt.backends.llvm.extract import Stencil, StencilHole
from dbt.backends.llvm.pack import Pack, PackError

from dbt.engine import formats, layout
from dbt.engine.files import write_aside

RODATA_16: Final = bytes(range(16))


def stencil(code: bytes, constant: bytes = b"") -> Stencil:
    holes = [StencilHole(1, formats.HOLE_REG32, 2, 8)]
    if constant:
        holes.append(StencilHole(5, formats.HOLE_RODATA, 0, -4, constant))
    return Stencil(code, tuple(holes))


def read(path: str | Path, stamp: str, n_forms: int, n_fusable: int) -> Pack:
    return Pack.parse(Path(path).read_bytes(), str(path), stamp, n_forms, n_fusable)


def pack() -> Pack:
    made = Pack("a stamp", 10, 2)
    made.add(3 * layout.VARIANTS + layout.WIDE, stencil(b"\x90" * 20, RODATA_16))
    made.add(layout.FUSED_STENCIL | 5, stencil(b"\xc3" * 7))
    made.add_special(formats.SPECIAL_LEAVE, stencil(b"\xc3" * 9))
    return made


def u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def test_layout_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pack"
    write_aside(str(path), pack().to_bytes())
    data = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["x.pack"]
    head = {name: int.from_bytes(data[at : at + 4], "little") for name, at in formats.PackHead.field_offsets.items()}
    assert (head["n_forms"], head["n_fusable"], head["size"]) == (10, 2, len(data))
    assert data[head["stamp"] :][: head["stamp_size"]] == b"a stamp"
    index = [u32(data, head["index"] + 4 * i) for i in range(10 * layout.VARIANTS)]
    at = index[3 * layout.VARIANTS + layout.WIDE]
    assert at % 16 == 0
    assert [i for i, offset in enumerate(index) if offset] == [3 * layout.VARIANTS + layout.WIDE]
    size, holes, code = data[at] | data[at + 1] << 8, data[at + 2] | data[at + 3] << 8, u32(data, at + 4)
    assert (size, holes, data[at + code : at + code + size]) == (20, 2, b"\x90" * 20)
    assert code % 16 == 0
    assert u32(data, head["fused"] + 4 * 5)
    assert u32(data, head["special"] + 4 * formats.SPECIAL_LEAVE)
    assert data[head["rodata"] :][:16] == RODATA_16
    assert len(data) - 32 >= at + code + size


def test_growing_keeps_constants_in_place(tmp_path: Path) -> None:
    path = str(tmp_path / "x.pack")
    write_aside(path, pack().to_bytes())
    grown = read(path, "a stamp", 10, 2)
    assert grown.to_bytes() == (tmp_path / "x.pack").read_bytes()
    grown.add(1, stencil(b"\xcc" * 8, b"\xff" * 8))
    grown.add(2, stencil(b"\xcc" * 8, RODATA_16))
    write_aside(path, grown.to_bytes())
    data = (tmp_path / "x.pack").read_bytes()
    assert data[u32(data, formats.PackHead.field_offsets["rodata"]) :][:16] == RODATA_16
    assert data.count(RODATA_16) == 1
    assert read(path, "a stamp", 10, 2).numbers() == {
        1,
        2,
        3 * layout.VARIANTS + 1,
        layout.FUSED_STENCIL | 5,
    }


@pytest.mark.parametrize("at", [0, 8, 60, -1])
def test_damage_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "x.pack"
    data = bytearray(pack().to_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackError, match="damaged"):
        read(path, "a stamp", 10, 2)


def test_other_builds_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.pack")
    write_aside(path, pack().to_bytes())
    with pytest.raises(PackError, match="another build"):
        read(path, "another", 10, 2)
    with pytest.raises(PackError, match="another build"):
        read(path, "a stamp", 11, 2)


def test_numbers_out_of_range_are_refused() -> None:
    made = Pack("", 1, 1)
    with pytest.raises(PackError):
        made.add(layout.VARIANTS, stencil(b"\xc3"))
    with pytest.raises(PackError):
        made.add(layout.FUSED_STENCIL | layout.CONDITIONS * layout.FUSED_VARIANTS, stencil(b"\xc3"))
