"""A machine: its spaces, clock, log and lock, and the devices that are in it.

The lock is taken around every entry into a device: accesses (the address space does it), timers (`advance`,
`run_timers`) and input of back ends (whoever brings it). It is never held while something of the host is waited for:
`settled` is how what resets, saves or restores a machine waits before it takes the lock.

A machine owns what its devices were given of the host, disks and shared folders: `close` closes it, as does the end of
`with machine:`. Networks and character back ends may be of several machines, and stay their makers'.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self

from dbt.machine.clock import SECOND, Clock
from dbt.machine.errors import MapError, RestoreFailed, SnapshotError
from dbt.machine.log import Log
from dbt.machine.memory import AddressSpace, Container, Region, Unassigned
from dbt.machine.msi import MsiRouter
from dbt.machine.power import Power

from dbt.errors import UsageError
from dbt.wording import instead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.machine.device import Device
    from dbt.machine.power import PoweredCpu

MEMORY, PORTS = "memory", "ports"
HINT = "restore it from a snapshot"
VERSION = 1  # of what `save` returns, besides the devices' own


class Machine:
    """`epoch`: the seconds since 1970 that the machine's clocks show when it starts.

    `native`: whether devices use what there is of them as native code (machine/native), or Python only.
    `lock`: the one that back ends with threads of their own were made with.
    """

    def __init__(
        self,
        name: str = "machine",
        *,
        clock: Clock | None = None,
        log: Log | None = None,
        epoch: int = 0,
        unassigned: Unassigned = Unassigned.ERROR,
        native: bool = True,
        lock: threading.RLock | None = None,
    ) -> None:
        self.name = name
        self.native = native
        self.clock = clock or Clock(native=native)
        self.log = log or Log()
        self.epoch = epoch
        self.lock = lock or threading.RLock()
        self.devices: dict[str, Device] = {}
        self.cpus: list[PoweredCpu] = []  # by their numbers
        self.power = Power(name)
        self.system = Container("system", 1 << 64)
        self.io = Container("io", 1 << 16)
        self.memory = AddressSpace(MEMORY, self.system, unassigned=unassigned, lock=self.lock, log=self.log)
        self.ports = AddressSpace(
            PORTS, self.io, bits=16, unassigned=Unassigned.ONES, lock=self.lock, log=self.log
        )  # fmt: skip
        self.msi = MsiRouter(self.memory)
        self.broken = ""  # what a restore failed by, in its middle: until one succeeds, the machine does nothing

    @property
    def wall(self) -> int:
        """Nanoseconds since 1970, as the machine's clocks have it."""
        return self.epoch * SECOND + self.clock.now

    def add(self, device: Device) -> None:
        """Know a device by its name: constructors of devices call this."""
        if device.name in self.devices:
            raise MapError(f"there are two devices called {device.name} in {self.name}")
        self.devices[device.name] = device

    def place(self, what: Device | Region, at: int, space: str = MEMORY, window: str = "") -> None:
        """Put a region, or a window of a device, at an address of `memory` or `ports`."""
        region = what if isinstance(what, Region) else what.regions[window] if window else what.region
        (self.system if space == MEMORY else self.io).place(region, at)

    def trace(self, pattern: str) -> int:
        """Trace what matches `device`, `device.REGISTER` or such with * and ?; the result is how many registers do."""
        found = 0
        for device in self.devices.values():
            for traced, known in device.traceable():
                every = fnmatchcase(device.name, pattern)
                names = {name for name in known if every or fnmatchcase(f"{device.name}.{name}", pattern)}
                traced.update(names)
                found += len(names)
        if not found:
            raise UsageError(
                f"nothing to trace matches {pattern!r}", instead(pattern.partition(".")[0], "devices", self.devices)
            )
        return found

    def advance(self, nanoseconds: int) -> None:
        """Let time pass on a clock without a source. Others get the lock in between."""
        self.whole()
        turns = self.clock.turns(nanoseconds)
        more = True
        while more:
            with self.lock:
                more = next(turns, False)

    def run_timers(self) -> None:
        """Run what is due on a clock that follows the host."""
        self.whole()
        with self.lock:
            self.clock.run_due()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """The lock, with nothing that the host still does for a device. Processors stand still; not for devices."""
        while True:
            for device in self.devices.values():
                device.settle()
            with self.lock:
                if not any(device.busy for device in self.devices.values()):
                    yield
                    return

    def reset(self) -> None:
        """Reset all devices; memory stays as it is, and what was asked of the power is forgotten."""
        self.whole()
        with self.settled():
            self.power.take()
            for device in self.devices.values():
                device.reset()

    def save(self) -> dict[str, Any]:
        """The time and the state of all devices, as JSON has them. Memory is in `save_file` only."""
        with self.settled():
            return self.state()

    def state(self) -> dict[str, Any]:
        """`save` for who has settled the machine."""
        self.whole()
        devices = {name: device.save() for name, device in self.devices.items()}
        return {"version": VERSION, "clock": self.clock.now, "epoch": self.epoch, "devices": devices}

    def check(self, saved: object) -> dict[str, Any]:
        """What `restore` can be called with; SnapshotError if this cannot be."""
        if not isinstance(saved, dict) or saved.get("version") != VERSION:
            raise SnapshotError(f"{self.name}: this is no saved machine of version {VERSION}")
        clock, epoch, devices = saved.get("clock"), saved.get("epoch"), saved.get("devices")
        if not (isinstance(clock, int) and isinstance(epoch, int) and 0 <= clock < 1 << 63 and 0 <= epoch < 1 << 34):
            raise SnapshotError(f"{self.name}: the saved clock is not a time")
        if not isinstance(devices, dict) or devices.keys() != self.devices.keys():
            raise SnapshotError(f"{self.name}: other devices were saved; here are {', '.join(self.devices)}")
        for name, device in self.devices.items():
            device.check(devices[name])
        return saved

    def restore(self, saved: object) -> None:
        """Be as `save` was called, with the same devices. SnapshotError, before anything changes, if that cannot be.

        RestoreFailed if the host fails meanwhile: the old state is back, or the machine is `broken` if that fails too.
        """
        with self.settled():
            good = self.check(saved)
            before = None if self.broken else self.state()
            try:
                with self.replacing():
                    self.put_back(good)
            except RestoreFailed as error:
                if before is None:
                    raise
                with self.replacing():
                    self.put_back(before)
                raise RestoreFailed(f"{error.what}: the old state is back") from error

    def put_back(self, good: dict[str, Any]) -> None:
        """`restore` for who has settled the machine and checked the state, within `replacing`.

        First all have their states. Then lines, timers and the map follow, from those who drive lines to those who look
        at them. What rising lines made of states on the way is no part of it: so states are loaded again, and what
        follows from them is set again, which changes no line that leads to a device made earlier.
        """
        devices = good["devices"]
        self.clock.set(good["clock"])
        self.epoch = good["epoch"]
        for name, device in self.devices.items():
            device.load(devices[name])
        for _ in ("lines", "what follows from the lines and the states"):
            for name, device in reversed(self.devices.items()):
                device.load(devices[name])
                device.wire(devices[name])

    def whole(self) -> None:
        """RestoreFailed if the machine is broken."""
        if self.broken:
            raise RestoreFailed(f"{self.name} is neither the old machine nor the saved one: {self.broken}", HINT)

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """What is within replaces the state. If it ends early, the machine is broken until this is done to its end."""
        self.broken = "a restore did not end"
        try:
            yield
        except Exception as error:
            self.broken = f"a restore failed in its middle: {str(error) or type(error).__name__}"
            raise RestoreFailed(f"{self.name}: {self.broken}", HINT) from error
        self.broken = ""

    def close(self) -> None:
        """End the work of all devices, then close what they own of the host, each once.

        All of it is tried; errors of the host are raised afterwards. Processors stand still. Again does nothing.
        """
        devices = list(self.devices.values())
        for device in devices:
            device.settle()
        owned = {id(backend): backend for device in devices for backend in device.backends()}
        with ExitStack() as stack:  # from the last to the first
            for backend in owned.values():
                stack.callback(backend.close)
            for device in devices:
                stack.callback(device.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save_file(self, path: str, *, include_disks: bool = False) -> int:
        """Write all of it, memory and disks too, to a file; its size. See machine/snapshot."""
        from dbt.machine import snapshot

        return snapshot.save(self, path, include_disks=include_disks)

    def restore_file(self, path: str) -> None:
        """Be as such a file says. SnapshotError, before anything changes, if that cannot be."""
        from dbt.machine import snapshot

        snapshot.restore(self, path)
