"""What a port of AHCI sees of its host bus adapter (AHCI 1.3.1, 3.3): registers and their bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dbt.machine.memory import DmaPort

DHRS, PSS, SDBS, UFS, DPS, PCS = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 5, 1 << 6  # PxIS
PRCS, OFS, IFS, HBFS, TFES = 1 << 22, 1 << 24, 1 << 27, 1 << 29, 1 << 30
ST, SUD, POD, CLO, FRE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4  # PxCMD
CCS, FR, CR, SETTINGS = 0x1F << 8, 1 << 14, 1 << 15, 0x0300_0000
NO_DEVICE, UNKNOWN = 0x7F, 0xFFFF_FFFF
PHY_UP, PHY_OFF = 0x113, 0x004  # PxSSTS: active, 1.5 Gb/s, device and link; off
EXCHANGED, PHY_CHANGED = 1 << 26, 1 << 16  # PxSERR


class Hba(Protocol):
    """The host bus adapter: register n is port n's."""

    name: str
    dma: DmaPort
    PxCLB: list[int]
    PxCLBU: list[int]
    PxFB: list[int]
    PxFBU: list[int]
    PxIS: list[int]
    PxCMD: list[int]
    PxTFD: list[int]
    PxSIG: list[int]
    PxSSTS: list[int]
    PxSCTL: list[int]
    PxSERR: list[int]
    PxSACT: list[int]
    PxCI: list[int]
    stopped: list[int]
    softreset: list[int]

    def update(self) -> None: ...
    def guest_error(self, thing: str, detail: str = "") -> None: ...
