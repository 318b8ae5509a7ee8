"""One access on a bus: who makes it, which sizes a device takes, and the record in which a CPU hands it over.

Numbers on the bus are little-endian: the byte at the lowest address is the lowest byte of the number, as both A64 and
x86 see it. A device whose registers are big-endian says so, and the bus swaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dbt.machine.errors import MapError

OK, DECODE_ERROR, DEVICE_ERROR = "ok", "decode error", "device error"
MASKS = {size: (1 << 8 * size) - 1 for size in (1, 2, 4, 8)}


@dataclass(frozen=True, slots=True)
class Attributes:
    """Who makes an access: `requester` is `cpu` or a device's name, `cpu` the CPU's number or -1."""

    requester: str = "cpu"
    cpu: int = 0
    privileged: bool = True
    secure: bool = False


CPU0 = Attributes()


@dataclass(frozen=True, slots=True)
class AccessSizes:
    """What a device takes.

    `valid`: the least and the largest size in bytes that software may use; others are refused.
    `implemented`: what the handlers are called with. Wider accesses are split into consecutive ones, lowest address
    first. Narrower reads take their bytes from the aligned word around them; narrower writes put zeroes beside them,
    as a bus without byte strobes does.
    `unaligned`: whether an access may be elsewhere than at a multiple of its size; it reaches the handlers as bytes.
    """

    valid: tuple[int, int] = (1, 8)
    implemented: tuple[int, int] = (1, 8)
    unaligned: bool = False
    order: str = "little"

    direct: frozenset[int] = field(init=False, compare=False)  # sizes that reach the handlers as they are

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for least, most in (self.valid, self.implemented):
            if least not in MASKS or most not in MASKS or least > most:
                raise MapError(f"access sizes {least} to {most}: sizes are 1, 2, 4 and 8, the smaller one first")
        if self.order not in {"little", "big"}:
            raise MapError(f"byte order {self.order!r}: there are 'little' and 'big'")
        if self.unaligned and self.implemented[0] > 1:
            raise MapError("unaligned accesses are split into bytes, which the handlers have to take")
        (least, most), (low, high) = self.valid, self.implemented
        whole = {size for size in MASKS if least <= size <= most and low <= size <= high}
        object.__setattr__(self, "direct", frozenset(whole if self.order == "little" else whole & {1}))

    def refuses(self, offset: int, size: int) -> str:
        """Why an access of `size` at `offset` cannot be; empty if it can."""
        if not self.valid[0] <= size <= self.valid[1]:
            return f"the device takes {self.valid[0]} to {self.valid[1]} bytes"
        return "" if self.unaligned or not offset & (size - 1) else "not aligned"

    def step(self, offset: int, size: int) -> int:
        """The size with which the handlers are called for an access that `refuses` nothing about."""
        low, high = self.implemented
        return 1 if offset & (size - 1) else min(max(size, low), high)


@dataclass(slots=True)
class Transaction:
    """What a CPU's slow access hands to the device layer (KVM fills the same): `data` and `result` come back."""

    address: int
    size: int
    write: bool
    data: int = 0
    attributes: Attributes = CPU0
    result: str = OK
