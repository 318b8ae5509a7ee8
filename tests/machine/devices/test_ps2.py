"""PS/2 keyboard and mouse behind the controller: what IBM's technical reference says of them."""

from __future__ import annotations

from dbt.machine.devices.ps2_codes import SET3, TRANSLATED, sequence
from dbt.machine.input import LEFT, RIGHT, SIDE
from dbt.machine.log import GUEST_ERROR

from tests.machine.i8042 import KEY_A, KEY_F7, KEY_PAUSE, KEY_SHIFT, Pc


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
