"""Random machines of several CPUs against a model that is sets: priorities, nesting, destinations, levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from dbt.machine.devices.apic import ALL, OTHERS, SELF
from dbt.machine.devices.apic_bus import FIXED, LOWEST

from tests.machine.apic import DFR, EOI, IRR, ISR, LDR, LEVEL, MASKED, PPR, TMR, TPR, Cpus


@dataclass
class Model:
    """A CPU's interrupts, as sets."""

    number: int
    tpr: int = 0
    logical: int = 0
    cluster: bool = False
    requested: set[int] = field(default_factory=set)
    serving: set[int] = field(default_factory=set)
    by_level: set[int] = field(default_factory=set)

    def ppr(self) -> int:
        most = max(self.serving, default=0)
        return self.tpr if self.tpr // 16 >= most // 16 else most // 16 * 16

    def next(self) -> int | None:
        first = max(self.requested, default=0)
        return first if first // 16 > self.ppr() // 16 else None

    def named(self, destination: int, logical: bool) -> bool:
        if not logical:
            return destination in {0xFF, self.number}
        if not self.cluster:
            return bool(self.logical & destination)
        return destination == 0xFF or (
            self.logical // 16 == destination // 16 and bool(self.logical % 16 & destination % 16)
        )


def chosen(models: list[Model], destination: int, logical: bool, lowest: bool) -> list[Model]:
    named = [model for model in models if model.named(destination, logical)]
    if not lowest or not named:
        return named
    return [min(named, key=lambda model: (model.ppr() // 16, model.number))]


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_random_machines_are_what_the_sets_say(seed: int, native: bool) -> None:
    random = Random(seed)
    count = random.choice((1, 2, 4, 6))
    cpus = Cpus(count, native=native)
    cpus.enable()
    models = [Model(n) for n in range(count)]
    pins = {pin: cpus.ioapic.input(pin) for pin in (3, 5, 9, 16)}
    entries = dict.fromkeys(pins, MASKED)
    waiting = dict.fromkeys(pins, False)  # remote IRR

    def take(model: Model, vector: int, level: bool) -> None:
        model.requested.add(vector)
        (model.by_level.add if level else model.by_level.discard)(vector)

    def sent(destination: int, command: int, level: bool = False) -> None:
        for model in chosen(models, destination, bool(command & 0x800), command >> 8 & 7 == LOWEST):
            take(model, command & 0xFF, level)

    def looks(pin: int) -> None:
        entry = entries[pin]
        if entry & LEVEL and not entry & MASKED and pins[pin].level and not waiting[pin]:
            waiting[pin] = True
            sent(entry >> 56, entry, level=True)

    cluster = random.random() < 0.5
    for n, model in enumerate(models):
        model.cluster = cluster
        model.logical = (n // 4 << 4 | 1 << n % 4) if cluster else 1 << n
        cpus.put(n, DFR, 0 if cluster else 0xFFFF_FFFF)
        cpus.put(n, LDR, model.logical << 24)
    for _ in range(1000):
        n = random.randrange(count)
        model, apic = models[n], cpus.apics[n]
        vector = random.choice((random.randrange(16, 256), random.randrange(0x40, 0x60)))
        match random.randrange(9):
            case 0 | 1:
                command = vector | random.choice((FIXED, FIXED, LOWEST)) << 8 | random.choice((0, 0x800))
                shorthand = random.choice((0, 0, 0, SELF, ALL, OTHERS))
                destination = random.choice((random.randrange(count), random.getrandbits(8), 0xFF))
                if shorthand:
                    command &= 0xFF
                    for other in models:
                        if shorthand == ALL or (other is model) == (shorthand == SELF):
                            take(other, vector, False)
                else:
                    sent(destination, command)
                cpus.send(n, command | shorthand << 18, destination)
            case 2:
                pin = random.choice(list(pins))
                level = random.random() < 0.5
                if pins[pin].level != level:
                    entry = entries[pin]
                    if level and not entry & (MASKED | LEVEL):
                        sent(entry >> 56, entry)
                    pins[pin].set(level)
                    looks(pin)
            case 3:
                pin = random.choice(list(pins))
                entry = vector | random.choice((FIXED, LOWEST)) << 8 | random.choice((0, 0x800))
                entry |= random.choice((0, LEVEL, LEVEL)) | random.choice((0, 0, MASKED))
                entry |= random.choice((random.randrange(count), random.getrandbits(8))) << 56
                if pins[pin].level or waiting[pin]:  # two writes: what is half changed is another test's
                    continue
                entries[pin] = entry
                cpus.redirect(pin, entry)
            case 4:
                model.tpr = random.choice((0, 0, vector & 0xF0, vector))
                cpus.put(n, TPR, model.tpr)
            case 5 | 6:
                wanted = model.next()
                assert apic.acknowledge() == (0xFF if wanted is None else wanted)
                if wanted is not None:
                    model.requested.discard(wanted)
                    model.serving.add(wanted)
            case 7 | 8:
                cpus.put(n, EOI, 0)
                if model.serving:
                    ended = max(model.serving)
                    model.serving.discard(ended)
                    if ended in model.by_level:
                        again = [pin for pin in pins if waiting[pin] and entries[pin] & 0xFF == ended]
                        for pin in again:
                            waiting[pin] = False
                        for pin in again:
                            looks(pin)
        for other in models:
            number = other.number
            assert cpus.bits(number, IRR) == other.requested
            assert cpus.bits(number, ISR) == other.serving
            assert cpus.bits(number, TMR) & (other.requested | other.serving) == other.by_level & (
                other.requested | other.serving
            )
            assert cpus.get(number, PPR) == other.ppr()
            assert cpus.asked[number] == (other.next() is not None)
        for pin, entry in entries.items():
            assert cpus.redirection(pin) == entry & 0x1AFFF | waiting[pin] << 14
