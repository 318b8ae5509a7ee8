"""Motorola MC146818 real-time clock: time, alarm, periodic interrupt, and 114 bytes that are kept.

A PC reaches it through an index and a data port. While the clock runs, its time is the machine's plus what the guest
has set; flags that nobody waits for are computed when register C is read. Daylight saving and the square wave are not
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.machine.clock import SECOND
from dbt.machine.device import Device
from dbt.machine.lines import Line
from dbt.machine.memory import CPU0, AccessSizes
from dbt.machine.registers import RO, RW, WO, Register, Registers, State, View, Window

if TYPE_CHECKING:
    from dbt.machine.machine import Machine

BYTE = AccessSizes((1, 1), (1, 1))
SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR = range(10)
CENTURY = 0x32 - 0x0E  # in the kept bytes: where PCs have it
UIP, DIVIDER_ON = 0x80, 0x20
SET, PIE, AIE, UIE, DM, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
UPDATE = 244_141  # nanoseconds before a new second in which UIP is set
DAY_SECONDS = 86_400


def days_of(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar; months and days beyond their range go on counting."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    year -= month <= 2
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return year // 400 * 146_097 + year % 400 * 365 + year % 400 // 4 - year % 400 // 100 + of_year - 719_468


def date_of(days: int) -> tuple[int, int, int]:
    """(year, month, day) of days since 1970-01-01."""
    days += 719_468
    era, day = divmod(days, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    month_number = month + (3 if month < 10 else -9)
    return era * 400 + year + (month_number <= 2), month_number, of_year - (153 * month + 2) // 5 + 1


class MC146818(Device):
    """Motorola MC146818 real-time clock and RAM, behind the PC's index and data ports."""

    KEPT = frozenset({"TIME", "A", "B", "RAM", "base", "base_at", "looked"})  # by the battery
    WINDOW = Window(2, BYTE, hole=0xFF)
    CMOS = Window(128, BYTE, placed=False)
    INDEX = Register(0, WO, "which byte the data port is; bit 7 masks NMIs elsewhere", size=1, mask=0x7F, clear=0x80)
    DATA = View(1, RW, "that byte", size=1)
    TIME = Registers(0x00, RW, "seconds, minutes, hours with alarms, weekday, day, month, year", count=10, size=1,
                     window=CMOS)  # fmt: skip
    A = Register(0x0A, RW, "divider and rate", size=1, reset=0x26, mask=0x7F, window=CMOS,
                 fields={"RS": (3, 0), "DV": (6, 4), "UIP": 7})  # fmt: skip
    B = Register(0x0B, RW, "control", size=1, reset=0x02, unimplemented=0x09, window=CMOS,
                 fields={"DSE": 0, "24/12": 1, "DM": 2, "SQWE": 3, "UIE": 4, "AIE": 5, "PIE": 6, "SET": 7})  # fmt: skip
    C = Register(0x0C, RO, "interrupt flags; reading clears them", size=1, window=CMOS,
                 fields={"UF": 4, "AF": 5, "PF": 6, "IRQF": 7})  # fmt: skip
    D = Register(0x0D, RO, "valid", size=1, reset=0x80, window=CMOS, fields={"VRT": 7})
    RAM = Registers(0x0E, RW, "kept bytes", count=114, size=1, window=CMOS)

    base = State(bits=128)  # the clock's nanoseconds since 1970, modulo 2**128, ...
    base_at = State(bits=64)  # ... when the machine's clock was this
    looked = State(bits=64)  # when register C was read last

    def __init__(self, name: str, machine: Machine, irq: Line | None = None) -> None:
        super().__init__(name, machine)
        self.irq = irq or Line(f"{name}.irq")
        self.event = self.clock.timer(self._update)
        self.base = self.machine.wall & (1 << 128) - 1
        self.base_at = self.looked = self.clock.now
        self._show()

    def on_reset(self) -> None:
        """Interrupts are off; the time goes on."""
        self.B &= ~(PIE | AIE | UIE)
        self.looked = self.clock.now
        self._update()

    def on_restore(self) -> None:
        """The line and the timer follow from the state."""
        self._settle()

    # Time

    def _runs(self) -> bool:
        return not self.B & SET and self.A & 0x70 == DIVIDER_ON

    def _now(self) -> int:
        """Nanoseconds since 1970, as this clock has it."""
        since = self.base - (self.base >> 127 << 128)
        return since + self.clock.now - self.base_at if self._runs() else since

    def _coded(self, number: int) -> int:
        return number & 0xFF if self.B & DM else number // 10 % 10 << 4 | number % 10

    def _number(self, coded: int) -> int:
        return coded if self.B & DM else (coded >> 4) * 10 + (coded & 15)

    def _hour(self, coded: int) -> int:
        if self.B & H24:
            return self._number(coded)
        return self._number(coded & 0x7F) % 12 + (12 if coded & 0x80 else 0)

    def _show(self) -> None:
        """Registers from the time."""
        days, second = divmod(self._now() // SECOND, DAY_SECONDS)
        year, month, day = date_of(days)
        hour = second // 3600
        shown = self._coded(hour if self.B & H24 else (hour % 12 or 12))
        values = {
            SECONDS: self._coded(second % 60),
            MINUTES: self._coded(second // 60 % 60),
            HOURS: shown | (0x80 if not self.B & H24 and hour >= 12 else 0),
            WEEKDAY: self._coded((days + 4) % 7 + 1),
            DAY: self._coded(day),
            MONTH: self._coded(month),
            YEAR: self._coded(year % 100),
        }
        for index, value in values.items():
            self.TIME[index] = value
        self.RAM[CENTURY] = self._coded(year // 100)

    def _take(self) -> None:
        """The time from registers."""
        time = self.TIME
        year = self._number(self.RAM[CENTURY]) * 100 + self._number(time[YEAR])
        days = days_of(year, self._number(time[MONTH]), self._number(time[DAY]))
        seconds = self._hour(time[HOURS]) * 3600 + self._number(time[MINUTES]) * 60 + self._number(time[SECONDS])
        self.base = (days * DAY_SECONDS + seconds) * SECOND & (1 << 128) - 1
        self.base_at = self.clock.now

    # Flags and interrupts

    def _period(self) -> int:
        """Nanoseconds of the periodic interrupt; 0 if there is none."""
        rate = self.A & 15
        if not rate or self.A & 0x70 != DIVIDER_ON:
            return 0
        return SECOND * (1 << (rate + 7 if rate <= 2 else rate) - 1) // 32_768

    def _next_alarm(self, second: int) -> int | None:
        """The first second after `second` (of the day) at which the alarm matches, counted on over midnight."""
        wanted = [
            None if coded & 0xC0 == 0xC0 else decode(coded)
            for coded, decode in (
                (self.TIME[HOURS_ALARM], self._hour),
                (self.TIME[MINUTES_ALARM], self._number),
                (self.TIME[SECONDS_ALARM], self._number),
            )
        ]
        hours, minutes, seconds = (
            range(limit) if number is None else [number] if number < limit else []
            for number, limit in zip(wanted, (24, 60, 60), strict=True)
        )
        if not (hours and minutes and seconds):
            return None
        for day in (0, DAY_SECONDS):
            for hour in hours:
                if day + hour * 3600 + 3600 <= second:
                    continue
                for minute in minutes:
                    start = day + hour * 3600 + minute * 60
                    if start + seconds[-1] > second:
                        return next(start + s for s in seconds if start + s > second)
        return None

    def _flags(self) -> int:
        """The flags that time has brought since register C was read."""
        flags = self.C & (PF | AF | UF)
        now, passed = self.clock.now, self.clock.now - self.looked
        if (period := self._period()) and now // period != self.looked // period:
            flags |= PF
        if self._runs():
            time = self._now()
            before = time - passed
            if time // SECOND != before // SECOND:
                flags |= UF
                alarm = self._next_alarm(before // SECOND % DAY_SECONDS)
                if alarm is not None and alarm - before // SECOND % DAY_SECONDS <= time // SECOND - before // SECOND:
                    flags |= AF
        return flags

    def _update(self) -> None:
        """Flags, the line, and when it may next change."""
        self.C = self._flags()
        self.looked = self.clock.now
        self._settle()

    def _settle(self) -> None:
        active = self.C & self.B & (PF | AF | UF)
        self.C |= IRQF if active else 0
        self.irq.set(bool(active))
        ahead = []
        if self.B & PIE & ~self.C and (period := self._period()):
            ahead.append(self.clock.now // period * period + period)
        if self._runs() and self.B & (UIE | AIE) & ~self.C:
            time = self._now()
            second = time // SECOND
            if self.B & UIE & ~self.C:
                ahead.append(self.clock.now + (second + 1) * SECOND - time)
            if self.B & AIE & ~self.C and (alarm := self._next_alarm(second % DAY_SECONDS)) is not None:
                ahead.append(self.clock.now + (second - second % DAY_SECONDS + alarm) * SECOND - time)
        if ahead:
            self.event.at(min(ahead))
        else:
            self.event.cancel()

    # Registers

    @DATA.on_read
    def _read_data(self) -> int:
        return self.banks["CMOS"].read(self.INDEX & 0x7F, 1, self.attributes)

    @DATA.on_write
    def _write_data(self, value: int) -> None:
        self.banks["CMOS"].write(self.INDEX & 0x7F, 1, value, self.attributes)

    @TIME.on_read
    def _read_time(self, index: int) -> int:
        if self._runs():
            self._show()
        return self.TIME[index]

    @TIME.on_write
    def _write_time(self, index: int, value: int) -> None:
        if self._runs():
            self._update()
            self._show()
        self.TIME[index] = value
        if self._runs() and index not in {SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM, WEEKDAY}:
            self._take()
        self._update()

    @RAM.on_read
    def _read_kept(self, index: int) -> int:
        if index == CENTURY and self._runs():
            self._show()
        return self.RAM[index]

    @RAM.after_write
    def _kept(self, index: int) -> None:
        if index == CENTURY and self._runs():
            century = self.RAM[index]
            self._show()
            self.RAM[index] = century
            self._take()
            self._update()

    @A.on_read
    def _read_a(self) -> int:
        left = SECOND - self._now() % SECOND
        return self.A | (UIP if self._runs() and left <= UPDATE else 0)

    @A.on_write
    def _write_a(self, value: int) -> None:
        self._change(value & 0x7F, self.B)

    @B.on_write
    def _write_b(self, value: int) -> None:
        self._change(self.A, value & ~UIE if value & SET else value)

    def _change(self, a: int, b: int) -> None:
        """New control registers: the time stops, or goes on from what the registers say."""
        self._update()
        ran = self._runs()
        if ran:
            self._show()
            now, at = self._now(), self.clock.now
            self.base, self.base_at = now & (1 << 128) - 1, at
        self.A, self.B = a, b
        if self._runs() and not ran:
            self._take()
        self._update()

    @C.on_read
    def _read_c(self) -> int:
        self._update()
        value, self.C = self.C, 0
        self._update()
        return value

    def store(self, offset: int, value: int) -> None:
        """Put a byte where firmware looks for it."""
        self.banks["CMOS"].write(offset, 1, value, CPU0)
