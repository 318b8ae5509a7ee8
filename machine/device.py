"""Devices: what their register declarations become in an instance.

A device knows offsets; the board places its windows. Its clock, log and lock are the machine's; interrupt lines and
back ends are given to its constructor. All its methods are called under the machine's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dbt.machine.errors import MapError, SnapshotError
from dbt.machine.log import GUEST_ERROR, TRACE, UNIMPLEMENTED
from dbt.machine.memory import CPU0, MMIO, Attributes
from dbt.machine.registers import RO, WO, AnyRegister, AnyState, Fifo, Layout, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbt.machine.block import Disk
    from dbt.machine.machine import Machine
    from dbt.machine.memory import Region

Saved = dict[str, Any]  # numbers, texts, lists and dictionaries: what JSON has


class Backend(Protocol):
    """Something of the host that a device was given for itself."""

    def close(self) -> None:
        """Give it back; again does nothing."""


class Device:
    """The base of all devices. `VERSION` is that of what `save` returns."""

    VERSION: ClassVar[int] = 1
    KEPT: ClassVar[frozenset[str]] = frozenset()  # registers and states that a reset leaves alone
    WINDOWS: ClassVar[dict[str, Window]] = {}
    LAYOUTS: ClassVar[dict[str, Layout]] = {}
    REGISTERS: ClassVar[dict[str, AnyRegister]] = {}
    VALUES: ClassVar[dict[str, AnyRegister | AnyState | Fifo]] = {}  # registers but views, states: what an instance has

    def __init_subclass__(cls) -> None:
        members = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
        cls.WINDOWS = {name: value for name, value in members.items() if isinstance(value, Window)}
        cls.REGISTERS = {name: value for name, value in members.items() if isinstance(value, AnyRegister)}
        states = {name: value for name, value in members.items() if isinstance(value, AnyState | Fifo)}
        cls.VALUES = {**{name: value for name, value in cls.REGISTERS.items() if value.stored}, **states}
        first = next(iter(cls.WINDOWS.values()), None)
        cls.LAYOUTS = {
            name: Layout(
                cls.__name__, window, [r for r in cls.REGISTERS.values() if (r.window or first) is window]
            )
            for name, window in cls.WINDOWS.items()
        }  # fmt: skip

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.clock = machine.clock
        self.attributes: Attributes = CPU0
        self.banks = {window: Bank(self, layout) for window, layout in self.LAYOUTS.items()}
        placed = {window: bank for window, bank in self.banks.items() if bank.window.placed}
        self.regions = {
            window: MMIO(name if len(placed) == 1 else f"{name}.{window}", bank.window.size, bank, bank.sizes)
            for window, bank in placed.items()
        }
        self._initial()
        machine.add(self)

    @property
    def region(self) -> MMIO:
        """The first window, as what a board places."""
        return next(iter(self.regions.values()))

    # What devices may have

    def on_reset(self) -> None:
        """Registers and states have their reset values: do the rest."""

    def on_restore(self) -> None:
        """Registers and states are those of a saved device: set lines and timers by them."""
        self.on_reset()

    disk: Disk | None = None  # its medium, if it has one

    def disks(self) -> Iterable[Disk]:
        """The disks whose state is a part of its own: the medium, if there is one."""
        return () if self.disk is None else (self.disk,)

    def backends(self) -> Iterable[Backend]:
        """What the device owns of the host: the machine closes it when it is closed."""
        return self.disks()

    def close(self) -> None:
        """End what works for the device on the host; then its back ends are closed. Not under the machine's lock."""

    def all_regions(self) -> Iterable[Region]:
        """Its regions, also those that no address shows just now: what memory is in them is saved."""
        return self.regions.values()

    @property
    def busy(self) -> bool:
        """Whether the host still works for the device, on memory that may be the guest's."""
        return False

    def settle(self) -> None:
        """Wait until it does no more, as long as nothing new is begun. Called without the machine's lock."""

    # What follows from the declarations

    def _initial(self) -> None:
        self.__dict__.update((name, declared.initial()) for name, declared in self.VALUES.items())

    def reset(self) -> None:
        """What the reset input does: all registers and states but those of KEPT are as after power-on."""
        kept = {name: self.__dict__[name] for name in self.KEPT}
        self._initial()
        self.__dict__.update(kept)
        self.on_reset()

    def save(self) -> Saved:
        """All registers and states, as JSON has them."""
        state: Saved = {}
        for name in self.VALUES:
            value = self.__dict__[name]
            if isinstance(value, bytearray):
                state[name] = value.hex()
            else:  # numbers may be of a subclass, as enumerations are
                state[name] = list(map(int, value)) if isinstance(value, list | memoryview) else int(value)
        return {"device": type(self).__name__, "version": self.VERSION, "state": state}

    def check(self, saved: object) -> Saved:
        """The values of a saved state, after a look at each; SnapshotError if one cannot be."""
        kind = type(self).__name__
        if not isinstance(saved, dict) or (saved.get("device"), saved.get("version")) != (kind, self.VERSION):
            raise SnapshotError(f"{self.name}: this is no saved {kind} of version {self.VERSION}")
        state = saved.get("state")
        if not isinstance(state, dict) or state.keys() != self.VALUES.keys():
            raise SnapshotError(f"{self.name}: the saved {kind} has other registers")
        return {name: self._checked(name, self.VALUES[name], value) for name, value in state.items()}

    def _checked(self, name: str, declared: AnyRegister | AnyState | Fifo, value: Any) -> Any:  # noqa: ANN401 - from outside
        if isinstance(declared, Fifo):
            try:
                data = bytearray.fromhex(value)
            except (TypeError, ValueError):
                data = bytearray(declared.depth + 1)
            if len(data) > declared.depth:
                raise SnapshotError(f"{self.name}.{name}: not up to {declared.depth} bytes in hexadecimal")
            return data
        numbers = value if declared.many else [value]
        good = isinstance(numbers, list) and len(numbers) == declared.count
        if not good or not all(type(number) is int and 0 <= number < 1 << declared.bits for number in numbers):
            raise SnapshotError(f"{self.name}.{name}: not {declared.count} numbers of {declared.bits} bits")
        return list(numbers) if declared.many else value

    def restore(self, saved: Saved) -> None:
        """Be as `save` was called. Nothing changes if that cannot be. Machines take the two steps for all devices."""
        self.load(saved)
        self.wire(saved)

    def load(self, saved: Saved) -> None:
        """Have the saved registers and states; nothing else happens. Nothing changes if that cannot be."""
        self.__dict__.update(self.check(saved))

    def wire(self, saved: Saved) -> None:
        """Set lines, timers, the memory map and what the host does by what was loaded; it may be done again."""
        del saved
        self.on_restore()

    def traceable(self) -> Iterator[tuple[set[str], set[str]]]:
        """(names of registers that are traced, names of all) for each thing that has registers."""
        for window, bank in self.banks.items():
            yield bank.traced, {register.name for register in self.LAYOUTS[window].registers}

    def guest_error(self, thing: str, detail: str = "") -> None:
        """The guest did what the data sheet forbids."""
        self.machine.log.say(GUEST_ERROR, self.name, thing, detail)

    def unimplemented(self, thing: str, detail: str = "") -> None:
        """The guest wants what the data sheet has and this device does not."""
        self.machine.log.say(UNIMPLEMENTED, self.name, thing, detail)


class Bank:
    """The registers of one window of one device, as the handler of its region."""

    def __init__(self, device: Device, layout: Layout) -> None:
        self.device = device
        self.window = layout.window
        self.sizes = layout.window.sizes
        self.traced: set[str] = set()  # names of registers
        self._reads = layout.reads
        self._writes = layout.writes
        self._whole = layout.whole
        for register in layout.registers:
            shown, taken = register.reader or register.access == WO, register.writer or register.access == RO
            if not (register.stored or (shown and taken)):
                raise MapError(f"{device.name}: the view {register.name} has no function for what may be done to it")

    def read(self, offset: int, size: int, attributes: Attributes) -> int:
        """A read as the bus gives it."""
        device = self.device
        device.attributes = attributes
        whole = self._whole.get(offset)  # most registers need no more than this
        if whole is not None and whole[1] == size:
            register = whole[0]
            if register.reader is not None:
                value: int = register.reader(device)
            else:
                value = device.__dict__[register.name]
            if register.name in self.traced:
                self._trace(register, 0, "->", value)
            return value
        for place in self._reads.get(offset, ()):
            register = place[0]
            if register.when is None or register.when(device):
                if register.size == size and place[2] == offset:
                    return self._get(register, place[1])
                if not register.exact:
                    break
        return self._read_parts(offset, size)

    def write(self, offset: int, size: int, value: int, attributes: Attributes) -> None:
        """A write as the bus gives it."""
        self.device.attributes = attributes
        for place in self._writes.get(offset, ()):
            register = place[0]
            if register.when is None or register.when(self.device):
                if register.size == size and place[2] == offset:
                    self._put(register, place[1], value)
                    return
                if not register.exact:
                    break
        self._write_parts(offset, size, value)

    def _get(self, register: AnyRegister, index: int) -> int:
        if register.reader is not None:
            value: int = register.reader(self.device, index) if register.many else register.reader(self.device)
        else:
            value = self._stored(register, index)
        if register.name in self.traced:
            self._trace(register, index, "->", value)
        return value

    def _stored(self, register: AnyRegister, index: int) -> int:
        if not register.stored:
            return register.reset
        value = self.device.__dict__[register.name]
        return int(value[index]) if register.many else int(value)

    def _put(self, register: AnyRegister, index: int, value: int) -> None:
        device = self.device
        if register.name in self.traced:
            self._trace(register, index, "<-", value)
        old = self._stored(register, index)
        if wrong := value & ~old & ~(register.mask | register.clear | register.unimplemented) & register.all:
            device.guest_error(f"{register.label(index)} has reserved bits {wrong:#x} written as ones")
        if missing := value & register.unimplemented & ~register.reset:
            device.unimplemented(f"{register.label(index)} bits {missing:#x}")
        if register.writer is not None:
            if register.many:
                register.writer(device, index, value)
            else:
                register.writer(device, value)
            return
        new = (old & ~register.mask | value & register.mask) & ~(value & register.clear)
        if register.many:
            device.__dict__[register.name][index] = new
        else:
            device.__dict__[register.name] = new
        if register.after is not None:
            if register.many:
                register.after(device, index)
            else:
                register.after(device)

    def _trace(self, register: AnyRegister, index: int, arrow: str, value: int) -> None:
        who = self.device.attributes
        name = f"cpu{who.cpu}" if who.requester == "cpu" else who.requester
        self.device.machine.log.say(
            TRACE, self.device.name, f"{name} {register.label(index)} {arrow} {register.text(value)}"
        )

    def _split(self, offset: int, size: int, *, write: bool) -> list[tuple[AnyRegister | None, int, int, int, int]]:
        """An access as parts of registers: (register or None, index, offset in it, offset in the access, bytes)."""
        parts: list[tuple[AnyRegister | None, int, int, int, int]] = []
        done = 0
        while done < size:
            at = offset + done
            for register, index, start in (self._writes if write else self._reads).get(at, ()):
                if not register.exact and (register.when is None or register.when(self.device)):
                    count = min(size - done, start + register.size - at)
                    parts.append((register, index, at - start, done, count))
                    break
            else:
                count = 1
                parts.append((None, 0, 0, done, 1))
            done += count
        whole = all(
            register is None or count == register.size or register.partial for register, _, _, _, count in parts
        )
        if all(register is None for register, *_ in parts):
            known = (self._reads if write else self._writes).get(offset)
            what = f"{known[0][0].name} is {known[0][0].access}" if known else f"no register at {offset:#x}"
            self.device.guest_error(f"{'write' if write else 'read'}: {what}")
            return []
        if not (whole or self.window.partial):
            names = " ".join(sorted({register.name for register, *_ in parts if register}))
            self.device.guest_error(
                f"{'write' if write else 'read'} of {size} bytes at {offset:#x}: {names} has others"
            )
            return []
        return parts

    def _read_parts(self, offset: int, size: int) -> int:
        parts = self._split(offset, size, write=False)
        hole = self.window.hole & 0xFF
        data = bytearray([hole]) * size
        for register, index, start, at, count in parts:
            if register is not None:
                data[at : at + count] = self._get(register, index).to_bytes(register.size, "little")[
                    start : start + count
                ]
        return int.from_bytes(data, "little")

    def _write_parts(self, offset: int, size: int, value: int) -> None:
        data = value.to_bytes(size, "little")
        for register, index, start, at, count in self._split(offset, size, write=True):
            if register is not None:
                old = 0 if register.clear else self._stored(register, index)
                whole = bytearray(old.to_bytes(register.size, "little"))
                whole[start : start + count] = data[at : at + count]
                self._put(register, index, int.from_bytes(whole, "little"))
