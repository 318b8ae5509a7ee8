"""Unicorn, which is QEMU's translator, as the oracle."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from .case import (
    BREAKPOINT,
    CODE_END,
    CODE_START,
    DATA,
    DATA_SIZE,
    FAULT,
    FILLER,
    OK,
    REGISTERS,
    SYSCALL,
    UNDEFINED,
    Case,
    Outcome,
)

unicorn: Final[Any] = import_module("unicorn")  # its types are neither complete nor exported
arm64_const: Final[Any] = import_module("unicorn.arm64_const")
TCR_EL1, TBI0 = (2, 0, 3, 0, 2), 1 << 37  # CRn, CRm, op0, op1, op2; as Linux has it: PC is never tagged
_INTERRUPTS: Final = {1: UNDEFINED, 2: SYSCALL, 7: BREAKPOINT}  # QEMU's EXCP_UDEF, EXCP_SWI, EXCP_BKPT
_FAULTS: Final = {
    unicorn.UC_ERR_READ_UNMAPPED,
    unicorn.UC_ERR_WRITE_UNMAPPED,
    unicorn.UC_ERR_READ_PROT,
    unicorn.UC_ERR_WRITE_PROT,
    unicorn.UC_ERR_READ_UNALIGNED,
    unicorn.UC_ERR_WRITE_UNALIGNED,
}
_FETCHES: Final = {unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_FETCH_PROT, unicorn.UC_ERR_FETCH_UNALIGNED}


def _register(name: str) -> int:
    number: int = getattr(arm64_const, f"UC_ARM64_REG_{name.upper()}")
    return number


class Oracle:
    """One Unicorn engine, used for many cases."""

    name = "unicorn"

    def __init__(self) -> None:
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        uc.reg_write(arm64_const.UC_ARM64_REG_CP_REG, (*TCR_EL1, TBI0))
        uc.mem_map(CODE_START, CODE_END - CODE_START, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.mem_write(CODE_START, FILLER)
        uc.mem_map(DATA, DATA_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)
        self._registers = [_register(name) for name in REGISTERS]
        self._pc = _register("pc")
        self._stop = OK

    def _interrupt(self, uc: Any, number: int, _data: object) -> None:
        self._stop = _INTERRUPTS.get(number, f"interrupt {number}")
        uc.emu_stop()

    def run(self, case: Case) -> Outcome:
        """Run as many instructions as the case says."""
        uc = self._uc
        uc.mem_write(case.code_address, case.code)
        uc.ctl_remove_cache(case.code_address, case.code_address + len(case.code) + 4)
        uc.mem_write(DATA, case.data)
        values = [case.registers.get(name, 0) for name in REGISTERS]
        uc.reg_write_batch(list(zip(self._registers, values, strict=True)))
        self._stop = OK
        try:
            uc.emu_start(case.address, 0, count=case.count)
        except unicorn.UcError as error:
            if error.errno in _FAULTS:
                self._stop = FAULT
            elif error.errno not in _FETCHES:  # the next instruction: no concern of this one
                self._stop = UNDEFINED if error.errno == unicorn.UC_ERR_INSN_INVALID else f"unicorn: {error}"
        found = uc.reg_read_batch(self._registers)
        uc.mem_write(case.code_address, FILLER[: len(case.code)])
        registers = dict(zip(REGISTERS, found, strict=True))
        data = bytes(uc.mem_read(DATA, DATA_SIZE))
        return Outcome(self._stop, uc.reg_read(self._pc), registers, data)
