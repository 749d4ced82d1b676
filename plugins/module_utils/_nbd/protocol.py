# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and layouts of the NBD protocol, under the names its specification gives them.

https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md ; everything is big-endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

DEFAULT_PORT = 10809

# Handshake
INIT_MAGIC = 0x4E42444D41474943  # NBDMAGIC
OLDSTYLE_MAGIC = 0x0000420281861253
OPTION_MAGIC = 0x49484156454F5054  # IHAVEOPT
OPTION_REPLY_MAGIC = 0x0003E889045565A9
GREETING = Struct(">QQH")  # INIT_MAGIC, OPTION_MAGIC, handshake flags
OPTION = Struct(">QII")  # OPTION_MAGIC, option, length of its data
OPTION_REPLY = Struct(">QIII")  # OPTION_REPLY_MAGIC, option, type, length of its data
EXPORT_NAME_REPLY = Struct(">QH")  # size, transmission flags
EXPORT_NAME_PADDING = 124
UINT16 = Struct(">H")
UINT32 = Struct(">I")
INFO_EXPORT = Struct(">QH")
INFO_BLOCK_SIZE = Struct(">III")
MAX_STRING = 4096
MAX_OPTION_REPLY = 65536  # more than any reply needs: two strings and a few numbers

MAX_OPTION_REPLIES = 65536  # a server that lists more exports than this does not want to be understood

# Transmission
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
REQUEST = Struct(">IHHQQI")  # REQUEST_MAGIC, flags, command, cookie, offset, length
SIMPLE_REPLY = Struct(">IIQ")  # SIMPLE_REPLY_MAGIC, error, cookie
CHUNK = Struct(">IHHQ")  # STRUCTURED_REPLY_MAGIC, flags, type, cookie; the length of the payload follows
CHUNK_DATA = Struct(">IQ")  # length of the payload, offset; the data follows
CHUNK_HOLE = Struct(">IQI")  # length of the payload, offset, length of the hole
CHUNK_ERROR = Struct(">IH")  # error, length of the message that follows
BLOCK_DESCRIPTOR = Struct(">II")  # length, status flags
MAX_ERROR_PAYLOAD = CHUNK_ERROR.size + MAX_STRING + 8
MAX_STATUS_PAYLOAD = 4 + 8 * 2**20
MAX_STATUS_REQUEST = 0xFFFF0000  # bytes; the most that 32 bits hold and every block size divides

# Size constraints where a server names none
DEFAULT_MIN_BLOCK = 1
DEFAULT_MAX_PAYLOAD = 32 * 1024 * 1024

BASE_ALLOCATION = "base:allocation"
STATE_ZERO = 2  # of base:allocation


class HandshakeFlag(IntFlag):
    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(IntEnum):
    """Types of option replies; those with bit 31 are errors."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 2**31 + 1
    ERR_POLICY = 2**31 + 2
    ERR_INVALID = 2**31 + 3
    ERR_PLATFORM = 2**31 + 4
    ERR_TLS_REQD = 2**31 + 5
    ERR_UNKNOWN = 2**31 + 6
    ERR_SHUTDOWN = 2**31 + 7
    ERR_BLOCK_SIZE_REQD = 2**31 + 8
    ERR_TOO_BIG = 2**31 + 9


REPLY_IS_ERROR = 1 << 31


class Info(IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


NO_FLAGS = 0
FLAG_NO_HOLE = 1 << 1  # on WRITE_ZEROES
FLAG_DONE = 1 << 0  # on a chunk: the last one of its reply


class Chunk(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5


CHUNK_IS_ERROR = 1 << 15


class Errno(IntEnum):
    """The protocol's own numbers: they need not be those of this system's `errno`."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108
