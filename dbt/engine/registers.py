"""A CPU's registers by name, over the register file of Env and what Env has of them in the host's form.

Flags are four words (Env.flags), FPSR's sticky flags are in MXCSR as well, FPCR's rounding is MXCSR's.
"""

from __future__ import annotations

import ctypes

from dbt.errors import UserError

from .layout import GUEST_BYTES, Env
from .memory import branch_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .guests import GuestInfo

MASK64 = (1 << 64) - 1
FLAG_N, FLAG_Z, FLAG_C, FLAG_V = 1 << 31, 1 << 30, 1 << 29, 1 << 28


class Registers:
    """Registers of the Env at a host address, which must outlive this object."""

    def __init__(self, env_address: int, info: GuestInfo) -> None:
        self._address = env_address
        self._info = info
        self._env: Any = Env.at(env_address)
        raw = (ctypes.c_uint64 * (GUEST_BYTES // 8)).from_address(env_address)
        self.words: Any = memoryview(raw).cast("B").cast("Q")  # the register file

    def close(self) -> None:
        """The Env is about to go."""
        del self.words

    def clear(self) -> None:
        """All zero, the exclusive monitor clear, rounding to nearest."""
        ctypes.memset(self._address, 0, GUEST_BYTES)
        self._env.pc = 0
        self._env.flags[:] = (1, 1, 0, 0)
        self._env.mxcsr = self._info.host_fp_default
        self.clear_exclusive()

    def clear_exclusive(self) -> None:
        """Clear the exclusive monitor."""
        self.words[self._info.exclusive // 8] = MASK64

    def get(self, name: str) -> int:
        """A register by name: x0.., w0.., sp, pc, v0.., nzcv (bits 31..28), fpcr, fpsr, tpidr_el0."""
        if name == "pc":
            return int(self._env.pc)
        if name == "nzcv":
            n, z, c, v = self._env.flags
            return (FLAG_N if n >> 63 else 0) | (0 if z else FLAG_Z) | (FLAG_C if c else 0) | (FLAG_V if v >> 63 else 0)
        if name == "fpsr":
            self.fold_status()
        offset, size = self._place(name)
        return int.from_bytes(ctypes.string_at(self._address + offset, size), "little")

    def set(self, name: str, value: int) -> None:
        """Set a register by name. Writing w<n> clears the upper half of x<n>."""
        if name == "pc":
            self._env.pc = branch_address(value & MASK64)
            return
        if name == "nzcv":
            flags = (
                MASK64 if value & FLAG_N else 1,
                0 if value & FLAG_Z else 1,
                1 if value & FLAG_C else 0,
                MASK64 if value & FLAG_V else 0,
            )
            if value & FLAG_N and value & FLAG_Z:
                flags = (1 << 63, 0, *flags[2:])
            self._env.flags[:] = flags
            return
        if name == "fpsr":
            self.fold_status()
        offset, size = self._place(name)
        if name[0] == "w":
            size, value = 8, value & 0xFFFFFFFF
        ctypes.memmove(self._address + offset, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"), size)
        if name == "fpcr":
            self._env.mxcsr = self._info.host_fp_control(value)

    def _place(self, name: str) -> tuple[int, int]:
        try:
            return self._info.registers[name]
        except KeyError:
            known = "x0..x30, w0..w30, sp, pc, nzcv, v0..v31, fpcr, fpsr, tpidr_el0"
            raise UserError(f"{self._info.name} has no register {name!r}", f"Registers: {known}.") from None

    def fold_status(self) -> None:
        """Move the sticky flags that the host's control word holds to where the reference engine keeps them."""
        index = self._info.fpsr // 8
        self.words[index] |= self._info.fp_status(self._env.mxcsr)
        self.set_host_control()

    def set_host_control(self) -> None:
        """Have the host round as FPCR says, with no sticky flag."""
        self._env.mxcsr = self._info.host_fp_control(self.words[self._info.fpcr // 8])
