"""What PS/2 keyboards send: scan codes of sets 1, 2 and 3 for Linux's key codes (IBM PS/2 technical reference).

Set 2 follows from set 1 by the 8042's table; set 3 is a list of its own, with what keys do there after a reset.
"""

from __future__ import annotations

# What the 8042 makes of what the keyboard sends in set 2; from 0x85 on bytes are themselves.
TRANSLATED = bytes.fromhex(
    """
    ff 43 41 3f 3d 3b 3c 58 64 44 42 40 3e 0f 29 59
    65 38 2a 70 1d 10 02 5a 66 71 2c 1f 1e 11 03 5b
    67 2e 2d 20 12 05 04 5c 68 39 2f 21 14 13 06 5d
    69 31 30 23 22 15 07 5e 6a 72 32 24 16 08 09 5f
    6b 33 25 17 18 0b 0a 60 6c 34 35 26 27 19 0c 61
    6d 73 28 74 1a 0d 62 6e 3a 36 1c 1b 75 2b 63 76
    55 56 77 78 79 7a 0e 7b 7c 4f 7d 4b 47 7e 7f 6f
    52 53 50 4c 4d 48 01 45 57 4e 51 4a 37 49 46 54
    80 81 82 41 54
    """
) + bytes(range(0x85, 0x100))
BACK = {made: sent for sent, made in enumerate(TRANSLATED) if sent not in {0x02, 0x7F}}  # 0x83 and 0x84 are F7, SysRq

PRINT, PAUSE, KEYS = 99, 119, 256
PLAIN = {**{code: code for code in range(1, 89) if code not in {84, 85}}, 89: 0x73, 92: 0x79, 93: 0x70, 94: 0x7B,
         117: 0x59, 121: 0x7E, 124: 0x7D}  # fmt: skip
EXTENDED = {
    96: 0x1C, 97: 0x1D, 98: 0x35, 99: 0x37, 100: 0x38, 102: 0x47, 103: 0x48, 104: 0x49, 105: 0x4B, 106: 0x4D, 107: 0x4F,
    108: 0x50, 109: 0x51, 110: 0x52, 111: 0x53, 113: 0x20, 114: 0x2E, 115: 0x30, 116: 0x5E, 125: 0x5B, 126: 0x5C,
    127: 0x5D, 140: 0x21, 142: 0x5F, 143: 0x63, 155: 0x6C, 156: 0x66, 157: 0x6B, 158: 0x6A, 159: 0x69, 163: 0x19,
    164: 0x22, 165: 0x10, 166: 0x24, 172: 0x32, 173: 0x67, 217: 0x65, 226: 0x6D,
}  # fmt: skip

# Set 3, in the order of Linux's codes: 1 is escape.
SET3 = dict(enumerate(bytes.fromhex(
    "08161e26252e363d3e46454e5566" "0d151d242d2c353c43444d545b5a" "111c1b232b34333b424b4c520e"
    "125c1a22212a32313a41494a59" "7e192914" "070f171f272f373f474f" "765f" "6c757d84" "6b73747c" "69727a" "7071"
), 1)) | {
    86: 0x13, 87: 0x56, 88: 0x5E, 96: 0x79, 97: 0x58, 98: 0x77, 99: 0x57, 100: 0x39, 102: 0x6E, 103: 0x63, 104: 0x6F,
    105: 0x61, 106: 0x6A, 107: 0x65, 108: 0x60, 109: 0x6D, 110: 0x67, 111: 0x64, 119: 0x62, 125: 0x8B, 126: 0x8C,
    127: 0x8D,
}  # fmt: skip
BREAK, REPEAT = 1, 2  # what a key of set 3 does besides its make code
SENT_UP = (58, 42, 54, 29, 56)  # capital lock, shifts, control, alternate: make and break after a reset
ONCE = (*range(59, 70), 70, *range(71, 78), *range(79, 84), 55, 74, 87, 88, 96, 97, 98, 99, 100, 102, 104, 107, 109,
        110, 119, 125, 126, 127, 1)  # fmt: skip
DEFAULT3 = {
    code: BREAK if key in SENT_UP else 0 if key in ONCE else REPEAT for key, code in SET3.items()
}  # fmt: skip


def prefixed(scan_set: int, code: int) -> tuple[bool, int] | None:
    """(whether 0xE0 stands before it, make code) of a key in set 1 or 2; None if there is no such key."""
    extended = code in EXTENDED
    made = EXTENDED.get(code, PLAIN.get(code))
    if made is None:
        return None
    return extended, made if scan_set == 1 else BACK[made]


def sequence(scan_set: int, code: int, down: bool) -> bytes:
    """What a key sends in set 1 or 2; nothing if there is no such key."""
    if code == PAUSE:  # make and break at once
        return bytes.fromhex("e11d45e19dc5" if scan_set == 1 else "e11477e1f014f077") if down else b""
    found = prefixed(scan_set, code)
    if found is None:
        return b""
    extended, made = found
    keys = [made]
    if code == PRINT:  # with a shift around it
        shift = 0x2A if scan_set == 1 else 0x12
        keys = [shift, made] if down else [made, shift]
    prefix = b"\xe0" if extended else b""
    if scan_set == 1:
        return b"".join(prefix + bytes([key if down else key | 0x80]) for key in keys)
    return b"".join(prefix + (b"" if down else b"\xf0") + bytes([key]) for key in keys)
