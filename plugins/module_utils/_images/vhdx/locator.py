# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a differencing VHDX says of the image that it stands on: [MS-VHDX] 2.6.2.6, Parent Locator."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Dict, Optional, Tuple
from uuid import UUID

_HEADER, _ENTRY = struct.Struct("<16s2xH"), struct.Struct("<IIHH")
_OF_VHDX = UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le
_LINKAGES, _PATHS = ("parent_linkage", "parent_linkage2"), ("relative_path", "absolute_win32_path", "volume_path")
MOST_ENTRIES = 64


@dataclass(frozen=True)
class ParentLocator:
    """`data_ids`: one of them is the parent's as long as nobody wrote to it. `names`: of its file, without the folders
    of where it was made.
    """

    data_ids: Tuple[bytes, ...]
    names: Tuple[str, ...]


def pack_locator(name: str, data_id: bytes) -> bytes:
    """Of a parent that lies beside the image under this name, as long as its `data_id` is this one."""
    texts = {_LINKAGES[0]: f"{{{UUID(bytes_le=data_id)}}}", _PATHS[0]: f".\\{name}"}
    table, contents = _HEADER.pack(_OF_VHDX, len(texts)), b""
    start = _HEADER.size + len(texts) * _ENTRY.size
    for key, value in texts.items():
        one, other = key.encode("utf-16-le"), value.encode("utf-16-le")
        at = start + len(contents)
        table += _ENTRY.pack(at, at + len(one), len(one), len(other))
        contents += one + other
    return table + contents


def unpack_locator(data: bytes) -> Optional[ParentLocator]:
    """None where that is none, or says nothing by which the parent can be found and known."""
    if len(data) < _HEADER.size:
        return None
    kind, count = _HEADER.unpack_from(data)
    if kind != _OF_VHDX or count > MOST_ENTRIES or len(data) < _HEADER.size + count * _ENTRY.size:
        return None
    found: Dict[str, str] = {}
    try:
        for number in range(count):
            key_at, value_at, key_length, value_length = _ENTRY.unpack_from(data, _HEADER.size + number * _ENTRY.size)
            found[_text(data, key_at, key_length)] = _text(data, value_at, value_length)
        linked = tuple(UUID(found[name]).bytes_le for name in _LINKAGES if name in found)
    except ValueError:
        return None
    names = tuple(dict.fromkeys(re.split(r"[\\/]", found[path])[-1] for path in _PATHS if path in found))
    return ParentLocator(linked, names) if linked and names else None


def _text(data: bytes, offset: int, length: int) -> str:
    """Raises ValueError."""
    if offset + length > len(data):
        raise ValueError("a text that lies outside")
    return data[offset : offset + length].decode("utf-16-le")
