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
from dbt.machine.devices.ps2_codes import EXTENDED, PLAIN, SET3, TRANSLATED, sequence
from dbt.machine.input import LEFT, RIGHT, SIDE, Input
from dbt.machine.lines import OrGate
from dbt.machine.log import GUEST_ERROR, UNIMPLEMENTED
from dbt.machine.machine import PORTS, Machine

from tests.machine.fuzzing import fuzz
from tests.machine.qtest import X86, Bus, Ours, agree, qemu

if TYPE_CHECKING:
    from dbt.machine.device import Device

DATA, STATUS = 0x60, 0x64
KEY_A, KEY_SHIFT, KEY_UP, KEY_PAUSE, KEY_F7 = 30, 42, 103, 119, 65


class Pc:
    """A machine with the controller and port 0x92, and what goes in and out."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.user = Input()
        self.i8042 = I8042("i8042", self.machine, user=self.user)
        gate = OrGate(self.i8042.a20)
        self.i8042.a20 = gate.input()
        self.a20 = gate.output
        self.port92 = Port92("port92", self.machine, gate.input())
        self.machine.place(self.i8042, DATA, PORTS, "DATA_PORT")
        self.machine.place(self.i8042, STATUS, PORTS, "COMMAND_PORT")
        self.machine.place(self.port92, 0x92, PORTS)
        self.machine.reset()
        self.bus = Ours(self.machine)

    def got(self) -> bytes:
        """All that waits; the mouse's and the keyboard's."""
        taken = bytearray()
        while self.bus.inp(STATUS) & 1:
            taken.append(self.bus.inp(DATA))
        return bytes(taken)

    def keyboard(self, *values: int) -> bytes:
        answers = b""
        for value in values:
            self.bus.out(DATA, value)
            answers += self.got()
        return answers

    def mouse(self, *values: int) -> bytes:
        answers = b""
        for value in values:
            self.bus.out(STATUS, 0xD4)
            self.bus.out(DATA, value)
            answers += self.got()
        return answers

    def mode(self, value: int) -> None:
        self.bus.out(STATUS, 0x60)
        self.bus.out(DATA, value)

    def press(self, *codes: int) -> bytes:
        for code in codes:
            self.user.key(code, True)
            self.user.key(code, False)
        return self.got()


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


def test_the_keyboard_repeats_what_is_held() -> None:
    pc = Pc()
    pc.mode(0x43)
    pc.user.key(KEY_A, True)
    assert pc.got() == b"\x1e"
    pc.user.key(KEY_A, True)  # the host's repetition
    pc.machine.advance(499_000_000)
    assert pc.got() == b""
    pc.machine.advance(1_000_000)
    assert pc.got() == b"\x1e"
    pc.machine.advance(1_000_000_000)
    assert len(pc.got()) == 10  # 10.9 a second
    pc.user.key(KEY_SHIFT, True)  # the last key is it
    pc.user.key(KEY_A, False)
    assert pc.got() == b"\x2a\x9e"
    pc.machine.advance(600_000_000)
    assert set(pc.got()) == {0x2A}
    other = Pc()
    other.machine.restore(pc.machine.save())
    other.machine.advance(100_000_000)
    assert other.got() == b"\x2a"
    pc.user.key(KEY_SHIFT, False)
    pc.got()
    assert pc.keyboard(0xF3, 0x00) == b"\xfa\xfa"  # 250 ms, 30 a second
    pc.user.key(KEY_A, True)
    pc.machine.advance(250_000_000)
    assert pc.got() == b"\x1e\x1e"
    pc.machine.advance(1_000_000_000)
    assert pc.got() == b"\x1e" * 16 + b"\xff"  # what is not taken fills the buffer, and is lost then
    pc.user.key(KEY_A, False)
    pc.got()
    pc.user.key(KEY_PAUSE, True)
    assert pc.got() == bytes.fromhex("e11d45e19dc5")
    pc.machine.advance(5_000_000_000)
    assert pc.got() == b""


def test_commands_of_the_keyboard() -> None:
    pc = Pc()
    pc.mode(0x03)
    assert pc.keyboard(0xF2) == b"\xfa\xab\x83"
    assert pc.keyboard(0xFE) == b"\x83"
    assert pc.keyboard(0xED, 0x05) == b"\xfa\xfa"
    assert pc.user.leds == 5
    assert pc.keyboard(0xED, 0xF4) == b"\xfa\xfa"  # a command instead of the LEDs
    assert pc.user.leds == 5
    assert pc.keyboard(0xF0, 3, 0xF0, 0) == b"\xfa\xfa\xfa\xfa\x03"
    assert pc.press(KEY_A, KEY_SHIFT, 59) == b"\x1c\x12\xf0\x12\x07"  # repeats, make and break, make only
    assert pc.keyboard(0xFC, 0x1C, 0x07, 0xF4) == b"\xfa\xfa\xfa\xfa"
    assert pc.press(KEY_A, 59) == b"\x1c\xf0\x1c\x07\xf0\x07"
    for command, sent in ((0xF9, b"\x1c"), (0xF8, b"\x1c\xf0\x1c"), (0xF7, b"\x1c"), (0xFA, b"\x1c\xf0\x1c")):
        assert pc.keyboard(command) == b"\xfa"
        assert pc.press(KEY_A) == sent
    assert pc.keyboard(0xF5) == b"\xfa"
    assert pc.press(KEY_A) == b""
    assert pc.keyboard(0xF0, 4) == b"\xfa\xfe"
    assert pc.keyboard(0x01) == b"\xfe"
    assert pc.keyboard(0xFF) == b"\xfa\xaa"
    assert (pc.user.leds, pc.press(KEY_F7)) == (0, b"\x83\xf0\x83")
    for _ in range(10):
        pc.user.key(KEY_PAUSE, True)
        pc.user.key(KEY_PAUSE, False)
    assert pc.got()[-1] == 0  # an overrun


def test_translation_is_the_tables() -> None:
    assert len(TRANSLATED) == 256
    for code in range(256):
        for down in (True, False):
            made, up = bytearray(), 0
            for value in sequence(2, code, down):
                if value == 0xF0:
                    up = 0x80
                else:
                    made.append(TRANSLATED[value] | up)
                    up = 0
            assert made == sequence(1, code, down)
    assert len(set(SET3.values())) == len(SET3)


def test_the_mouse_samples_and_scales() -> None:
    pc = Pc()
    pc.mode(0x03)
    assert pc.mouse(0xF3, 20, 0xF4) == b"\xfa" * 3
    pc.user.move(3, -300, 0, LEFT | RIGHT)
    assert pc.got() == bytes((0x0B, 3, 255))
    pc.user.move(1, 0, 0, LEFT | RIGHT)
    assert pc.got() == b""
    pc.machine.advance(50_000_000)
    assert pc.got() == bytes((0x0B, 1, 45))
    pc.machine.advance(50_000_000)
    assert pc.mouse(0xE7) == b"\xfa"
    pc.user.move(-4, 9)
    assert pc.got() == bytes((0x38, 0x100 - 6, 0x100 - 18))
    pc.machine.advance(50_000_000)
    pc.user.move(0, 0, 0, SIDE)  # a button that this mouse does not have
    assert pc.got() == b""
    assert pc.mouse(0xF0) == b"\xfa"
    pc.user.move(5, 5)
    assert pc.got() == b""
    assert pc.mouse(0xEB) == bytes((0xFA, 0x28, 5, 0xFB))
    pc.user.move(10**9, 0, 10**9)  # bounded
    assert pc.mouse(0xEB)[1:] == bytes((0x08, 255, 0))
    assert pc.mouse(0xE9) == bytes((0xFA, 0x70, 2, 20))
    assert pc.mouse(0xF3, 77, 0x01) == b"\xfa\xfa\xfe"
    assert pc.machine.log.counts[GUEST_ERROR] == 2


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
    fuzz(lambda machine: Port92("port92", machine), 92, 2000)
