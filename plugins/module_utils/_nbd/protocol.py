# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of the NBD protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md"""

from __future__ import annotations

import errno
import struct

from .._errors import Kind

MAGIC = b"NBDMAGIC"
NEWSTYLE = 0x49484156454F5054  # IHAVEOPT
OPTION_REPLY = 0x3E889045565A9
SIMPLE_REPLY, STRUCTURED_REPLY, REQUEST = 0x67446698, 0x668E33EF, 0x25609513
FIXED_NEWSTYLE, NO_ZEROES = 1, 2

OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT = 2, 3, 5, 7, 8, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 2, 3, 4, 1 << 31
REP_ERR_POLICY, REP_ERR_TLS_REQD, REP_ERR_UNKNOWN = REP_ERROR | 2, REP_ERROR | 5, REP_ERROR | 6
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3

READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 6, 7
NO_HOLE = 1 << 1  # command flag of WRITE_ZEROES
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERROR, CHUNK_DONE = 0, 1, 2, 5, 1 << 15, 1

READ_ONLY, CAN_FLUSH, CAN_TRIM, CAN_WRITE_ZEROES, CAN_MULTI_CONN = 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 8

HANDSHAKE = struct.Struct(">8sQH")
OPTION_HEADER = struct.Struct(">QII")
OPTION_REPLY_HEADER = struct.Struct(">QIII")
REQUEST_HEADER = struct.Struct(">IHHQQI")
REPLY_HEADER = struct.Struct(">IHHQ")  # a simple reply's error is where a structured one's flags and type are
LONGEST_OPTION_REPLY = 1 << 20  # bytes; what a handshake may make us hold
LONGEST_STATUS_REPLY = 64 << 20

KINDS: dict[int, Kind] = {
    errno.EPERM: "permission_denied",
    errno.EIO: "internal",
    errno.ENOMEM: "internal",
    errno.EINVAL: "internal",
    errno.ENOSPC: "no_space",
    errno.EOVERFLOW: "internal",
    errno.ENOTSUP: "unsupported",
    errno.ESHUTDOWN: "network",
}
