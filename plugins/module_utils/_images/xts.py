# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AES-256-XTS of many sectors at once, as LUKS has it: each sector's tweak is its number, counted in the image file.

Python's own XTS takes one sector a call, which is five times too slow. Here the tweaks of a batch of sectors come from
one ECB call over their numbers, and are doubled for all sectors together. IEEE 1619-2018, 5.3.
"""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any, Tuple

from .._errors import VmferryError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Words = NDArray[numpy.uint64]

SECTOR = 512  # bytes
KEY_SIZE = 64  # bytes: one half for the data, one for the tweaks
_BLOCKS = SECTOR // 16
_BATCH = 1024  # sectors: more would not stay in the processor's cache, with fewer Python's own work would count
_ROW_GAP = 8  # words
_SPARE = 15  # bytes that the library wants behind what it writes
_WORD = "<u8"  # as XTS counts bytes, whatever the host does
_POLYNOMIAL = (1, 2, 7)  # x^128 = x^7 + x^2 + x + 1
_MISSING = "Install them with pip, on the host that moves the data: pip install cryptography numpy."


class SectorCipher:
    """Of one image; thread-safe. Plays `Cipher`."""

    def __init__(self, key: bytes) -> None:
        """Raises `unsupported` where a library is missing."""
        try:
            import numpy
            from cryptography.hazmat.primitives.ciphers import algorithms
        except ImportError as error:
            raise VmferryError("unsupported", f"Encryption needs {error.name}, which is not here.", _MISSING) from error
        if len(key) != KEY_SIZE or key[:32] == key[32:]:
            raise VmferryError("internal", "A key for AES-256-XTS is two different keys of 32 bytes.")
        self._numpy = numpy
        self._data_key, self._tweak_key = algorithms.AES(key[:32]), algorithms.AES(key[32:])
        self._own = local()  # a context, and what it works in, is for one thread

    def __repr__(self) -> str:
        return "SectorCipher()"

    def encrypt(self, offset: int, data: memoryview, into: memoryview) -> None:
        """`offset`: of the data in the file, in bytes. Whole sectors; `into` may be `data`."""
        self._run(self._scratch().encryptor, offset, data, into)

    def decrypt(self, offset: int, data: memoryview, into: memoryview) -> None:
        self._run(self._scratch().decryptor, offset, data, into)

    def _run(self, context: Any, offset: int, data: memoryview, into: memoryview) -> None:
        if offset % SECTOR or len(data) % SECTOR or len(data) != len(into):
            raise VmferryError("internal", f"{len(data)} bytes at {offset} are not whole sectors.")
        numpy, scratch = self._numpy, self._scratch()
        source, target = numpy.frombuffer(data, _WORD), numpy.frombuffer(into, _WORD)
        step = _BATCH * SECTOR // 8
        for at in range(0, len(source), step):
            words = min(step, len(source) - at)
            tweaks = scratch.tweaks(offset // SECTOR + at * 8 // SECTOR, words * 8 // SECTOR)
            numpy.bitwise_xor(source[at : at + words], tweaks, out=scratch.words[:words])
            context.update_into(scratch.bytes[: words * 8], scratch.bytes[: words * 8 + _SPARE])
            numpy.bitwise_xor(scratch.words[:words], tweaks, out=target[at : at + words])

    def _scratch(self) -> _Scratch:
        found = getattr(self._own, "scratch", None)
        if found is None:
            found = self._own.scratch = _Scratch(self._numpy, self._data_key, self._tweak_key)
        return found


class _Scratch:
    """What one thread works in: about 2 MiB."""

    def __init__(self, numpy: Any, data_key: Any, tweak_key: Any) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        self._numpy = numpy
        self.encryptor = Cipher(data_key, modes.ECB()).encryptor()
        self.decryptor = Cipher(data_key, modes.ECB()).decryptor()
        self._tweaker = Cipher(tweak_key, modes.ECB()).encryptor()
        self.words, self.bytes = self._words(_BATCH * SECTOR)
        self._numbers, self._number_bytes = self._words(_BATCH * 16)
        self._firsts, self._first_bytes = self._words(_BATCH * 16)
        # Sectors lie innermost while tweaks are doubled, since a loop over few blocks costs more than what it does.
        # Each row ends with a gap: rows that are a power of two apart push each other out of the processor's cache,
        # and turning them into tweaks takes five times as long.
        self._planes: Words = numpy.zeros(2 * _BLOCKS * (_BATCH + _ROW_GAP), _WORD)
        self._tweaks: Words = numpy.empty((_BATCH, _BLOCKS, 2), _WORD)
        self._carry: Words = numpy.empty(_BLOCKS // 2 * (_BATCH + _ROW_GAP), _WORD)
        self._moved: Words = numpy.empty(_BLOCKS // 2 * (_BATCH + _ROW_GAP), _WORD)

    def tweaks(self, first: int, count: int) -> Words:
        """Of all blocks of so many sectors, as little-endian words."""
        numpy = self._numpy
        self._numbers[: 2 * count : 2] = numpy.arange(first, first + count, dtype=_WORD)
        self._tweaker.update_into(self._number_bytes[: 16 * count], self._first_bytes[: 16 * count + _SPARE])
        row = count + _ROW_GAP
        planes = self._planes[: 2 * _BLOCKS * row].reshape(2, _BLOCKS * row)  # low words, high words
        for half, words in enumerate(planes):
            words[:count] = self._firsts[half : 2 * count : 2]
        for power in (1, 2, 4, 8, 16):
            done = power * row
            self._multiply(planes[:, :done], planes[:, done : 2 * done], power)
        found = self._tweaks[:count]
        for half, words in enumerate(planes.reshape(2, _BLOCKS, row)):
            found[..., half] = words[:, :count].T
        return found.reshape(-1)

    def _multiply(self, these: Words, into: Words, power: int) -> None:
        """By x to this power, at the most 16, in GF(2^128)."""
        numpy = self._numpy
        (low, high), (new_low, new_high) = these, into
        carry, moved = self._carry[: len(low)], self._moved[: len(low)]
        up, down = numpy.uint64(power), numpy.uint64(64 - power)
        numpy.right_shift(low, down, out=moved)
        numpy.left_shift(high, up, out=new_high)
        numpy.bitwise_or(new_high, moved, out=new_high)
        numpy.right_shift(high, down, out=carry)
        numpy.left_shift(low, up, out=new_low)
        numpy.bitwise_xor(new_low, carry, out=new_low)
        for bits in _POLYNOMIAL:
            numpy.left_shift(carry, numpy.uint64(bits), out=moved)
            numpy.bitwise_xor(new_low, moved, out=new_low)

    def _words(self, size: int) -> Tuple[Words, memoryview]:
        """Zeros, with room for what the library wants behind them."""
        memory = bytearray(size + 16)
        return self._numpy.frombuffer(memory, _WORD), memoryview(memory)
