# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal snapshots of a qcow2 image, as its own table has them (docs/interop/qcow2.txt of QEMU).

What an entry points at is not written to for as long as the entry is there: whoever changes the disk copies a cluster
that a snapshot has, and the tables above it, first. So an entry that is the same before and after a read, with its
place, its time and its id, proves the read, also while a VM runs on the image.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

from ..._errors import VmferryError

MAGIC = b"QFI\xfb"
TABLE = struct.Struct(">60xIQ")  # of the header: how many, and where
ENTRY = struct.Struct(">QIHHIIQII")
DISK_SIZE = struct.Struct(">8xQ")  # of an entry's extra data
LARGEST_TABLE = 64 << 20  # bytes; QEMU's own limit
MOST_SNAPSHOTS = 65536  # and this


@dataclass(frozen=True)
class InternalSnapshot:
    id: str
    name: str
    size: int  # bytes of the disk as it was; 0 where an old QEMU did not note it
    place: tuple[int, int]  # of its L1 table, and the entries in that
    taken: tuple[int, int, int]  # seconds and nanoseconds, and the guest's own clock


def internal_snapshots(image: str) -> list[InternalSnapshot]:
    """Raises `not_found`, `permission_denied`, or `invalid_config` for what is no such image."""
    try:
        with Path(image).open("rb") as file:
            return _read(file)
    except (struct.error, UnicodeDecodeError, EOFError) as error:
        raise VmferryError("invalid_config", f"The table of snapshots in {image} cannot be read.") from error
    except FileNotFoundError as error:
        raise VmferryError("not_found", f"{image} does not exist.") from error
    except OSError as error:
        raise VmferryError("permission_denied", f"{image} cannot be read: {error.strerror}.") from error


def _read(file: BinaryIO) -> list[InternalSnapshot]:
    header = file.read(TABLE.size)
    if header[:4] != MAGIC:
        raise EOFError
    count, offset = TABLE.unpack(header)
    if count > MOST_SNAPSHOTS or offset > file.seek(0, SEEK_END):
        raise EOFError
    file.seek(offset)
    found = []
    for _unused in range(count):
        found.append(_entry(file))
        if file.tell() - offset > LARGEST_TABLE:
            raise EOFError
    return found


def _entry(file: BinaryIO) -> InternalSnapshot:
    start = file.tell()
    fields = ENTRY.unpack(file.read(ENTRY.size))
    l1_offset, l1_entries, id_length, name_length, seconds, nanoseconds, clock, _memory, extra_length = fields
    if extra_length > LARGEST_TABLE:
        raise EOFError
    extra = file.read(extra_length)
    size = DISK_SIZE.unpack_from(extra)[0] if len(extra) >= DISK_SIZE.size else 0
    own_id, name = file.read(id_length).decode(), file.read(name_length).decode()
    file.seek(start + -(-(file.tell() - start) // 8) * 8)
    return InternalSnapshot(own_id, name, size, (l1_offset, l1_entries), (seconds, nanoseconds, clock))
