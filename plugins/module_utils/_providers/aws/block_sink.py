# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk written to a new snapshot: what comes in any order is joined to whole blocks, and zeros are not sent.

"Using checksums with the EBS direct APIs": https://docs.aws.amazon.com/ebs/latest/userguide/ebsapis-using-checksums.html
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from threading import Lock
from typing import Dict, List, Optional, Sequence, Set, Tuple

from ..._blocks import Piece
from ..._errors import VmferryError
from .crew import Crew, Task
from .new_snapshot import NewSnapshot
from .parent_blocks import ParentBlocks
from .snapshot_blocks import BLOCK

_EMPTY = bytes(BLOCK)
_ZERO = sha256(_EMPTY).digest()
_Range = Tuple[int, bytes]  # the block after its last one, and the digest of its only one: b'' where nothing was sent


class _Partial:
    """A block of which something is there."""

    def __init__(self) -> None:
        self.data: Optional[bytearray] = None  # None: only zeros so far
        self.known = 0  # bytes


class SnapshotSink:
    """Thread-safe. It has to be told all of the disk, once, zeros too: so it knows when a block is whole, and that
    nothing is missing when it is sealed. Memory is held for blocks of which something, but not all, was told.
    """

    reads_zero = False  # what is never written reads as zeros, but see above

    def __init__(self, snapshot: NewSnapshot, size: int, crew: Crew, parent: Optional[ParentBlocks] = None) -> None:
        """`size`: bytes, whole blocks. `crew` puts the blocks of one call side by side. `parent`: what the snapshot is
        a child of; a block of it that is zeros now has to be put."""
        self._snapshot, self._size, self._crew, self._parent = snapshot, size, crew, parent
        self._joining = Lock()
        self._putting: Set[Task[None]] = set()
        self._partial: Dict[int, _Partial] = {}
        self._done: Dict[int, _Range] = {}  # by their first block, those behind one that is missing
        self._next = 0  # all blocks before this one are done
        self._digest = sha256()  # over those of the blocks before
        self._written = 0
        self._closed = self._sealed = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def snapshot(self) -> NewSnapshot:
        return self._snapshot

    @property
    def blocks_written(self) -> int:
        return self._written

    def write(self, pieces: Sequence[Piece]) -> None:
        self._insist_on_open()
        whole: List[Tuple[int, bytes]] = []
        with self._joining:
            for offset, data in pieces:
                self._insist_on_place(offset, len(data))
                for index, at, start, count in _in_blocks(offset, len(data)):
                    part = data[start : start + count]
                    if count == BLOCK:
                        self._insist_on_new(index)
                        whole.append((index, bytes(part)))
                    else:
                        whole += self._join(index, at, part)
        self._put(whole)

    def zero(self, offset: int, length: int) -> None:
        self._insist_on_open()
        self._insist_on_place(offset, length)
        first, last = -(-offset // BLOCK), (offset + length) // BLOCK
        held = self._parent.held(first, last) if self._parent is not None else []
        whole = [(index, _EMPTY) for index in held]
        with self._joining:
            for start, end in zip([first, *(index + 1 for index in held)], [*held, last]):
                if start < end:
                    self._settle(start, end, b"")
            for index, at, _start, count in _in_blocks(offset, min(length, max(0, first * BLOCK - offset))):
                whole += self._join(index, at, None, count)
            if first <= last and (offset + length) % BLOCK:
                tail = max(offset, last * BLOCK)
                whole += self._join(last, tail % BLOCK, None, offset + length - tail)
        self._put(whole)

    def keep(self, offset: int, length: int) -> None:
        """Of a child: whole blocks that are the parent's."""
        self._insist_on_open()
        self._insist_on_place(offset, length)
        if self._parent is None or offset % BLOCK or length % BLOCK:
            raise VmferryError("internal", f"Nothing is known of byte {offset}, which is to stay as it is.")
        with self._joining:
            self._settle(offset // BLOCK, (offset + length) // BLOCK, b"")

    def flush(self) -> None:
        """Seals the snapshot: nothing can be written to it any more."""
        self._insist_on_open()
        if self._sealed:
            return
        if self._partial or self._done or self._next * BLOCK != self._size:
            text = f"Nobody told all of the disk that {self._snapshot.id or 'a new snapshot'} is to hold."
            raise VmferryError("internal", f"{text} Block {self._next} is missing.")
        if not self._written:  # nowhere is said what a snapshot of no block is; what is there anyway may be sent
            index, data = (self._parent.any_block() if self._parent is not None else None) or (0, _EMPTY)
            digest = sha256(data).digest()
            self._snapshot.put(index, data, digest)
            self._digest, self._written = sha256(digest), 1
        self._snapshot.seal(self._written, self._digest.digest())
        self._sealed = True

    def close(self) -> None:
        with self._joining:
            self._closed = True
            self._partial.clear()
            putting, self._putting = self._putting, set()
        for task in putting:
            task.give_up(self._cancelled())

    def _put(self, whole: Sequence[Tuple[int, bytes]]) -> None:
        """Returns when all of them are there."""
        tasks = [Task(partial(self._put_one, index, data)) for index, data in whole]
        with self._joining:
            self._insist_on_open()
            self._putting.update(tasks)
        try:
            for task in tasks:
                self._crew.add(task)
            for task in tasks:
                task.result()
        finally:
            with self._joining:
                self._putting.difference_update(tasks)

    def _put_one(self, index: int, data: bytes) -> None:
        digest = sha256(data).digest()
        if digest == _ZERO and not (self._parent is not None and self._parent.held(index, index + 1)):
            digest = b""
        else:
            self._snapshot.put(index, data, digest)
        with self._joining:
            self._settle(index, index + 1, digest)

    def _join(self, index: int, at: int, data: Optional[memoryview], zeros: int = 0) -> List[Tuple[int, bytes]]:
        """The block, where it is whole now. Called with the lock held."""
        self._insist_on_new(index)
        block = self._partial.setdefault(index, _Partial())
        if data is not None:
            if block.data is None:
                block.data = bytearray(BLOCK)
            block.data[at : at + len(data)] = data
        block.known += zeros if data is None else len(data)
        if block.known < BLOCK:
            return []
        del self._partial[index]
        if block.known > BLOCK:
            raise VmferryError("internal", f"A part of block {index} was written twice.")
        if block.data is None and self._parent is None:
            self._settle(index, index + 1, b"")
            return []
        return [(index, _EMPTY if block.data is None else bytes(block.data))]

    def _settle(self, first: int, end: int, digest: bytes) -> None:
        """Blocks that are done, whoever is done first. Called with the lock held."""
        self._insist_on_new(first)
        self._done[first] = (end, digest)
        while self._next in self._done:
            self._next, found = self._done.pop(self._next)
            if found:
                self._digest.update(found)
                self._written += 1

    def _insist_on_new(self, index: int) -> None:
        if index < self._next or index in self._done:
            raise VmferryError("internal", f"Block {index} was written twice.")

    def _insist_on_place(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self._size:
            raise VmferryError("internal", f"Byte {offset + length} is behind a disk of {self._size} bytes.")

    def _insist_on_open(self) -> None:
        if self._closed:
            raise self._cancelled()

    def _cancelled(self) -> VmferryError:
        return VmferryError("cancelled", f"Writing {self._snapshot.name} was ended.")


def _in_blocks(offset: int, length: int) -> List[Tuple[int, int, int, int]]:
    """Of a run: each block, where in it the run's part lies, where in the run that begins, and its length."""
    found, start = [], 0
    while start < length:
        index, at = divmod(offset + start, BLOCK)
        count = min(BLOCK - at, length - start)
        found.append((index, at, start, count))
        start += count
    return found
