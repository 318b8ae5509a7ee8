"""SiFive's test finisher (`sifive,test0`, `sifive,test1`): a word that ends the machine or starts it anew.

It is what boards without firmware services have as `syscon` for the bindings `syscon-poweroff` and `syscon-reboot`
(POWEROFF and REBOOT are what those write at offset 0).
"""

from __future__ import annotations

from dbt.machine.device import Device
from dbt.machine.memory import AccessSizes
from dbt.machine.registers import WO, View, Window

FAIL, POWEROFF, REBOOT = 0x3333, 0x5555, 0x7777


class SifiveTest(Device):
    """SiFive test finisher, as a system controller for power."""

    WINDOW = Window(0x1000, AccessSizes((2, 4), (2, 4)), partial=True)
    FINISHER = View(0x0, WO, "what is to happen", fields={"STATUS": (15, 0), "CODE": (31, 16)})

    @FINISHER.on_write
    def _finish(self, value: int) -> None:
        status, code = value & 0xFFFF, value >> 16
        if status == REBOOT:
            self.machine.power.reset(self.name)
        elif status in (POWEROFF, FAIL):
            self.machine.power.off(self.name, (code or 1) if status == FAIL else 0)
        else:
            self.guest_error(f"FINISHER has no status {status:#x}")
