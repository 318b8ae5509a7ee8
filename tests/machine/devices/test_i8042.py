"""Keyboard controller, keyboard and mouse: drivers from the technical reference, and the same against QEMU's."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from dbt.machine.devices.i8042 import I8042
from dbt.machine.devices.port92 import Port92
from dbt.machine.devices.ps2_codes import EXTENDED, PLAIN, SET3
from dbt.machine.input import Input
from dbt.machine.log import GUEST_ERROR, UNIMPLEMENTED

from tests.machine.fuzzing import fuzz
from tests.machine.i8042 import DATA, KEY_A, KEY_PAUSE, KEY_SHIFT, KEY_UP, STATUS, Pc
from tests.machine.qtest import X86, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device


def drain(bus: Bus) -> None:
    for _ in range(20):
        if not bus.inp(STATUS, mask=0xF3) & 1:  # QEMU: CMD is always set, SYS does not follow the command byte
            break
        bus.inp(DATA)
    bus.inp(DATA)


KEYS12 = sorted({*PLAIN, *EXTENDED, KEY_PAUSE} - {217})  # without the key that QEMU 7.2 does not have...
KEYS3 = sorted(SET3.keys() - {74, 98})  # ...and those which it has the codes of others for
KEYBOARD = (0xFF, 0xF6, 0xF5, 0xF4, 0xF2, 0xEE)
MOUSE = (0xFF, 0xF6, 0xF5, 0xF4, 0xF2, 0xE9, 0xEB, 0xE6, 0xE7, 0xEA, 0xF0)
CONTROLLER = (0x20, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xC0, 0xD0)


def play(seed: int, steps: int, bus: Bus) -> None:
    random = Random(seed)

    def mouse(value: int) -> None:
        bus.out(STATUS, 0xD4)
        bus.out(DATA, value)
        drain(bus)

    drain(bus)
    mouse(0xFF)  # QEMU's has no resolution and rate before
    for _ in range(steps):
        match random.randrange(10):
            case 0 | 1:
                bus.out(STATUS, random.choice(CONTROLLER))
            case 2:
                bus.out(STATUS, 0x60)
                bus.out(DATA, random.choice((0x00, 0x03, 0x43, 0x47, 0x47, 0x65, 0x77)))
            case 3:
                bus.out(STATUS, random.choice((0xD2, 0xD3)))
                bus.out(DATA, random.getrandbits(8))
            case 4 | 5:
                bus.out(DATA, random.choice(KEYBOARD))
            case 6:
                for value in random.choice(((0xED, random.randrange(8)), (0xF3, 0x20), (0xF0, random.randrange(4)))):
                    bus.out(DATA, value)
                    drain(bus)
            case 7 | 8:
                for value in random.choice(((0xEE, 0xF2, 0x12, 0xEC), *((value,) for value in MOUSE))):
                    mouse(value)
            case 9:
                rates = random.choice(((200, 100, 80), (200, 200, 80), (40,), (10,)))
                for value in rates:
                    mouse(0xF3)
                    mouse(value)
                mouse(0xE8)
                mouse(random.randrange(4))
        drain(bus)
        bus.inp(0x92)


@pytest.mark.needs("qemu-system-x86_64")
def test_random_drivers_agree_with_qemu() -> None:
    for seed in range(4):
        with qemu(*X86) as theirs:
            assert agree(lambda bus, seed=seed: play(seed, 150, bus), Pc().machine, theirs) > 500  # type: ignore[misc]


class User(Protocol):
    """Who presses keys and moves the mouse: on our machine, or on QEMU's by its monitor."""

    def key(self, code: int, down: bool) -> None: ...
    def move(self, dx: int, dy: int, dz: int, buttons: int) -> None: ...


class QemuUser:
    """The same on a QEMU that runs."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.ask("qmp_capabilities")
        self.ask("cont")
        self.buttons = 0

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, command: str, **arguments: Any) -> None:
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while "event" in (answer := json.loads(self.file.readline())):
            pass
        assert "return" in answer, answer

    def send(self, *events: tuple[str, dict[str, Any]]) -> None:
        self.ask("input-send-event", events=[{"type": kind, "data": data} for kind, data in events])

    def key(self, code: int, down: bool) -> None:
        number = EXTENDED[code] | 0x80 if code in EXTENDED else 0xC6 if code == KEY_PAUSE else PLAIN[code]
        self.send(("key", {"down": down, "key": {"type": "number", "data": number}}))

    def move(self, dx: int, dy: int, dz: int, buttons: int) -> None:
        events: list[tuple[str, dict[str, Any]]] = []
        names = ("left", "right", "middle", "side", "extra")
        for bit, name in enumerate(names):
            if (buttons ^ self.buttons) >> bit & 1:
                events.append(("btn", {"down": bool(buttons >> bit & 1), "button": name}))
        self.buttons = buttons
        for axis, delta in (("x", dx), ("y", dy)):
            if delta:
                events.append(("rel", {"axis": axis, "value": delta}))
        for _ in range(abs(dz)):
            button = "wheel-up" if dz > 0 else "wheel-down"
            events += [("btn", {"down": down, "button": button}) for down in (True, False)]
        self.send(*events)


def type_and_move(bus: Bus, user: User, let_pass: Callable[[], None]) -> None:
    def ask(*values: int, mouse: bool = False) -> None:
        for value in values:
            if mouse:
                bus.out(STATUS, 0xD4)
            bus.out(DATA, value)
            drain(bus)

    ask(0xFF)
    for mode, scan_set in ((0x43, 2), (0x03, 1), (0x03, 2), (0x03, 3)):
        bus.out(STATUS, 0x60)
        bus.out(DATA, mode)
        ask(0xF5, 0xF0, scan_set, 0xFA, 0xF4)
        for code in KEYS3 if scan_set == 3 else KEYS12:
            for down in (True, False):
                user.key(code, down)
                drain(bus)
    user.key(KEY_SHIFT, True)
    drain(bus)
    ask(0xF5)
    user.key(KEY_A, True)  # while it does not scan
    user.key(KEY_A, False)
    user.key(KEY_SHIFT, False)
    ask(0xF4)
    random = Random(3)
    for rates in ((), (200, 100, 80), (200, 200, 80)):
        ask(0xFF, mouse=True)
        for rate in rates:
            ask(0xF3, rate, mouse=True)
        ask(0xF4, mouse=True)
        for _ in range(12):
            buttons = random.getrandbits(5 if len(set(rates)) == 2 else 3)
            user.move(
                random.randrange(-120, 120), random.randrange(1, 120), random.randrange(-3, 4) if rates else 0, buttons
            )
            drain(bus)
            let_pass()
        user.move(1, 1, 0, 0)  # QEMU's status has no buttons
        drain(bus)
        let_pass()
        ask(0xE9, mouse=True)
        ask(0xF0, mouse=True)
        user.move(10, -20, 0, 1)
        ask(0xEB, mouse=True)
        ask(0xEA, mouse=True)


@pytest.mark.needs("qemu-system-x86_64")
def test_what_users_do_agrees_with_qemu(tmp_path: Path) -> None:
    (tmp_path / "bios").write_bytes((bytes(0xFFF0) + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\0"))  # cli; hlt; again
    words = ["-bios", f"{tmp_path}/bios", "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off"]
    with qemu(*X86, *words) as theirs:
        pc = Pc()
        ours = Ours(pc.machine)
        type_and_move(ours, pc.user, lambda: pc.machine.advance(10**8))
        with contextlib.closing(QemuUser(f"{tmp_path}/qmp")) as user:
            type_and_move(theirs, user, lambda: None)
        for number, (mine, other) in enumerate(zip(ours.log, theirs.log, strict=False)):
            assert mine == other, (number, mine, other, ours.log[number - 8 : number])
        assert len(ours.log) == len(theirs.log) > 2000


def test_bytes_come_one_at_a_time_with_their_interrupts() -> None:
    pc = Pc()
    pc.mode(0x47)
    edges: list[str] = []
    pc.i8042.irq.connect(lambda level: edges.append("key" if level else "-"))
    pc.i8042.mouse_irq.connect(lambda level: edges.append("mouse" if level else "-"))
    pc.mouse(0xF4)
    edges.clear()
    pc.user.key(KEY_UP, True)
    pc.user.move(1, 2)
    assert (pc.bus.inp(STATUS) & 0x21, pc.got()) == (1, bytes.fromhex("e048 2801fe"))
    assert edges == ["key", "-", "key", "-", "mouse", "-", "mouse", "-", "mouse", "-"]
    pc.bus.out(STATUS, 0xAD)
    pc.user.key(KEY_UP, False)
    pc.bus.out(STATUS, 0xA7)
    assert pc.got() == b""
    assert pc.machine.log.counts[GUEST_ERROR] == 0
    other = Pc()
    other.machine.restore(pc.machine.save())
    other.bus.out(STATUS, 0xAE)
    assert (other.got(), other.i8042.irq.level) == (b"\xe0\xc8", False)
    pc.mode(0x44)  # no interrupts
    pc.press(KEY_A)
    assert "key" not in edges[-2:]


def test_outputs_and_what_there_is_no_more() -> None:
    pc = Pc()
    levels = [pc.a20.level]
    pc.bus.out(STATUS, 0xDD)
    levels.append(pc.a20.level)
    assert levels == [True, False]
    pc.bus.out(0x92, 2)
    assert (pc.a20.level, pc.bus.inp(0x92)) == (True, 2)
    pc.bus.out(0x92, 0)
    pc.bus.out(STATUS, 0xD1)
    pc.bus.out(DATA, 0xCF)
    assert pc.a20.level
    assert pc.machine.power.take() is None
    for port, value in ((STATUS, 0xFE), (0x92, 3)):
        pc.bus.out(port, value)
        request = pc.machine.power.take()
        assert request is not None
        assert request.source == ("port92" if port == 0x92 else "i8042")
    pc.bus.out(0x92, 1)  # no edge
    pc.bus.out(STATUS, 0xFF)
    assert pc.machine.power.take() is None
    pc.bus.out(STATUS, 0x7F)
    pc.bus.out(DATA, 0x5A)
    pc.bus.out(STATUS, 0x3F)
    assert pc.got() == b"\x5a"
    pc.bus.out(STATUS, 0xB0)
    assert pc.machine.log.counts[UNIMPLEMENTED] == 1
    for _ in range(9):
        pc.bus.out(STATUS, 0xAA)
    assert pc.got() == b"\x55" * 5
    assert pc.machine.log.counts[GUEST_ERROR] == 4


def test_random_traffic() -> None:
    user = Input()

    def also(device: Device, random: Random) -> None:
        del device
        if random.random() < 0.5:
            user.key(random.randrange(-1, 300), random.random() < 0.6)
        else:
            user.move(
                random.randrange(-999, 999), random.randrange(-999, 999), random.randrange(-9, 9), random.getrandbits(8)
            )

    fuzz(
        lambda machine: I8042("i8042", machine, user=user if "i8042" not in machine.devices else None), 8042, also=also
    )
    fuzz(lambda machine: Port92("port92", machine), 92)
