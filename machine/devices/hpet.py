"""High precision event timers (IA-PC HPET specification 1.0a): one counter, timers that compare with it.

Counts and matches are computed when somebody looks; the host's timer is set only where a match is an interrupt that is
not there already. Periods below `LEAST` give one interrupt each `LEAST` nanoseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.device import Device
from dbt.machine.errors import MapError
from dbt.machine.lines import Line
from dbt.machine.memory import AccessSizes, Attributes
from dbt.machine.registers import RO, RW, Register, Registers, State, States, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine

PERIOD = 10_000_000  # femtoseconds
FEMTO = 1_000_000  # in a nanosecond
MOST = 8  # timers
LEAST = 10_000
LEVEL, ENABLED, PERIODIC, VAL_SET, BITS32, FSB = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 8, 1 << 14
CAPABLE = 1 << 4 | 1 << 5  # of periods and of 64 bits
FSB_CAPABLE = 1 << 15
CONFIG = LEVEL | ENABLED | PERIODIC | VAL_SET | BITS32 | 0x3E00
FULL = (1 << 64) - 1


class Hpet(Device):
    """High precision event timers (IA-PC HPET 1.0a)."""

    WINDOW = Window(0x400, AccessSizes((4, 8), (4, 8)), partial=True)
    GCAP_ID = Register(
        0x000, RO, "capabilities", size=8, reset=PERIOD << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | 2 << 8 | 1,
        fields={"REV": (7, 0), "NUM_TIM": (12, 8), "COUNT_SIZE": 13, "LEG_RT": 15, "CLK_PERIOD": (63, 32)},
    )  # fmt: skip
    GEN_CONF = Register(0x010, RW, "configuration", size=8, mask=3, fields={"ENABLE": 0, "LEG_RT": 1})
    GINTR_STA = Register(0x020, RW, "levels that ask; write one to clear", size=8, mask=0, clear=(1 << MOST) - 1)
    MAIN_CNT = Register(0x0F0, RW, "the counter", size=8)
    CONF = Registers(
        0x100, RW, "configuration of a timer", count=MOST, stride=0x20, size=8, mask=CONFIG | FSB,
        fields={"LEVEL": 1, "ENB": 2, "PERIODIC": 3, "PER_CAP": 4, "SIZE_CAP": 5, "VAL_SET": 6, "32MODE": 8,
                "ROUTE": (13, 9), "FSB_EN": 14, "FSB_CAP": 15, "ROUTE_CAP": (63, 32)},
    )  # fmt: skip
    COMP = Registers(0x108, RW, "comparator", count=MOST, stride=0x20, size=8, reset=FULL)
    FSB_ROUTE = Registers(0x110, RW, "message: value, address", count=MOST, stride=0x20, size=8)

    started = State(bits=64)  # when the counter was MAIN_CNT, while it runs
    period = States(MOST, bits=64)
    looked = States(MOST, bits=64)  # the count up to which matches have been seen

    def __init__(
        self, name: str, machine: Machine, *, timers: int = 3, routes: int = 1 << 2,
        route: Callable[[int], Line] | None = None, irq0: Line | None = None, irq8: Line | None = None,
        fsb: bool = False,
    ) -> None:  # fmt: skip
        """`routes`: the inputs that `route` gives wires of; `fsb`: whether timers can send messages."""
        if not 3 <= timers <= MOST:
            raise MapError(f"{name}: 3 to {MOST} timers, not {timers}")
        self.timers = timers
        self.routes = routes
        self.fsb = fsb
        super().__init__(name, machine)
        route = route or (lambda number: Line(f"{name}.route{number}"))
        self._routes = {number: route(number) for number in range(32) if routes >> number & 1}
        self._irq0, self._irq8 = irq0 or Line(f"{name}.irq0"), irq8 or Line(f"{name}.irq8")
        self.pit = Line(f"{name}.pit", lambda _: self._drive())  # what IRQ 0 and 8 are without legacy replacement
        self.rtc = Line(f"{name}.rtc", lambda _: self._drive())
        self.alarms = [self.clock.timer(lambda n=n: self._alarm(n)) for n in range(timers)]  # type: ignore[misc]
        self._bytes = FULL  # those of the register that the access has
        self._page = self.region.handler
        self.region.handler = self

    def _initial(self) -> None:
        super()._initial()
        self.GCAP_ID = self.GCAP_ID & ~0x1F00 | self.timers - 1 << 8
        capable = self.routes << 32 | CAPABLE | (FSB_CAPABLE if self.fsb else 0)
        self.CONF = [capable] * self.timers + [0] * (MOST - self.timers)
        self.COMP = [FULL] * self.timers + [0] * (MOST - self.timers)

    def on_reset(self) -> None:
        """Nothing runs."""
        self._follow()

    def on_restore(self) -> None:
        """Timers and lines follow from the state."""
        self._follow()

    def _follow(self) -> None:
        for n in range(self.timers):
            self._arm(n)
        self._drive()

    # Accesses: which half of a register they have matters

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read, as the bus gives it."""
        return self._page.read(offset, size, attributes)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write, as the bus gives it."""
        self._bytes = ((1 << 8 * size) - 1) << 8 * (offset & 7)
        self._page.write(offset, size, value, attributes)

    # The counter

    def _runs(self) -> bool:
        return bool(self.GEN_CONF & 1)

    @MAIN_CNT.on_read
    def count(self) -> int:
        """The counter."""
        gone = (self.clock.now - self.started) * FEMTO // PERIOD if self._runs() else 0
        return self.MAIN_CNT + gone & FULL

    @MAIN_CNT.on_write
    def _set_count(self, value: int) -> None:
        if self._runs():
            self.guest_error("the counter is written while it runs")
            return
        self.MAIN_CNT = value
        self.looked = [value] * MOST

    @GEN_CONF.on_write
    def _configure(self, value: int) -> None:
        for n in range(self.timers):
            self._look(n)
        self.MAIN_CNT = self.count()
        self.started = self.clock.now
        self.GEN_CONF = value & 3
        self._follow()

    # Matches

    def _width(self, n: int) -> int:
        return 0xFFFF_FFFF if self.CONF[n] & BITS32 else FULL

    def _ahead(self, n: int) -> int:
        """Counts from `looked` to the next match."""
        return (self.COMP[n] - self.looked[n]) & self._width(n) or self._width(n) + 1

    def _look(self, n: int) -> None:
        """See the matches up to now."""
        count = self.count()
        gone, ahead = count - self.looked[n] & FULL, self._ahead(n)
        self.looked[n] = count
        if gone < ahead:
            return
        period = self.period[n]
        if self.CONF[n] & PERIODIC and period:
            self.COMP[n] = self.COMP[n] + ((gone - ahead) // period + 1) * period & self._width(n)
        self._match(n)

    def _match(self, n: int) -> None:
        config = self.CONF[n]
        if config & FSB:
            if config & ENABLED:
                self.machine.msi.send(self.FSB_ROUTE[n] >> 32, self.FSB_ROUTE[n] & 0xFFFF_FFFF, 0)
        elif config & LEVEL:
            self.GINTR_STA |= 1 << n
            self._drive()
        elif config & ENABLED and self._runs():
            line = self._line(n)
            if line is not None:
                line.set(not line.level)  # an edge, whatever a level of another timer there is
                line.set(not line.level)
                self._drive()

    def _arm(self, n: int) -> None:
        """Wait for the next match, if it is an interrupt."""
        config = self.CONF[n]
        seen = config & LEVEL and not config & FSB and self.GINTR_STA >> n & 1
        if not self._runs() or not config & ENABLED or seen:
            self.alarms[n].cancel()
            return
        ahead = self._ahead(n) - (self.count() - self.looked[n] & FULL)
        passed = (self.clock.now - self.started) * FEMTO // PERIOD + max(ahead, 0)
        when = self.started - (-passed * PERIOD // FEMTO)
        self.alarms[n].at(max(when, self.clock.now + LEAST) if config & PERIODIC and self.period[n] else when)

    def _alarm(self, n: int) -> None:
        self._look(n)
        self._arm(n)

    # Lines

    def _legacy(self, n: int) -> bool:
        return bool(self.GEN_CONF & 2) and n < 2

    def _line(self, n: int) -> Line | None:
        if self._legacy(n):
            return (self._irq0, self._irq8)[n]
        return self._routes.get(self.CONF[n] >> 9 & 31)

    def _drive(self) -> None:
        """All lines, by the levels that ask."""
        up: set[int] = set()
        for n in range(self.timers):
            if self.CONF[n] & (LEVEL | ENABLED | FSB) == LEVEL | ENABLED and self.GINTR_STA >> n & 1 and self._runs():
                up.add(id(self._line(n)))
        legacy = bool(self.GEN_CONF & 2)
        for number, line in self._routes.items():
            del number
            line.set(id(line) in up)
        self._irq0.set(id(self._irq0) in up if legacy else self.pit.level)
        self._irq8.set(id(self._irq8) in up if legacy else self.rtc.level)

    # Registers

    @GINTR_STA.on_read
    def _status(self) -> int:
        for n in range(self.timers):
            self._look(n)
        return self.GINTR_STA

    @GINTR_STA.on_write
    def _clear(self, value: int) -> None:
        for n in range(self.timers):
            self._look(n)
        self.GINTR_STA &= ~value
        self._follow()

    @CONF.on_write
    def _configure_timer(self, n: int, value: int) -> None:
        if n >= self.timers:
            self.guest_error(f"there is no timer {n}")
            return
        self._look(n)
        can = CONFIG | (FSB if self.fsb else 0)
        if value & PERIODIC == 0 and value & VAL_SET:
            self.guest_error("VAL_SET is for periodic timers")
        self.CONF[n] = self.CONF[n] & ~can | value & can
        self.COMP[n] &= self._width(n)
        self.period[n] &= self._width(n)
        if not value & LEVEL:
            self.GINTR_STA &= ~(1 << n)
        self._arm(n)
        self._drive()

    @COMP.on_read
    def _comparator(self, n: int) -> int:
        if n < self.timers:
            self._look(n)
        return self.COMP[n]

    @COMP.on_write
    def _compare(self, n: int, value: int) -> None:
        """A periodic timer's is its period as well, and then the comparator only with VAL_SET (2.3.9.2.2)."""
        if n >= self.timers:
            self.guest_error(f"there is no timer {n}")
            return
        written = self._bytes
        fresh = value & written
        self._look(n)
        config, width = self.CONF[n], self._width(n)
        if not config & PERIODIC or config & VAL_SET:
            self.COMP[n] = (self.COMP[n] & ~written | fresh) & width
        if config & PERIODIC:
            self.period[n] = (self.period[n] & ~written | fresh) & width
        self.CONF[n] &= ~VAL_SET
        self._arm(n)

    @FSB_ROUTE.on_write
    def _route_message(self, n: int, value: int) -> None:
        if n < self.timers:
            self.FSB_ROUTE[n] = value
        else:
            self.guest_error(f"there is no timer {n}")
