# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read at the source, provably: SHA-256 per leaf, per chunk of 64 leaves, and one root over the chunks.

A leaf's digest covers its real bytes (the disk's last leaf may be short). A chunk's covers the digests of all its
leaves, zero ones included; the root covers the digests of all chunks. So the root is the same for every format, and
whether or not zeros were stored.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple

from .._blocks import LEAF
from .digest_file import CHUNK_LEAVES, DigestHeader, Record, pack_header, pack_record

ZERO_LEAF = bytes(LEAF)
ZERO_DIGEST = sha256(ZERO_LEAF).digest()
ZERO_CHUNK = sha256(ZERO_DIGEST * CHUNK_LEAVES).digest()
_ZERO_CHUNKS_AT_ONCE = 32768  # 1 MiB of digests per update
Digests = Sequence[Optional[bytes]]  # one a leaf; None: zeros
Leaves = Dict[int, bytes]  # position in its chunk → digest; b"": zeros


def leaf_digests(buffer: bytearray, end: int) -> list[bytes | None]:
    """One digest for each leaf of `buffer[:end]`, None for a leaf of zeros.

    `sha256` releases the interpreter's lock. `startswith` compares at memory speed and stops at the first byte that
    differs; comparing a memoryview with bytes goes item by item, sixty times slower, and holds the lock.
    """
    found: list[bytes | None] = []
    with memoryview(buffer) as view:
        for start in range(0, end, LEAF):
            stop = min(start + LEAF, end)
            zero = buffer.startswith(ZERO_LEAF if stop - start == LEAF else bytes(stop - start), start)
            found.append(None if zero else sha256(view[start:stop]).digest())
    return found


def leaf_zeros(buffer: bytearray, end: int) -> list[bytes | None]:
    """As `leaf_digests`, where nobody asks for digests: b"" for a leaf that is not all zeros."""
    return [
        None if buffer.startswith(ZERO_LEAF if end - start >= LEAF else bytes(end - start), start) else b""
        for start in range(0, end, LEAF)
    ]


def equal_runs(digests: Digests) -> Iterator[Tuple[int, int]]:
    """`(start, stop)` of neighbours that are all zero, or all not."""
    start = 0
    for at in range(1, len(digests) + 1):
        if at == len(digests) or (digests[at] is None) != (digests[start] is None):
            yield start, at
            start = at


class DigestTree:
    """Chunk digests and the root, from leaves that arrive in guest order; what does not arrive is zero."""

    def __init__(self, size: int) -> None:
        self.leaf_count = -(-size // LEAF)
        self.chunk_count = -(-self.leaf_count // CHUNK_LEAVES)
        self._last_zero = sha256(bytes(size - (self.leaf_count - 1) * LEAF)).digest() if size else b""
        self._root = sha256()
        self.done = 0  # chunks that the root covers

    def zero_digest(self, index: int) -> bytes:
        return self._last_zero if index == self.leaf_count - 1 else ZERO_DIGEST

    def add(self, chunk: int, leaves: Leaves) -> None:
        """`chunk` is the next one, or lies behind chunks of zeros."""
        self.add_zeros(chunk)
        first = chunk * CHUNK_LEAVES
        here = range(min(CHUNK_LEAVES, self.leaf_count - first))
        whole = b"".join(leaves.get(position) or self.zero_digest(first + position) for position in here)
        self._root.update(sha256(whole).digest())
        self.done = chunk + 1

    def add_zeros(self, end: int) -> None:
        """Chunks up to `end` hold nothing but zeros."""
        plain = min(end, self.chunk_count - 1) - self.done
        for at in range(0, plain, _ZERO_CHUNKS_AT_ONCE):
            self._root.update(ZERO_CHUNK * min(_ZERO_CHUNKS_AT_ONCE, plain - at))
        self.done += max(0, plain)
        if self.done < end:  # the disk's last chunk may be short
            self.add(self.done, {})

    def root(self) -> str:
        self.add_zeros(self.chunk_count)
        return self._root.hexdigest()


class DigestWriter:
    """Takes leaves in guest order, emits the digest file as it goes, and knows the root at the end.

    With `parent` (what the exports below have, merged, in chunk order) it writes an increment: its file holds the
    leaves it is told of, its root covers the parent's for all others.
    """

    def __init__(
        self, size: int, emit: Callable[[bytes], object], parent: Iterator[Tuple[int, Leaves]] | None = None
    ) -> None:
        self._emit, self._layered = emit, parent is not None
        self._parent = parent or iter(())
        self._tree = DigestTree(size)
        self._inherited = next(self._parent, None)
        self._chunk = 0
        self._own: Leaves = {}  # of this chunk, told so far
        emit(pack_header(DigestHeader(size, self._layered)))

    def leaves(self, first: int, digests: Digests) -> None:
        """Of the leaves from number `first` on."""
        for index, digest in enumerate(digests, first):
            chunk, position = divmod(index, CHUNK_LEAVES)
            if chunk != self._chunk:
                self._close()
                self._chunk = chunk
            self._own[position] = digest or b""

    def zero(self, first: int, count: int) -> None:
        """In a full export, zero is what a leaf is unless said otherwise."""
        if self._layered:
            for index in range(first, first + count):
                self.leaves(index, (None,))

    def finish(self) -> str:
        """The root, in hex."""
        self._close()
        self._inherit(self._tree.chunk_count)
        return self._tree.root()

    def _close(self) -> None:
        if not self._own:
            return
        own, self._own = self._own, {}
        stored = {position: digest for position, digest in own.items() if digest}
        zeros = own.keys() - stored.keys() if self._layered else ()
        if stored or zeros:
            self._emit(pack_record(Record(self._chunk, stored, frozenset(zeros))))
        self._inherit(self._chunk)
        base = self._take_inherited() if self._inherited and self._inherited[0] == self._chunk else {}
        self._tree.add(self._chunk, {**base, **own})

    def _inherit(self, end: int) -> None:
        """Carry the root on through chunks before `end`, which this export does not change."""
        while self._inherited and self._inherited[0] < end:
            self._tree.add(self._inherited[0], self._inherited[1])
            self._take_inherited()

    def _take_inherited(self) -> Leaves:
        leaves = self._inherited[1] if self._inherited else {}
        self._inherited = next(self._parent, None)
        return leaves
