# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read at the source, provably: SHA-256 per leaf, per chunk of 64 leaves, and one root.

File: a JSON line, then for each chunk that has something to say `(chunk, stored, zero)` as three big-endian 64-bit
words, the last two bitmaps of its leaves, and the digests of the stored ones in order. A leaf in neither bitmap is zero
in a full export (and will be the parent's in an increment, which alone needs `zero`).
"""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from typing import Callable, Dict, Iterator, Sequence

from .._blocks import LEAF
from .._errors import VmferryError

DIGEST_SIZE = 32
CHUNK_LEAVES = 64
ZERO_LEAF = bytes(LEAF)
ZERO_DIGEST = sha256(ZERO_LEAF).digest()
ZERO_CHUNK = sha256(ZERO_DIGEST * CHUNK_LEAVES).digest()
ZERO_CHUNKS_AT_ONCE = 65536
RECORD = struct.Struct(">QQQ")
LONGEST_HEADER = 4096  # bytes

Leaves = Dict[int, bytes]  # position in its chunk → digest


def leaf_digests(buffer: bytearray, end: int) -> list[bytes | None]:
    """One digest per leaf of `buffer[:end]`, None for a leaf of zeros.

    `sha256` releases the interpreter's lock. `startswith` compares at memory speed and stops at the first difference;
    comparing a memoryview goes byte by byte, fifty times slower.
    """
    view, found = memoryview(buffer), []
    for start in range(0, end, LEAF):
        stop = min(start + LEAF, end)
        zero = buffer.startswith(ZERO_LEAF if stop - start == LEAF else bytes(stop - start), start)
        found.append(None if zero else sha256(view[start:stop]).digest())
    return found


class Root:
    """The digest of all chunk digests, fed in chunk order; chunks nobody mentions are zero."""

    def __init__(self, size: int) -> None:
        self.leaf_count = -(-size // LEAF)
        self._last_zero = sha256(bytes(size - (self.leaf_count - 1) * LEAF)).digest() if size else b""
        self._root, self._done = sha256(), 0

    def zero(self, index: int) -> bytes:
        """The digest of a leaf of zeros: the disk's last leaf may be shorter."""
        return self._last_zero if index == self.leaf_count - 1 else ZERO_DIGEST

    def chunk(self, number: int, leaves: Leaves) -> None:
        self._zeros_until(number)
        self._root.update(self._digest(number, leaves))
        self._done = number + 1

    def finish(self) -> str:
        self._zeros_until(-(-self.leaf_count // CHUNK_LEAVES))
        return self._root.hexdigest()

    def _zeros_until(self, end: int) -> None:
        last = -(-self.leaf_count // CHUNK_LEAVES) - 1
        while self._done < min(end, last):
            count = min(ZERO_CHUNKS_AT_ONCE, min(end, last) - self._done)
            self._root.update(ZERO_CHUNK * count)
            self._done += count
        if self._done < end:
            self._root.update(self._digest(last, {}))
            self._done = end

    def _digest(self, number: int, leaves: Leaves) -> bytes:
        base = number * CHUNK_LEAVES
        here = range(min(CHUNK_LEAVES, self.leaf_count - base))
        return sha256(b"".join(leaves.get(at) or self.zero(base + at) for at in here)).digest()


class DigestWriter:
    """Takes leaves in guest order, holds one chunk of them, and emits the file as it goes."""

    def __init__(self, size: int, emit: Callable[[bytes], object]) -> None:
        self._root, self._emit = Root(size), emit
        self._chunk, self._own = 0, {}  # type: int, Leaves
        header = {"algorithm": "sha256", "leaf": LEAF, "chunk": LEAF * CHUNK_LEAVES, "size": size}
        emit(json.dumps(header).encode() + b"\n")

    def leaf(self, index: int, digest: bytes | None) -> None:
        if digest is None:
            return
        chunk, position = divmod(index, CHUNK_LEAVES)
        if chunk != self._chunk:
            self._close()
            self._chunk = chunk
        self._own[position] = digest

    def finish(self) -> str:
        """The root, in hexadecimal."""
        self._close()
        return self._root.finish()

    def _close(self) -> None:
        if self._own:
            stored = sum(1 << position for position in self._own)
            self._emit(RECORD.pack(self._chunk, stored, 0) + b"".join(self._own.values()))
            self._root.chunk(self._chunk, self._own)
            self._own = {}


class DigestReader:
    """A digest file from a store, read once, forwards, while the leaves it speaks of are being checked."""

    def __init__(self, size: int, root: str, pieces: Iterator[bytes], where: str) -> None:
        """`pieces` are the file's bytes in any cut; `root` is what the manifest says."""
        self._pieces, self._where, self._wanted = pieces, where, root
        self._held = bytearray()
        self._root = Root(size)
        self._check_header(size)
        self._chunk, self._leaves = -1, {}  # type: int, Leaves
        self._advance()

    def take(self, first: int, count: int) -> list[bytes | None]:
        """What the leaves `[first, first + count)` must have; leaves are asked for in order, none twice."""
        found: list[bytes | None] = []
        for index in range(first, first + count):
            found.append(self._leaf(index))
        return found

    def expect_zeros(self, first: int, count: int) -> None:
        """Leaves that the image says nothing of. Costs nothing for a terabyte of them."""
        end = first + count
        while self._chunk >= 0 and self._chunk * CHUNK_LEAVES < end:
            base = self._chunk * CHUNK_LEAVES
            inside = [at for at in self._leaves if first <= base + at < end]
            if inside:
                raise self._mismatch((base + min(inside)) * LEAF)
            if base + CHUNK_LEAVES > end:
                return
            self._advance()

    def finish(self) -> None:
        """Everything in the file was asked for, and it is the file that the manifest speaks of."""
        while self._chunk >= 0:
            self._advance()
        if self._root.finish() != self._wanted:
            raise self._lie("does not have the root that the manifest says")

    def _leaf(self, index: int) -> bytes | None:
        chunk, position = divmod(index, CHUNK_LEAVES)
        while 0 <= self._chunk < chunk:
            self._advance()
        return self._leaves.get(position) if self._chunk == chunk else None

    def _advance(self) -> None:
        record = self._take(RECORD.size, or_end=True)
        if not record:
            self._chunk, self._leaves = -1, {}
            return
        chunk, stored, zero = RECORD.unpack(record)
        if chunk <= self._chunk or chunk * CHUNK_LEAVES >= self._root.leaf_count or zero or not stored:
            raise self._lie("has records out of order")
        positions = [at for at in range(CHUNK_LEAVES) if stored >> at & 1]
        digests = self._take(DIGEST_SIZE * len(positions))
        self._chunk = chunk
        self._leaves = {at: digests[k * DIGEST_SIZE : (k + 1) * DIGEST_SIZE] for k, at in enumerate(positions)}
        self._root.chunk(chunk, self._leaves)

    def _check_header(self, size: int) -> None:
        while b"\n" not in self._held and len(self._held) < LONGEST_HEADER and self._more():
            pass
        line, newline, rest = bytes(self._held).partition(b"\n")
        try:
            header = json.loads(line) if newline else {}
        except ValueError:
            header = {}
        if header != {"algorithm": "sha256", "leaf": LEAF, "chunk": LEAF * CHUNK_LEAVES, "size": size}:
            raise self._lie("has a header of another kind")
        self._held = bytearray(rest)

    def _take(self, count: int, *, or_end: bool = False) -> bytes:
        while len(self._held) < count and self._more():
            pass
        if len(self._held) < count and not (or_end and not self._held):
            raise self._lie("ends too early")
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _more(self) -> bool:
        piece = next(self._pieces, b"")
        self._held += piece
        return bool(piece)

    def _mismatch(self, offset: int) -> VmferryError:
        return mismatch(self._where, offset)

    def _lie(self, what: str) -> VmferryError:
        return VmferryError("checksum_mismatch", f"{self._where} {what}.", "Use another export of this VM.")


def mismatch(where: str, offset: int) -> VmferryError:
    return VmferryError(
        "checksum_mismatch",
        f"The data at offset {offset} of the disk is not what was exported (by {where}).",
        "The image was damaged in the store or on the way; use another export of this VM.",
    )


def compare(found: Sequence[bytes | None], wanted: Sequence[bytes | None], first: int, where: str) -> None:
    """Both in guest order from the leaf `first` on."""
    for index, (one, other) in enumerate(zip(found, wanted), first):
        if one != other:
            raise mismatch(where, index * LEAF)
