"""Handlers of the interpreter: that they can be made, what they refer to, and the file that holds them."""

from __future__ import annotations

from pathlib import Path
from struct import unpack_from

import pytest
from dbt.backends.llvm.extract import Stencil, StencilHole
from dbt.backends.llvm.handlers import compile_handlers, compile_special_handlers
from dbt.backends.llvm.pack import HandlerPack, Pack, PackError
from dbt.backends.llvm.peephole import shorten
from dbt.backends.llvm.stencils import Request
from dbt.frontends.guest import load_guest

from dbt.engine import formats, layout
from dbt.engine.files import write_aside

GUEST = load_guest("aarch64")
BY_NAME = {form.name: form for form in GUEST.tables.forms}
# More operands than there are registers; a host instruction that wants the register of the step.
CROWDED = ("LDP_opc2_mode3_L0", "LDP_v_opc1_mode3_L0", "ST1_s.10_R1_o1", "CASP_sz1", "STXP_sz1_o01")


def test_forms_of_all_kinds() -> None:
    names = [*list(BY_NAME)[1::29], *CROWDED]
    requests = [Request(BY_NAME[name].id, variant) for name in names for variant in (0, layout.NO_FLAGS, layout.POLL)]
    handlers = compile_handlers(GUEST, requests)
    assert set(handlers) == set(requests)
    for request, handler in handlers.items():
        assert {hole.kind for hole in handler.holes} <= {formats.HOLE_LEAVE, formats.HOLE_RODATA}, request
        assert handler.code


def test_ends_are_one_jump() -> None:
    mov = BY_NAME["MOV_reg_sf0_N0"]
    (handler,) = compile_handlers(GUEST, [Request(mov.id, 0)]).values()
    text = handler.disassembly()
    assert f"add rcx, {layout.Step.size:#x}" in text
    assert "jmp qword ptr [rcx]" in text


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("488b4140 4883c140 ffe0", "4883c140 ff21 90909090"),  # mov rax, [rcx+64]; add rcx, 64; jmp rax
        ("488b4908 488b01 ffe0", "488b4908 ff21 909090"),  # mov rcx, [rcx+8]; mov rax, [rcx]; jmp rax
        ("4c8b4040 4883c040 4889c1 41ffe0", "4883c040 4889c1 ff21 9090909090"),  # the step in rax before
        ("488b4140 4883c138 ffe0", "488b4140 4883c138 ffe0"),  # another place
        ("488b4140 4883c140 4889c3 ffe0", "488b4140 4883c140 4889c3 ffe0"),  # the address is used
        ("eb04 488b4140 4883c140 ffe0", "eb04 488b4140 4883c140 ffe0"),  # a jump into the middle
    ],
)
def test_shortening(code: str, short: str) -> None:
    assert shorten(Stencil(bytes.fromhex(code), ())).code.hex() == short.replace(" ", "")


def test_a_file_of_handlers_grows_and_refers_to_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "handlers")
    pack = HandlerPack("stamp", 4, 1)
    for number, handler in compile_special_handlers().items():
        pack.add_special(number, handler)
    constant = bytes(range(16))
    pack.add(8, Stencil(bytes(8), (StencilHole(4, formats.HOLE_RODATA, 0, -4, constant),)))
    write_aside(path, pack.to_bytes())
    grown = HandlerPack.parse(Path(path).read_bytes(), str(path), "stamp", 4, 1)
    grown.add(16, Stencil(bytes(5), (StencilHole(1, formats.HOLE_LEAVE, 0, -4),)))
    data = grown.to_bytes()
    index, special = (int(unpack_from("<I", data, formats.PackHead.offset(name))[0]) for name in ("index", "special"))

    def code_at(at: int) -> int:
        return at + int(unpack_from("<HHI", data, at)[2])

    first, second = (code_at(unpack_from("<I", data, index + 4 * number)[0]) for number in (8, 16))
    leave = code_at(unpack_from("<I", data, special + 4 * formats.SPECIAL_LEAVE)[0])
    place = first + 8 + unpack_from("<i", data, first + 4)[0]
    assert data[place : place + 16] == constant
    assert second + 5 + unpack_from("<i", data, second + 1)[0] == leave


def test_what_is_no_file_of_handlers_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "pack")
    write_aside(path, Pack("stamp", 4, 1).to_bytes())
    with pytest.raises(PackError):
        HandlerPack.parse(Path(path).read_bytes(), str(path), "stamp", 4, 1)
    pack = HandlerPack("stamp", 4, 1)
    pack.add(8, Stencil(bytes(4), (StencilHole(0, formats.HOLE_REG32, 0, 0),)))
    with pytest.raises(PackError, match="hole of kind"):
        pack.to_bytes()
