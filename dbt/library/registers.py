"""The guest's registers as Python sees them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

from dbt.control import arguments as check
from dbt.errors import UserError

if TYPE_CHECKING:
    from dbt.engine.cpu import Cpu


class Registers(MutableMapping[str, int]):
    """Registers by name: x0..x30, w0..w30, sp, pc, nzcv, v0..v31, fpcr, fpsr, tpidr_el0."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu

    def __getitem__(self, name: str) -> int:
        return self._cpu.opened().reg(check.text(name, "the name of a register"))

    def __setitem__(self, name: str, value: int) -> None:
        check.text(name, "the name of a register")
        self._cpu.opened().set_reg(name, check.number(value, f"register {name}"))

    def __delitem__(self, name: str) -> None:
        raise UserError(f"register {name} cannot be deleted", "Set it to 0 instead.")

    def __iter__(self) -> Iterator[str]:
        yield from ("pc", "nzcv")
        yield from (name for name in self._cpu.info.registers if name[0] != "w")

    def __len__(self) -> int:
        return sum(1 for _ in self)
