# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reading an encrypted qcow2 image takes: its LUKS header, and whole sectors where some bytes are asked for."""

from __future__ import annotations

from typing import Callable

from ..._errors import VmferryError
from ..luks import HEADER_SIZE, holds, unlock
from ..xts import SECTOR, SectorCipher
from .format import BACKING_FORMAT, CLUSTER, CRYPTO_HEADER, CRYPTO_PLACE, EXTENSION, HEADER

ReadAt = Callable[[int, memoryview], None]


def open_cipher(read_at: ReadAt, file_size: int, key: bytes) -> SectorCipher:
    """Raises `invalid_config` for an image whose header is none of ours, or of another key."""
    if not holds(_crypto_header(read_at, file_size), key):
        raise _lie("is encrypted with another key than its manifest says")
    return SectorCipher(key)


def open_with_passphrase(read_at: ReadAt, file_size: int, passphrase: bytes) -> bytes:
    """The image's key, as QEMU finds it."""
    return unlock(_crypto_header(read_at, file_size), passphrase)


def read_decrypted(read_at: ReadAt, cipher: SectorCipher, place: int, into: memoryview) -> None:
    start, end = place // SECTOR * SECTOR, -(-(place + len(into)) // SECTOR) * SECTOR
    if (start, end) == (place, place + len(into)):
        read_at(place, into)
        cipher.decrypt(place, into, into)
        return
    sectors = memoryview(bytearray(end - start))
    read_at(start, sectors)
    cipher.decrypt(start, sectors, sectors)
    into[:] = sectors[place - start : place - start + len(into)]


def _crypto_header(read_at: ReadAt, file_size: int) -> bytes:
    if file_size < CLUSTER:
        raise _lie("is too short for a header")
    head = bytearray(CLUSTER)
    read_at(0, memoryview(head))
    at = HEADER.size
    kind, length = EXTENSION.unpack_from(head, at)
    if kind == BACKING_FORMAT and length <= 8:
        at += EXTENSION.size + 8
        kind, length = EXTENSION.unpack_from(head, at)
    if kind != CRYPTO_HEADER or length != CRYPTO_PLACE.size:
        raise _lie("does not say where its LUKS header is")
    offset, size = CRYPTO_PLACE.unpack_from(head, at + EXTENSION.size)
    if size != HEADER_SIZE or offset % CLUSTER or not CLUSTER <= offset <= file_size - size:
        raise _lie("has its LUKS header in another place, or of another size, than is ever written")
    found = bytearray(size)
    read_at(offset, memoryview(found))
    return bytes(found)


def _lie(what: str) -> VmferryError:
    return VmferryError("invalid_config", f"An image {what}.", "It was damaged, or it is not an export of ours.")
