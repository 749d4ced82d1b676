# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A LUKS1 header, by which QEMU finds an image's key with a passphrase.

https://gitlab.com/cryptsetup/cryptsetup/-/wikis/LUKS-standard/on-disk-format.pdf. One slot of the eight has a key. The
other seven have places of their own, as QEMU insists on, of which nothing is stored.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from hashlib import pbkdf2_hmac, sha256, shake_256
from typing import Iterator, Optional
from uuid import UUID

from .._errors import VmferryError
from .xts import KEY_SIZE, SECTOR, SectorCipher

ITERATIONS = 600_000  # of PBKDF2-HMAC-SHA-256: OWASP's Password Storage Cheat Sheet
_DIGEST_ITERATIONS = 1000  # the least that LUKS allows; nobody guesses a random key
_MAGIC, _VERSION = b"LUKS\xba\xbe", 1
_CIPHER, _MODE, _HASH = b"aes", b"xts-plain64", b"sha256"
_HEADER = struct.Struct(">6sH32s32s32sII20s32sI40s")
_SLOT = struct.Struct(">II32sII")
_SLOTS, _ACTIVE, _INACTIVE = 8, 0x00AC71F3, 0x0000DEAD
_DIGEST_SIZE, _SALT_SIZE, _STRIPES = 20, 32, 4000
_FIRST_MATERIAL = 4096 // SECTOR  # sectors
_MATERIAL = KEY_SIZE * _STRIPES  # bytes of a slot
_STEP = -(-_MATERIAL // 4096) * 4096 // SECTOR  # sectors from one slot to the next
_PAYLOAD = _FIRST_MATERIAL + _SLOTS * _STEP
HEADER_SIZE = _FIRST_MATERIAL * SECTOR + _MATERIAL  # bytes, up to the end of the one slot in use


def make_header(key: bytes, passphrase: bytes, iterations: Optional[int] = None) -> bytes:
    """Always the same for the same key and passphrase, so that an export that is gone on with ends in the same image.

    So what LUKS wants to be random comes out of the key, which is as good for whoever has not got it.
    """
    iterations = iterations or ITERATIONS
    digest_salt, slot_salt = (_drawn(key, label, _SALT_SIZE) for label in (b"digest salt", b"slot salt"))
    uuid = str(UUID(bytes=_drawn(key, b"uuid", 16), version=4)).encode()
    header = bytearray(HEADER_SIZE)
    digest = pbkdf2_hmac("sha256", key, digest_salt, _DIGEST_ITERATIONS, _DIGEST_SIZE)
    _HEADER.pack_into(
        header, 0, _MAGIC, _VERSION, _CIPHER, _MODE, _HASH, _PAYLOAD, KEY_SIZE, digest, digest_salt,
        _DIGEST_ITERATIONS, uuid,
    )  # fmt: skip
    for number in range(_SLOTS):
        state = (_INACTIVE, 0, bytes(_SALT_SIZE)) if number else (_ACTIVE, iterations, slot_salt)
        place = _FIRST_MATERIAL + number * _STEP
        _SLOT.pack_into(header, _HEADER.size + number * _SLOT.size, *state, place, _STRIPES)
    material = memoryview(header)[_FIRST_MATERIAL * SECTOR :]
    material[:] = _split(key)
    slot_key = _slot_key(passphrase, slot_salt, iterations)
    SectorCipher(slot_key).encrypt(0, material, material)
    return bytes(header)


def holds(header: bytes, key: bytes) -> bool:
    """Whether this is the header of an image with that key."""
    return _Read.of(header).is_of(key)


def unlock(header: bytes, passphrase: bytes) -> bytes:
    """The image's key. Raises `unauthenticated` for another passphrase, `invalid_config` for no header of ours."""
    found = _Read.of(header)
    slot_key = _slot_key(passphrase, found.slot_salt, found.iterations)
    material = memoryview(bytearray(header[_FIRST_MATERIAL * SECTOR : HEADER_SIZE]))
    if slot_key[: KEY_SIZE // 2] != slot_key[KEY_SIZE // 2 :]:
        SectorCipher(slot_key).decrypt(0, material, material)
    key = _joined(material)
    if not found.is_of(key):
        raise VmferryError("unauthenticated", "The passphrase does not open the image's LUKS header.")
    return key


@dataclass(frozen=True)
class _Read:
    """What a header that has the shape of ours says."""

    digest: bytes
    digest_salt: bytes
    slot_salt: bytes
    iterations: int

    @classmethod
    def of(cls, header: bytes) -> _Read:
        if len(header) < HEADER_SIZE:
            raise _lie("is too short")
        magic, version, *names, payload, key_size, digest, salt, rounds, _uuid = _HEADER.unpack_from(header)
        wanted = [_CIPHER, _MODE, _HASH]
        if (magic, version, payload, key_size) != (_MAGIC, _VERSION, _PAYLOAD, KEY_SIZE):
            raise _lie("is none of ours")
        if [name.rstrip(b"\0") for name in names] != wanted or rounds != _DIGEST_ITERATIONS:
            raise _lie("names another cipher or hash than is ever written")
        slots = [_SLOT.unpack_from(header, _HEADER.size + number * _SLOT.size) for number in range(_SLOTS)]
        places = [(_FIRST_MATERIAL + number * _STEP, _STRIPES) for number in range(_SLOTS)]
        if [slot[3:] for slot in slots] != places or [slot[0] for slot in slots] != [_ACTIVE] + [_INACTIVE] * 7:
            raise _lie("has other key slots than are ever written")
        iterations = slots[0][1]
        if not 0 < iterations <= ITERATIONS:
            raise _lie("asks for more work than is ever written")
        return cls(digest, salt, slots[0][2], iterations)

    def is_of(self, key: bytes) -> bool:
        found = pbkdf2_hmac("sha256", key, self.digest_salt, _DIGEST_ITERATIONS, _DIGEST_SIZE)
        return hmac.compare_digest(found, self.digest)


def _slot_key(passphrase: bytes, salt: bytes, iterations: int) -> bytes:
    """By the library that encrypts: the OpenSSL of many a Python takes twice as long for the same."""
    from cryptography.hazmat.backends import default_backend
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    return PBKDF2HMAC(SHA256(), KEY_SIZE, salt, iterations, default_backend()).derive(passphrase)


def _drawn(key: bytes, label: bytes, size: int) -> bytes:
    """Bytes that nobody can tell from random ones without the key."""
    return shake_256(hmac.digest(key, b"vmferry luks " + label, "sha256")).digest(size)


def _split(key: bytes) -> bytes:
    """Into stripes all of which are needed to get it back (anti-forensic information splitter)."""
    stripes = _drawn(key, b"stripes", _MATERIAL - KEY_SIZE)
    return stripes + _xor(_folded(stripes), key)


def _joined(material: memoryview) -> bytes:
    return _xor(_folded(bytes(material[:-KEY_SIZE])), bytes(material[-KEY_SIZE:]))


def _folded(stripes: bytes) -> bytes:
    found = bytes(KEY_SIZE)
    for at in range(0, len(stripes), KEY_SIZE):
        found = b"".join(_diffused(_xor(found, stripes[at : at + KEY_SIZE])))
    return found


def _diffused(stripe: bytes) -> Iterator[bytes]:
    for number, at in enumerate(range(0, KEY_SIZE, sha256().digest_size)):
        yield sha256(struct.pack(">I", number) + stripe[at : at + sha256().digest_size]).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(KEY_SIZE, "big")


def _lie(what: str) -> VmferryError:
    return VmferryError(
        "invalid_config", f"An image's LUKS header {what}.", "It was damaged, or it is not an export of ours."
    )
