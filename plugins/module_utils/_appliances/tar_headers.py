# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of a tar archive: POSIX ustar and pax (IEEE Std 1003.1, `pax`, "ustar Interchange Format"), and GNU's numbers
of more than 33 bits. An OVA is ustar (DSP0243, 5.3); larger members need one of the other two.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Dict, Optional

from .refusals import quoted, refused

BLOCK = 512
LARGEST_OCTAL = (1 << 33) - 1  # bytes; what twelve characters have room for
LARGEST = 1 << 60
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,19}")
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_MAGIC = b"ustar"
# What says nothing about where a member's bytes lie or whose they are. `path` and `size` are looked at.
_HARMLESS = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "path", "size"}


@dataclass(frozen=True)
class Header:
    """`kind`: one character; regular files have `0` or NUL."""

    name: str
    size: int
    kind: str


def unpack(block: bytes, where: str) -> Optional[Header]:
    """None for a block of zeros, which ends an archive. Raises `invalid_config`."""
    if not any(block):
        return None
    (
        name, _mode, _uid, _gid, size, _mtime, checksum, kind, _link, magic, version, _user, _group, _major, _minor,
        prefix,
    ) = _HEADER.unpack(block)  # fmt: skip
    if magic[:5] != _MAGIC:
        raise refused(where, "is no tar archive as an appliance is one")
    if _number(checksum, where) != _sum(block):
        raise refused(where, "has a damaged header")
    whole = _text(name, where)
    if magic == b"ustar\0" and version == b"00" and prefix[:1] != b"\0":
        whole = f"{_text(prefix, where)}/{whole}"
    return Header(whole, _number(size, where), kind.decode("latin-1"))


def pack(name: str, size: int, modified: int) -> bytes:
    """Of a regular file, ustar; a size of more than 8 GiB as GNU tar, VMware and VirtualBox write and read it."""
    encoded = name.encode("ascii")
    if len(encoded) > 100:
        raise refused(quoted(name), "is too long for the name of a member")
    length = b"%011o\0" % size if size <= LARGEST_OCTAL else b"\x80" + size.to_bytes(11, "big")
    block = bytearray(
        _HEADER.pack(
            encoded, b"0000644\0", b"0000000\0", b"0000000\0", length, b"%011o\0" % modified, b" " * 8, b"0", b"",
            b"ustar\0", b"00", b"root", b"root", b"0000000\0", b"0000000\0", b"",
        )
    )  # fmt: skip
    block[_CHECKSUM] = b"%06o\0 " % _sum(block)
    return bytes(block)


def padding(size: int) -> int:
    """Bytes of zeros behind a member."""
    return -size % BLOCK


def pax_records(data: bytes, where: str) -> Dict[str, str]:
    """Raises `invalid_config` for what would hide or move a member's bytes, and for what no tool agrees on."""
    found: Dict[str, str] = {}
    at = 0
    while at < len(data):
        length = _RECORD.match(data, at)
        end = at + int(length[1]) if length is not None else 0
        if length is None or end > len(data) or end <= length.end() or data[end - 1 : end] != b"\n":
            raise refused(where, "has a damaged extended header")
        key, equals, value = data[length.end() : end - 1].partition(b"=")
        name = _text(key, where)
        if not equals or name not in _HARMLESS:
            raise refused(where, f"has the extended header {quoted(name)}, which no appliance needs")
        if name in found:
            raise refused(where, f"has the extended header {quoted(name)} twice for one member")
        found[name] = "" if name == "comment" else _text(value, where)
        at = end
    return found


def with_records(header: Header, records: Dict[str, str], where: str) -> Header:
    """A size that is in both has to be one number, unless the header has no room for it."""
    size = header.size
    if "size" in records:
        if not _DECIMAL.fullmatch(records["size"].encode()):
            raise refused(where, "has a member with a size that is no number")
        size = int(records["size"])
        if size > LARGEST or (size != header.size and size <= LARGEST_OCTAL):
            raise refused(where, f"has two sizes for the member {quoted(header.name)}")
    return Header(records.get("path", header.name), size, header.kind)


def _sum(block: bytes | bytearray) -> int:
    return sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")


def _number(field: bytes, where: str) -> int:
    if field[0] == 0x80:
        number = int.from_bytes(field[1:], "big")
    else:
        octal = _OCTAL.fullmatch(field)
        if octal is None:
            raise refused(where, "has a header with a number that is none")
        number = int(octal[1], 8)
    if number > LARGEST:
        raise refused(where, "has a member that is larger than any disk")
    return number


def _text(field: bytes, where: str) -> str:
    text, nul, rest = field.partition(b"\0")
    if nul and any(rest):
        raise refused(where, "has a header with bytes behind the end of a text")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(where, "has a name that is not UTF-8") from error
