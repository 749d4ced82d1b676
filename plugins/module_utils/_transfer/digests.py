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
from itertools import count
from typing import Callable, Dict, Iterable, Iterator, Optional, Protocol, Sequence, Tuple

from .._blocks import LEAF, Kind
from .digest_file import ALGORITHM, CHUNK_LEAVES, KEYED, DigestHeader, Record, pack_header, pack_record

ZERO_LEAF = bytes(LEAF)
ZERO_DIGEST = sha256(ZERO_LEAF).digest()
ZERO_CHUNK = sha256(ZERO_DIGEST * CHUNK_LEAVES).digest()
_ZERO_CHUNKS_AT_ONCE = 32768  # 1 MiB of digests per update
LeafHash = Callable[[int, memoryview], bytes]  # of a leaf and its number on the disk
Digests = Sequence[Optional[bytes]]  # one a leaf; None: zeros
Leaves = Dict[int, bytes]  # position in its chunk → digest; b"": zeros


def plain_hash(number: int, leaf: memoryview) -> bytes:
    return sha256(leaf).digest()


def leaf_digests(
    buffer: bytearray, end: int, numbers: Iterable[int] | None = None, leaf_hash: LeafHash = plain_hash
) -> list[bytes | None]:
    """One digest for each leaf of `buffer[:end]`, None for a leaf of zeros. `numbers`: of the leaves, on the disk
    that they are not all of.

    `sha256` releases the interpreter's lock. `startswith` compares at memory speed and stops at the first byte that
    differs; comparing a memoryview with bytes goes item by item, sixty times slower, and holds the lock.
    """
    found: list[bytes | None] = []
    with memoryview(buffer) as view:
        for start, number in zip(range(0, end, LEAF), count() if numbers is None else numbers):
            stop = min(start + LEAF, end)
            zero = buffer.startswith(ZERO_LEAF if stop - start == LEAF else bytes(stop - start), start)
            found.append(None if zero else leaf_hash(number, view[start:stop]))
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


class DiskDigests(Protocol):
    """What becomes of the digests of a disk that is read, leaf after leaf in guest order, and what an image holds."""

    @property
    def layered(self) -> bool:
        """Whether leaves may be left to a parent."""

    @property
    def leaf_hash(self) -> LeafHash: ...

    def leaves(self, first: int, digests: Digests) -> Sequence[Kind]:
        """Of the leaves from number `first` on; what an image has to hold of each."""

    def zero(self, first: int, count: int) -> Sequence[Tuple[int, int]]:
        """Leaves that read as zeros; the runs (first, count) of them that an image has to hold as such."""

    def finish(self) -> str:
        """The root, in hex."""


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

    With `parent` (what the exports below have, merged, in chunk order, of a disk of the same size) it writes an
    increment: it tells what differs from the parent, its file holds that alone, and its root covers the whole disk.
    """

    def __init__(
        self,
        size: int,
        emit: Callable[[bytes], object],
        parent: Iterator[Tuple[int, Leaves]] | None = None,
        leaf_hash: LeafHash = plain_hash,
    ) -> None:
        self.leaf_hash = leaf_hash
        self._emit, self.layered = emit, parent is not None
        self._parent = parent or iter(())
        self._tree = DigestTree(size)
        self._inherited = next(self._parent, None)  # of the next chunk in which the parent has anything
        self._chunk = -1
        self._base: Leaves = {}  # what the parent has in this chunk
        self._own: Leaves = {}  # what differs from it, so far
        emit(pack_header(DigestHeader(size, self.layered, ALGORITHM if leaf_hash is plain_hash else KEYED)))

    def leaves(self, first: int, digests: Digests) -> list[Kind]:
        """Of the leaves from number `first` on; what an image has to hold of each."""
        kinds: list[Kind] = []
        for index, digest in enumerate(digests, first):
            chunk, position = divmod(index, CHUNK_LEAVES)
            self._open(chunk)
            kind: Kind = "zero" if digest is None else "data"
            if self.layered and (self._base.get(position) or None) == digest:
                kind = "unchanged"
            elif self.layered or digest is not None:
                self._own[position] = digest or b""
            kinds.append(kind)
        return kinds

    def zero(self, first: int, count: int) -> list[Tuple[int, int]]:
        """Leaves that read as zeros; the runs (first, count) of them that an image has to hold as such."""
        if not self.layered:
            return [(first, count)]
        runs: list[Tuple[int, int]] = []
        end, chunk = first + count, first // CHUNK_LEAVES
        while chunk * CHUNK_LEAVES < end:
            self._open(chunk)
            for position in sorted(self._base):
                index = chunk * CHUNK_LEAVES + position
                if self._base[position] and first <= index < end:
                    self._own[position] = b""
                    joins = runs and sum(runs[-1]) == index
                    runs[-1:] = [(runs[-1][0], runs[-1][1] + 1)] if joins else [*runs[-1:], (index, 1)]
            following = self._inherited[0] if self._inherited else self._tree.chunk_count
            chunk = max(chunk + 1, following)
        return runs

    def finish(self) -> str:
        """The root, in hex."""
        self._open(self._tree.chunk_count)
        return self._tree.root()

    def _open(self, chunk: int) -> None:
        if chunk == self._chunk:
            return
        self._close()
        while self._inherited and self._inherited[0] < chunk:  # what this export does not change
            self._tree.add(*self._inherited)
            self._inherited = next(self._parent, None)
        self._chunk, self._base = chunk, {}
        if self._inherited and self._inherited[0] == chunk:
            self._base = self._inherited[1]
            self._inherited = next(self._parent, None)

    def _close(self) -> None:
        own, self._own = self._own, {}
        if own:
            stored = {position: digest for position, digest in own.items() if digest}
            self._emit(pack_record(Record(self._chunk, stored, frozenset(own.keys() - stored.keys()))))
        if own or self._base:
            self._tree.add(self._chunk, {**self._base, **own})
