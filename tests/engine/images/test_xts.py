# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AES-256-XTS of many sectors: held to the vectors of IEEE 1619, and to a library that takes one sector a call."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.xts import SECTOR, SectorCipher

from . import ieee1619

RANDOM = Random(7)
KEY = RANDOM.randbytes(64)


def one_by_one(key: bytes, offset: int, data: bytes) -> bytes:
    found = b""
    for at in range(0, len(data), SECTOR):
        number = struct.pack("<QQ", (offset + at) // SECTOR, 0)
        found += Cipher(algorithms.AES(key), modes.XTS(number)).encryptor().update(data[at : at + SECTOR])
    return found


def encrypted(cipher: SectorCipher, offset: int, data: bytes) -> bytes:
    found = bytearray(len(data))
    cipher.encrypt(offset, memoryview(data), memoryview(found))
    return bytes(found)


@pytest.mark.parametrize("number", sorted(ieee1619.ENCRYPTED), ids=hex)
def test_the_vectors_of_the_standard(number: int) -> None:
    cipher, wanted = SectorCipher(ieee1619.KEY), ieee1619.ENCRYPTED[number]
    assert encrypted(cipher, number * SECTOR, ieee1619.PLAIN) == wanted
    back = bytearray(wanted)
    cipher.decrypt(number * SECTOR, memoryview(back), memoryview(back))
    assert back == ieee1619.PLAIN
    assert one_by_one(ieee1619.KEY, number * SECTOR, ieee1619.PLAIN) == wanted, "so that it may judge the rest"


@pytest.mark.parametrize("offset", [0, SECTOR, 65536, 7 << 20, (64 << 40) - SECTOR])
@pytest.mark.parametrize("sectors", [1, 3, 128, 1024, 1025, 2100])
def test_every_sector_goes_by_its_own_number(offset: int, sectors: int) -> None:
    cipher, data = SectorCipher(KEY), RANDOM.randbytes(sectors * SECTOR)
    found = encrypted(cipher, offset, data)
    assert found == one_by_one(KEY, offset, data)
    back = bytearray(found)
    cipher.decrypt(offset, memoryview(back), memoryview(back))
    assert back == data


def test_many_threads_may_use_one_cipher() -> None:
    cipher, data = SectorCipher(KEY), RANDOM.randbytes(1400 * SECTOR)
    expected = one_by_one(KEY, 0, data)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: encrypted(cipher, 0, data) == expected, range(40)))


def test_neither_half_sectors_nor_half_keys_are_taken() -> None:
    with pytest.raises(VmferryError):
        encrypted(SectorCipher(KEY), 100, bytes(SECTOR))
    with pytest.raises(VmferryError):
        encrypted(SectorCipher(KEY), 0, bytes(100))
    for key in (KEY[:32], KEY[:32] * 2):
        with pytest.raises(VmferryError):
            SectorCipher(key)
