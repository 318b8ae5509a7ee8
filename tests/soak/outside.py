"""Unicorn, fast: registers through one call each way, scratch memory that is shared with it."""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from dbt.frontends.a64 import state

from dbt.engine import layout
from tests.differential.case import CODE, DATA, DATA_SIZE, REGISTERS
from tests.differential.oracle import _FAULTS, _INTERRUPTS, _register, arm64_const, unicorn

from .machines import CODE_SIZE, NOP, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.differential.case import Case

library: Final[Any] = import_module("unicorn.unicorn_py3.unicorn").uclib


class Outside:
    """One Unicorn engine with the same memory as a Machine."""

    name = "unicorn"

    def __init__(self) -> None:
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        uc.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        self._scratch = ctypes.create_string_buffer(DATA_SIZE + layout.PAGE_SIZE)
        self._data: Final = ctypes.addressof(self._scratch) + layout.PAGE_SIZE - 1 & -layout.PAGE_SIZE
        uc.mem_map(CODE, CODE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.mem_map_ptr(DATA, DATA_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE, self._data)
        uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)
        self._file = ctypes.create_string_buffer(layout.GUEST_BYTES)
        file = ctypes.addressof(self._file)
        self._count: Final = len(REGISTERS)
        self._names: Final = (ctypes.c_int32 * self._count)(*map(_register, REGISTERS))
        places = [state.JUNK if name == "nzcv" else state.REGISTERS[name][0] for name in REGISTERS]
        self._places: Final = (ctypes.c_void_p * self._count)(*(file + place for place in places))
        self._pc: Final = _register("pc")
        self._stop = ""

    def _interrupt(self, uc: Any, number: int, _data: object) -> None:
        self._stop = _INTERRUPTS.get(number, f"interrupt {number}")
        uc.emu_stop()

    def stop(self) -> None:
        """Have `run` end, from another thread."""
        self._uc.emu_stop()

    def load(self, cases: Sequence[Case]) -> None:
        """As Machine.load."""
        code = bytearray(NOP * (CODE_SIZE // 4))
        for case in cases:
            at = case.code_address - CODE
            code[at : at + len(case.code)] = case.code
        self._uc.mem_write(CODE, bytes(code))
        self._uc.ctl_flush_tb()

    def run(self, case: Case, file: bytes) -> Result:
        """As Machine.run. Only for programs that are known to end."""
        uc = self._uc
        ctypes.memmove(self._file, file, layout.GUEST_BYTES)
        library.uc_reg_write_batch(uc._uch, self._names, self._places, self._count)
        ctypes.memmove(self._data, case.data, DATA_SIZE)
        return self._go(case.address)

    def go_on(self) -> Result:
        """As Machine.go_on."""
        return self._go(self._uc.reg_read(self._pc))

    def _go(self, address: int) -> Result:
        uc = self._uc
        self._stop = "limit"
        try:
            uc.emu_start(address, 0)
        except unicorn.UcError as error:
            if error.errno in _FAULTS:
                self._stop = "fault"
            else:
                self._stop = "undefined" if error.errno == unicorn.UC_ERR_INSN_INVALID else f"unicorn: {error}"
        library.uc_reg_read_batch(uc._uch, self._names, self._places, self._count)
        pc = uc.reg_read(self._pc)
        return Result(self._stop, pc, 0, False, 0, self._file.raw, ctypes.string_at(self._data, DATA_SIZE))
