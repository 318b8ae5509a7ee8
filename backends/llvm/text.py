"""Text of LLVM IR: types, fresh names, intrinsic declarations, and the signature that all translated code has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dbt.ir.types import Type

CONVENTION: Final = "preserve_nonecc"
# The flag words come first so that env, base and mask get rdi, rsi and rdx, whose encodings are shorter than r12-r15's.
PARAMETERS: Final = (
    ("i64", "%n"), ("i64", "%z"), ("i64", "%c"), ("i64", "%v"),
    ("ptr", "%env"), ("ptr", "%base"), ("i64", "%mask"), ("i64", "%tmp"),
)  # fmt: skip
SIGNATURE: Final = ", ".join(f"{type_} {name}" for type_, name in PARAMETERS)
SIGNATURE_TYPES: Final = ", ".join(type_ for type_, _ in PARAMETERS)
# Metadata numbers of a module made here; holes.py goes on from FIRST_FREE_METADATA.
UNLIKELY: Final = "!prof !0"
UNPREDICTABLE: Final = "!unpredictable !1"
LIKELY: Final = "!prof !2"  # of two ways the first
INVARIANT: Final = "!invariant.load !1"
METADATA: Final = '!0 = !{!"branch_weights", i32 1, i32 2000}\n!1 = !{}\n!2 = !{!"branch_weights", i32 2000, i32 1}'
FIRST_FREE_METADATA: Final = 3

# Not for stencils: EVEX encodings are longer, and capstone, which checks the code, does not know the others.
_UNWANTED: Final = ("avx10", "avx512", "evex512", "gfni", "avxvnni", "avxifma", "avxneconvert", "amx", "apx")

_FLOATS: Final = {16: "half", 32: "float", 64: "double"}


def llvm_type(type_: Type) -> str:
    """LLVM's spelling of an IR type."""
    lane = f"i{type_.bits}" if type_.kind == "i" else _FLOATS[type_.bits]
    return f"<{type_.lanes} x {lane}>" if type_.lanes else lane


def attributes(host_features: str) -> str:
    """The attribute group #0 of translated code, for a host with these features (LLVM's list: +a,-b,...)."""
    # Those not wanted are taken away by name: the CPU's own name implies them.
    names = sorted(feature[1:] for feature in host_features.split(",") if feature.startswith("+"))
    features = ",".join(("-" if name.startswith(_UNWANTED) else "+") + name for name in names)
    return f'attributes #0 = {{ nounwind "frame-pointer"="none" "no-builtins" "target-features"="{features}" }}'


def mangled(type_: Type) -> str:
    """The suffix of an overloaded intrinsic: i64, v16i8, v4f32."""
    return type_.name


PAIR: Final = "<2 x i64>"  # how 128 bits that are only moved are held


class Declarations:
    """External functions that a module uses, each declared once, in order of first use."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        """Remember one declaration."""
        self._lines[line] = None

    def text(self) -> str:
        """All of them."""
        return "\n".join(self._lines)


class Body:
    """The body of one function while it is written."""

    def __init__(self, declarations: Declarations) -> None:
        self.lines: Final[list[str]] = []
        self._declarations: Final = declarations
        self._count = 0

    def paired(self, value: str) -> str:
        """An i128 as a PAIR."""
        return self.emit(f"bitcast i128 {value} to {PAIR}")

    def unpaired(self, value: str) -> str:
        """A PAIR as an i128."""
        return self.emit(f"bitcast {PAIR} {value} to i128")

    def line(self, text: str) -> None:
        """Append an instruction that has no result."""
        self.lines.append("  " + text)

    def emit(self, text: str) -> str:
        """Append an instruction and name its result."""
        self._count += 1
        name = f"%t{self._count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self, hint: str) -> str:
        """A fresh label, to be placed with `place`."""
        self._count += 1
        return f"{hint}{self._count}"

    def place(self, label: str) -> None:
        """Start the block of a label."""
        self.lines.append(f"{label}:")

    def call(self, result: str, name: str, *arguments: tuple[str, str]) -> str:
        """Call an intrinsic `name` with (type, operand) pairs, declaring it."""
        types = ", ".join(type_ for type_, _ in arguments)
        self._declarations.add(f"declare {result} @{name}({types})")
        given = ", ".join(f"{type_} {operand}" for type_, operand in arguments)
        return self.emit(f"call {result} @{name}({given})")
