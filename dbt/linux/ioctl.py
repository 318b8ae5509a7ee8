"""ioctl, by list: a request that is not here might hold pointers, so it is answered with ENOTTY and named once.

Numbers are those of asm-generic/ioctls.h, which both sides use, and of the headers named below; the size is that of
the struct behind the third argument, 0 for a plain number.
"""

from __future__ import annotations

from .abi import ENOTTY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .process import Process

_HOST_IOCTL = 16
_TERMIOS, _TERMIOS2, _TERMIO, _WINSIZE, _INT, _IFREQ = 36, 44, 18, 8, 4, 40

_SIZES = {
    0x5401: _TERMIOS, 0x5402: _TERMIOS, 0x5403: _TERMIOS, 0x5404: _TERMIOS,  # TCGETS TCSETS TCSETSW TCSETSF
    0x5405: _TERMIO, 0x5406: _TERMIO, 0x5407: _TERMIO, 0x5408: _TERMIO,  # TCGETA TCSETA TCSETAW TCSETAF
    0x5409: 0, 0x540A: 0, 0x540B: 0,  # TCSBRK TCXONC TCFLSH
    0x540C: 0, 0x540D: 0, 0x540E: 0,  # TIOCEXCL TIOCNXCL TIOCSCTTY
    0x540F: _INT, 0x5410: _INT, 0x5411: _INT, 0x5412: 1,  # TIOCGPGRP TIOCSPGRP TIOCOUTQ TIOCSTI
    0x5413: _WINSIZE, 0x5414: _WINSIZE,  # TIOCGWINSZ TIOCSWINSZ
    0x5415: _INT, 0x5416: _INT, 0x5417: _INT, 0x5418: _INT, 0x5419: _INT, 0x541A: _INT,  # TIOCM... TIOCGSOFTCAR ...
    0x541B: _INT, 0x5420: _INT, 0x5421: _INT, 0x5422: 0, 0x5423: _INT, 0x5424: _INT,  # FIONREAD TIOCPKT FIONBIO ...
    0x5425: 0, 0x5427: 0, 0x5428: 0, 0x5429: _INT,  # TCSBRKP TIOCSBRK TIOCCBRK TIOCGSID
    0x802C542A: _TERMIOS2, 0x402C542B: _TERMIOS2, 0x402C542C: _TERMIOS2, 0x402C542D: _TERMIOS2,  # TCGETS2 ...
    0x80045430: _INT, 0x40045431: _INT, 0x80045432: _INT, 0x5441: 0,  # TIOCGPTN TIOCSPTLCK TIOCGDEV TIOCGPTPEER
    0x80045438: _INT, 0x80045439: _INT, 0x80045440: _INT,  # TIOCGPKT TIOCGPTLCK TIOCGEXCL
    0x5450: 0, 0x5451: 0, 0x5452: _INT, 0x5460: 8,  # FIONCLEX FIOCLEX FIOASYNC FIOQSIZE
    # linux/fs.h
    0x125D: _INT, 0x125E: _INT, 0x1260: 8, 0x1261: 0, 0x1268: _INT, 0x80081272: 8, 0x80041270: _INT, 0x127B: _INT,
    0x40049409: 0, 0x80086601: 8, 0x40086602: 8, 0x80087601: 8, 0x801C581F: 28, 0x401C5820: 28,
    0xC0045877: 0, 0xC0045878: 0,
    # linux/sockios.h with struct ifreq of which nothing is a pointer for these
    0x8901: _INT, 0x8902: _INT, 0x8903: _INT, 0x8904: _INT, 0x8905: _INT, 0x8906: 16, 0x8907: 16, 0x8910: _IFREQ,
    0x8913: _IFREQ, 0x8914: _IFREQ, 0x8915: _IFREQ, 0x8916: _IFREQ, 0x8917: _IFREQ, 0x8918: _IFREQ, 0x8919: _IFREQ,
    0x891A: _IFREQ, 0x891B: _IFREQ, 0x891C: _IFREQ, 0x891D: _IFREQ, 0x891E: _IFREQ, 0x8921: _IFREQ, 0x8922: _IFREQ,
    0x8927: _IFREQ, 0x8933: _IFREQ, 0x8942: _IFREQ, 0x8943: _IFREQ,
    # linux/random.h, linux/rtc.h, linux/vt.h, linux/kd.h
    0x80045200: _INT, 0x80247009: 36, 0x5600: _INT, 0x5603: 6, 0x5605: 0, 0x5606: 0, 0x5607: 0,
    0x4B2F: 0, 0x4B30: 0, 0x4B31: 1, 0x4B32: 0, 0x4B33: 1, 0x4B3A: 0, 0x4B3B: _INT, 0x4B44: _INT, 0x4B45: 0,
}  # fmt: skip


def sys_ioctl(process: Process, fd: int, request: int, argument: int, *_: int) -> int:
    """Control a device."""
    number, request = process.descriptor(fd), request & 0xFFFFFFFF
    size = _SIZES.get(request)
    if size is None:
        process.missing_feature(f"ioctl {request:#x} is not implemented: ENOTTY")
        return -ENOTTY
    if request == 0x40049409 and argument & 0xFFFFFFFF >= process.fd_limit:
        return -9
    return int(process.wait(_HOST_IOCTL, number, request, process.pointer(argument, size) if size else argument))
