"""Assembly templates of Advanced SIMD rows.

    text("{U:s|u}addl{2}", "Rd:W Rn Rm")

In the name, `{U:s|u}` is chosen by a static field (`{o1.o2:a|b|c|d}` by several) and `{2}` is the suffix of the
instructions that work on the upper half. Registers have the row's arrangement unless a letter says otherwise: W twice
as wide lanes that fill the register, P twice and F four times as wide lanes in as many bytes, E the scalar, L the
scalar of twice the width. A word that is no register is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from .operands import V

_CHOICE: Final = re.compile(r"\{([\w.]+):([^}]*)\}")
_LETTERS: Final = "bhsdq"
_REGISTERS: Final = ("Rd", "Rn", "Rm")
_FLOAT: Final = 2  # size of S lanes


def arrangement(Q: int, size: int) -> str:
    """`16b`."""
    return f"{(8 << Q) >> size}{_LETTERS[size]}"


def style(kind: str, Q: int, s: int, size: int) -> str:
    """The style of a register: see above."""
    if kind == "L":
        return _LETTERS[size + 1]
    if kind == "E" or (s and not kind):
        return _LETTERS[size]
    if s:
        return _LETTERS[size + 1]
    return {
        "": arrangement(Q, size),
        "W": arrangement(1, size + 1),
        "P": arrangement(Q, size + 1),
        "F": arrangement(Q, min(size + 2, 4)),
    }[kind]


def chosen(name: str, values: Mapping[str, int]) -> str:
    """The name with its choices made."""

    def pick(match: re.Match[str]) -> str:
        number = 0
        for field in match[1].split("."):
            number = number << 1 | values[field] if "." in match[1] else values[field]
        return match[2].split("|")[number]

    return _CHOICE.sub(pick, name)


def text(name: str, operands: str = "Rd Rn Rm", *, lane: int = 0, base: int = _FLOAT) -> Callable[..., str]:
    """The template; `lane`: the lanes' size where no field says it; `base`: the size for sz = 0."""

    def asm(
        Q: int = 1, s: int = 0, size: int = lane, sz: int = -1, U: int = 0, S: int = 0, R: int = 0, D: int = 0,
        E: int = 0, X: int = 0, op: int = 0, opc: int = 0, ac: int = 0, o1: int = 0, o2: int = 0,
    ) -> str:  # fmt: skip
        values = {"U": U, "S": S, "R": R, "D": D, "E": E, "X": X, "op": op, "opc": opc, "ac": ac, "o1": o1, "o2": o2}
        if sz >= 0:
            size = base + sz
        shown = []
        for operand in operands.split():
            register, _, kind = operand.partition(":")
            if register in _REGISTERS and kind not in ("w", "x"):
                shown.append(f"{{{register}:{style(kind, Q, s, size)}}}")
            else:
                shown.append(f"{{{operand}}}")
        mnemonic = chosen(name.replace("{2}", "2" if Q and not s else ""), values)
        return f"{mnemonic} {', '.join(shown)}"

    return asm


class VList(V):
    """Consecutive registers, for text only: `{v1.16b, v2.16b}`, and behind it the index of a lane."""

    __slots__ = ("count", "registers")

    def __init__(self, names: str, count: int, registers: int = 32) -> None:
        super().__init__(names)
        self.count = count
        self.registers = registers

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """Every register in the same arrangement."""
        del statics
        index, number = divmod(value, self.registers)
        names = ", ".join(f"v{(number + i) % 32}.{style}" for i in range(self.count))
        return f"{{{names}}}[{index}]" if len(self.names) > 1 else f"{{{names}}}"


class VSized(VList):
    """Consecutive registers whose fields begin with the lanes' size."""

    __slots__ = ()

    def text(self, value: int, style: str, statics: Mapping[str, int]) -> str:
        """The arrangement follows from the size and Q."""
        del style
        size, number = divmod(value, self.registers)
        names = ", ".join(f"v{(number + i) % 32}.{arrangement(statics['Q'], size)}" for i in range(self.count))
        return f"{{{names}}}"
