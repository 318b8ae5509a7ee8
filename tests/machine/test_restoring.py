"""A restore is of everything or of nothing, whatever the host does meanwhile: errors at each device's steps."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from dbt.machine.boards import BOARDS
from dbt.machine.device import Device
from dbt.machine.errors import RestoreFailed, SnapshotError
from dbt.machine.lines import Line
from dbt.machine.machine import Machine
from dbt.machine.registers import RW, Register, Window
from dbt.machine.snapshot.content import MemoryContent

from tests.machine.test_snapshot import built, contents, traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


STEPS = ("load", "wire")


class Full(OSError):
    """What the host says."""

    def __init__(self) -> None:
        super().__init__(28, "no space left")


def failing(device: Device, step: str, patch: pytest.MonkeyPatch, *, times: int) -> list[int]:
    """Have a step of a device fail so many times, when its work is half done."""
    failed: list[int] = []
    before: Callable[[Any], None] = getattr(device, step)

    def fail(saved: Any) -> None:
        if len(failed) < times:
            failed.append(1)
            device.__dict__.update(device.check(saved))
            raise Full
        before(saved)

    patch.setattr(device, step, fail)
    return failed


@pytest.mark.parametrize("name", BOARDS)
def test_an_error_at_any_step_of_any_device_leaves_the_old_state(name: str) -> None:
    machine, other = built(name, 1), built(name, 2)
    saved, old = other.save(), machine.save()
    assert saved != old
    twin = built(name, 1)
    for step in STEPS:
        for device in list(machine.devices.values()):
            with pytest.MonkeyPatch.context() as patch:
                failed = failing(device, step, patch, times=1)
                with pytest.raises(RestoreFailed, match=r"no space left.*old state is back"):
                    machine.restore(saved)
                assert failed, device.name
            assert machine.save() == old, (device.name, step)
            assert not machine.broken
    for one in (machine, twin):
        traffic(one, Random(9), 300)
    assert machine.save() == twin.save()
    machine.restore(saved)
    assert machine.save() == saved


@pytest.mark.parametrize("step", STEPS)
def test_a_machine_that_cannot_go_back_either_is_broken(step: str) -> None:
    machine, other = built("virt", 1), built("virt", 2)
    saved = other.save()
    device = machine.devices["uart"]
    with pytest.MonkeyPatch.context() as patch:
        failing(device, step, patch, times=2)
        with pytest.raises(RestoreFailed, match="no space left"):
            machine.restore(saved)
    for use in (machine.save, machine.reset, machine.run_timers, lambda: machine.advance(1)):
        with pytest.raises(RestoreFailed, match=r"neither the old machine nor the saved one.*no space left"):
            use()
    with pytest.raises(SnapshotError, match="no saved machine"):
        machine.restore({})
    assert machine.broken
    machine.restore(saved)
    assert not machine.broken
    assert machine.save() == saved


@pytest.mark.parametrize("at", ["memory", "load", "wire"])
def test_files(at: str, tmp_path: Path) -> None:
    path, more = str(tmp_path / "file"), str(tmp_path / "more")
    machine, other = built("pc", 1), built("pc", 2)
    other.save_file(path)
    with pytest.MonkeyPatch.context() as patch:
        if at == "memory":

            def put(_content: MemoryContent, _at: int, _data: bytes) -> None:
                raise Full

            patch.setattr(MemoryContent, "put", put)
        else:
            failing(next(iter(machine.devices.values())), at, patch, times=1)
        with pytest.raises(RestoreFailed, match="no space left"):
            machine.restore_file(path)
    with pytest.raises(RestoreFailed, match="neither the old machine"):
        machine.save_file(more)
    assert not (tmp_path / "more").exists()
    machine.restore_file(path)
    assert (machine.save(), contents(machine)) == (other.save(), contents(other))


def test_an_interrupt_in_the_middle_is_seen() -> None:
    machine = built("isapc", 1)
    saved = machine.save()
    device = next(iter(machine.devices.values()))
    with pytest.MonkeyPatch.context() as patch:

        def interrupted(_saved: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(device, "wire", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machine.restore(saved)
    with pytest.raises(RestoreFailed, match="did not end"):
        machine.save()
    machine.restore(saved)
    assert machine.save() == saved


class Latch(Device):
    """Notes that its input has risen, and drives a line while its register says so."""

    WINDOW = Window(0x10)
    SEEN = Register(0, RW, "rises")
    DRIVE = Register(4, RW, "the line")

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self.out = Line(f"{name}.out")

    def rises(self, level: bool) -> None:
        self.SEEN += level

    def on_restore(self) -> None:
        self.out.set(bool(self.DRIVE))

    @DRIVE.after_write
    def _drive(self) -> None:
        self.out.set(bool(self.DRIVE))


@pytest.mark.parametrize("order", [False, True])
def test_lines_that_rise_meanwhile_are_no_part_of_the_state(order: bool) -> None:
    """Lines in both directions, also to what was made later."""

    def wired() -> Machine:
        machine = Machine("latches")
        latches = [Latch(f"latch{number}", machine) for number in range(4)]
        for number, latch in enumerate(latches):
            machine.place(latch, 0x100 * number)
            latch.out.connect(latches[(number + (1 if order else -1)) % 4].rises)
        machine.reset()
        return machine

    machine, random = wired(), Random(1)
    for _ in range(20):
        machine.memory.write(0x100 * random.randrange(4) + 4, 4, random.randrange(2))
        saved, other = machine.save(), wired()
        for number in range(4):
            other.memory.write(0x100 * number + 4, 4, random.randrange(2))
        other.restore(saved)
        assert other.save() == saved
        for number in range(4):
            latch, twin = other.devices[f"latch{number}"], machine.devices[f"latch{number}"]
            assert isinstance(latch, Latch)
            assert isinstance(twin, Latch)
            assert latch.out.level == twin.out.level
