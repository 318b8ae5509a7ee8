"""Where AArch64 state lives in Env.guest: byte offsets. Imported by the warm path: constants only.

Register 31 is resolved when an instruction is decoded: it is the zero slot (never written), the stack pointer, or, for
a write that is to be discarded, the junk slot.
"""

from __future__ import annotations

X0 = 0  # x0 to x30, 8 bytes each
ZERO = 248
SP = 256
JUNK = 264
TPIDR_EL0 = 272
FPCR = 280
FPSR = 288  # with what the host's MXCSR holds while in translated code
EXCLUSIVE_ADDRESS = 296  # of the monitor; all ones: none
EXCLUSIVE_SIZE = 304
EXCLUSIVE_LOW = 312  # the value loaded
EXCLUSIVE_HIGH = 320
TPIDRRO_EL0 = 328
V0 = 512  # v0 to v31, 16 bytes each

LR = X0 + 8 * 30
NO_EXCLUSIVE = 0xFFFF_FFFF_FFFF_FFFF

REGISTERS = {
    **{f"x{i}": (X0 + 8 * i, 8) for i in range(31)},
    "sp": (SP, 8),
    "tpidr_el0": (TPIDR_EL0, 8),
    "tpidrro_el0": (TPIDRRO_EL0, 8),
    "fpcr": (FPCR, 8),
    "fpsr": (FPSR, 8),
    **{f"v{i}": (V0 + 16 * i, 16) for i in range(32)},
}
