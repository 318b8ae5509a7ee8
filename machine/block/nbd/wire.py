"""Numbers and messages of NBD, with the names of doc/proto.md. Everything is big-endian."""

from __future__ import annotations

import errno
import struct

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

GREETING = struct.Struct(">QQH")  # NBDMAGIC, IHAVEOPT, handshake flags
OPTION = struct.Struct(">QII")  # IHAVEOPT, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, reply type, length
EXPORT = struct.Struct(">QH")  # size, transmission flags
REQUEST = struct.Struct(">IHHQQI")  # magic, flags, type, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
CHUNK = struct.Struct(">IHHQI")  # magic, flags, type, cookie, length

# Handshake flags, of both sides.
FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1, 2

# Transmission flags.
FLAG_HAS_FLAGS, FLAG_READ_ONLY, FLAG_SEND_FLUSH, FLAG_SEND_FUA = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES, FLAG_SEND_DF = 1 << 5, 1 << 6, 1 << 7
FLAG_CAN_MULTI_CONN, FLAG_SEND_FAST_ZERO = 1 << 8, 1 << 11

# Options and the replies to them.
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY = 1, 2, 3, 5, 6, 7, 8
OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT = 9, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
REP_ERR_UNSUP, REP_ERR_POLICY, REP_ERR_INVALID, REP_ERR_PLATFORM, REP_ERR_TLS_REQD, REP_ERR_UNKNOWN = (
    (1 << 31) + n for n in range(1, 7)
)  # fmt: skip
REP_ERR_TOO_BIG = (1 << 31) + 9
REPLIES = {
    REP_ERR_UNSUP: "it does not know this option", REP_ERR_POLICY: "its policy forbids it",
    REP_ERR_INVALID: "it finds the request invalid", REP_ERR_PLATFORM: "it cannot do that on its platform",
    REP_ERR_TLS_REQD: "it requires TLS", REP_ERR_UNKNOWN: "it has no export of that name",
    REP_ERR_TOO_BIG: "the request is too large for it",
}  # fmt: skip
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

# Requests.
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = range(8)
CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_DF, CMD_FLAG_REQ_ONE, CMD_FLAG_FAST_ZERO = (1 << n for n in range(5))

# Chunks of structured replies.
REPLY_FLAG_DONE = 1
REPLY_NONE, REPLY_OFFSET_DATA, REPLY_OFFSET_HOLE, REPLY_BLOCK_STATUS = 0, 1, 2, 5
REPLY_ERROR, REPLY_ERROR_OFFSET = (1 << 15) + 1, (1 << 15) + 2

BASE_ALLOCATION = b"base:allocation"
STATE_HOLE, STATE_ZERO = 1, 2

MAX_STRING = 4096  # "a string MUST NOT be longer than 4096 bytes"
MAX_PAYLOAD = 32 << 20  # of a read or write: what every peer takes

# Errors have numbers of their own: those of Linux, of which few are allowed.
ERRORS = {
    errno.EPERM: 1, errno.EIO: 5, errno.ENOMEM: 12, errno.EINVAL: 22, errno.ENOSPC: 28, errno.EOVERFLOW: 75,
    errno.ENOTSUP: 95, errno.ESHUTDOWN: 108, errno.EROFS: 1, errno.EACCES: 1, errno.EDQUOT: 28, errno.EFBIG: 28,
}  # fmt: skip
HOST_ERRORS = {
    1: errno.EPERM, 5: errno.EIO, 12: errno.ENOMEM, 22: errno.EINVAL, 28: errno.ENOSPC, 75: errno.EOVERFLOW,
    95: errno.ENOTSUP, 108: errno.ESHUTDOWN,
}  # fmt: skip


def string(text: bytes) -> bytes:
    """A string with its length in front."""
    return struct.pack(">I", len(text)) + text
