"""The system registers of a GICv3's CPU interface (IHI 0069, section 12.2), as MRS and MSR encode them."""

from __future__ import annotations

from dbt.machine.devices.gicv3_cpu import encoding


def _icc(crm: int, op2: int) -> int:
    return encoding(3, 0, 12, crm, op2)


PMR = encoding(3, 0, 4, 6, 0)
IAR0, EOIR0, HPPIR0, BPR0 = (_icc(8, n) for n in range(4))
AP0R, AP1R = _icc(8, 4), _icc(9, 0)
DIR, RPR, SGI1R, ASGI1R, SGI0R = _icc(11, 1), _icc(11, 3), _icc(11, 5), _icc(11, 6), _icc(11, 7)
IAR1, EOIR1, HPPIR1, BPR1, CTLR, SRE, IGRPEN0, IGRPEN1 = (_icc(12, n) for n in range(8))
