# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is encrypted on its way to the place that it was given, and digested as it is stored."""

from __future__ import annotations

from hashlib import sha256
from threading import local
from typing import Iterator, Tuple

from .._blocks import LEAF, Cipher
from .open_parts import DIGEST_SIZE, Placement

AT_ONCE = 512 * 1024  # bytes, where there is no buffer of a part to encrypt into
_OWN = local()  # each thread's room for them: new memory for each placement would cost as much as digesting it


def encrypted(place: Placement, cipher: Cipher) -> Iterator[Tuple[int, memoryview]]:
    """Into the piece's buffer, if it has one. Otherwise what it yields, with its offset in the object, has to be
    written before the next one is asked for. The digests of what is stored are filled in in either case.
    """
    piece, data, part = place.piece, place.data, place.piece.owner
    offset = part.part.offset + piece.at + place.at
    if piece.buffer is not None:
        stored = memoryview(piece.buffer)[place.at : place.at + len(data)]
        cipher.encrypt(offset, data, stored)
        fill_in(part.blocks, place.block, stored)
        return
    room = _room()
    for at in range(0, len(data), AT_ONCE):
        stored = room[: len(data) - at]
        cipher.encrypt(offset + at, data[at : at + len(stored)], stored)
        fill_in(part.blocks, place.block + at // LEAF, stored)
        yield offset + at, stored


def _room() -> memoryview:
    room: memoryview | None = getattr(_OWN, "room", None)
    if room is None:
        room = _OWN.room = memoryview(bytearray(AT_ONCE))
    return room


def fill_in(blocks: bytearray, first: int, stored: memoryview) -> None:
    """The digests of a part's blocks from number `first` on."""
    digests = b"".join(sha256(stored[at : at + LEAF]).digest() for at in range(0, len(stored), LEAF))
    blocks[first * DIGEST_SIZE : first * DIGEST_SIZE + len(digests)] = digests
