"""What the warm path knows of each guest without importing its semantics: places of registers and of system calls."""

from __future__ import annotations

from dbt.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The host's control word (MXCSR): all exceptions masked; rounding bits 14:13 in the order even, down, up, zero.
_MXCSR_DEFAULT = 0x1F80
_ARM_TO_HOST_ROUNDING = (0, 2, 1, 3)  # FPCR.RMode: even, up, down, zero
HOST_STICKY = 0x3F  # MXCSR's
# MXCSR sticky bit: FPSR bit. Invalid, divide by zero, overflow, underflow, inexact; Arm's input-denormal only comes
# with flush-to-zero.
_STICKY = ((0, 0), (2, 1), (3, 2), (4, 3), (5, 4))


def arm_control(fpcr: int) -> int:
    """The host's control word for FPCR: it rounds the same way, nothing is noted."""
    return _MXCSR_DEFAULT | _ARM_TO_HOST_ROUNDING[fpcr >> 22 & 3] << 13


def arm_status(mxcsr: int) -> int:
    """FPSR's sticky flags that the host's control word holds."""
    return sum(1 << arm for host, arm in _STICKY if mxcsr >> host & 1)


class GuestInfo:
    """One guest: names, ELF machine, places in Env.guest (byte offsets)."""

    exclusive: int  # the monitor's address
    fpcr: int
    fpsr: int
    syscall_number: int
    syscall_result: int
    syscall_args: tuple[int, ...]

    def __init__(self, name: str, machine: int, registers: dict[str, tuple[int, int]]) -> None:
        self.name = name
        self.machine = machine
        self.registers = registers
        self.host_fp_default = _MXCSR_DEFAULT
        self.host_fp_control: Callable[[int], int] = arm_control
        self.fp_status: Callable[[int], int] = arm_status


def _aarch64() -> GuestInfo:
    from dbt.frontends.a64 import state

    registers = dict(state.REGISTERS)
    registers.update({f"w{i}": (state.X0 + 8 * i, 4) for i in range(31)})
    info = GuestInfo("aarch64", 183, registers)
    info.exclusive = state.EXCLUSIVE_ADDRESS
    info.fpcr = state.FPCR
    info.fpsr = state.FPSR
    info.syscall_number = state.X0 + 8 * 8
    info.syscall_result = state.X0
    info.syscall_args = tuple(state.X0 + 8 * i for i in range(6))
    return info


_GUESTS = {"aarch64": _aarch64, "arm64": _aarch64, "a64": _aarch64}


def guest_info(name: str) -> GuestInfo:
    """The guest of that name or alias."""
    make = _GUESTS.get(name)
    if make is None:
        raise UserError(f"there is no guest architecture {name!r}", "Guests: aarch64.")
    return make()
