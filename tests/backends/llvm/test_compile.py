"""Text to objects: the options do what they say, for this host."""

from __future__ import annotations

import pytest
from dbt.backends.llvm import elf
from dbt.backends.llvm.compile import CompileError, assembly_text, compile_text, host_cpu, llvm_version

LOOP = """
define void @add(ptr noalias %a, ptr noalias %b) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %head ]
  %p = getelementptr i32, ptr %a, i64 %i
  %q = getelementptr i32, ptr %b, i64 %i
  %x = load i32, ptr %p
  %y = load i32, ptr %q
  %z = add i32 %x, %y
  store i32 %z, ptr %p
  %next = add i64 %i, 1
  %go = icmp ult i64 %next, 1024
  br i1 %go, label %head, label %out
out:
  ret void
}
define i64 @dead(i64 %x) { %y = mul i64 %x, 77 ret i64 %x }
"""


def test_the_optimiser_neither_vectorises_nor_unrolls() -> None:
    text = assembly_text(LOOP)
    assert "mm0" not in text
    assert text.count("addl") == 1


def test_passes_can_be_left_out() -> None:
    assert len(compile_text(LOOP, opt=0, passes=False)) > len(compile_text(LOOP))


def test_relocation_models() -> None:
    text = "@x = external dso_local global i8\ndefine ptr @f() { ret ptr @x }"
    pic, static = (elf.read_object(compile_text(text, reloc=r)).section(".text") for r in ("pic", "static"))
    assert [r.type for r in pic.relocations] == [elf.R_X86_64_PC32]
    assert [r.type for r in static.relocations] == [elf.R_X86_64_32]
    large = elf.read_object(compile_text(text, reloc="static", code_model="large"))
    assert [r.type for r in large.section(".ltext").relocations] == [elf.R_X86_64_64]


def test_host_features_are_given_one_by_one() -> None:
    name, features = host_cpu()
    assert name
    assert "+sse2" in features.split(",")
    assert llvm_version().count(".") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("define nonsense", "expected"),
        ("define i64 @f() { ret i32 0 }", "result type"),
        ("define i64 @f(i64 %x) { a: ret i64 %z }", "undefined value"),
    ],
)
def test_text_that_llvm_refuses(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_text(text)


def test_an_unknown_relocation_model() -> None:
    with pytest.raises(ValueError, match="reloc 'dynamic': it is one of pic, static"):
        compile_text("", reloc="dynamic")
