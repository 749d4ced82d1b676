# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an image's bytes, laid out in order, to the parts of an object, moved in any order.

`emit` and `hole` only decide where bytes go; `deliver` moves them there. Part 1 stays open to the end where the image
has a head, since the head is known last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Callable, Dict, Sequence

from .._blocks import LEAF, Part, PartReceipt, PartWriter
from .._errors import VmferryError
from .buffers import Buffers
from .digests import ZERO_DIGEST
from .failpoints import failpoint
from .part_sizes import PartSizes

PLACED_LIMIT = 4 * 1024 * 1024  # bytes laid out in one turn before they are delivered within it
ZEROS = bytes(1024 * 1024)
_ZERO_DIGESTS = (ZERO_DIGEST,) * (len(ZEROS) // LEAF)


@dataclass
class _OpenPart:
    part: Part
    buffer: bytearray | None  # none where the store takes bytes at any offset
    awaited: int = 0  # bytes laid out and not yet delivered
    closed: bool = False  # nothing more will be laid out here
    blocks: bytearray = field(default_factory=bytearray)  # SHA-256 of each 64 KiB, one behind the other


@dataclass(frozen=True)
class Placement:
    """Bytes somewhere in memory, and the place in a part that is theirs. They must not change until delivered."""

    part: _OpenPart
    at: int
    data: memoryview


class PartAssembler:
    """Plays `ImageOutput` for an image writer, one thread at a time; `deliver` is for all threads."""

    def __init__(self, store: PartWriter, sent: Callable[[int], object], held: Callable[[int], object]) -> None:
        """`sent` is told how many bytes the store has taken, once for each byte; `held`, how many more or fewer wait
        in buffers."""
        self._store, self._sent, self._held = store, sent, held
        self._counting = Lock()
        self._placed: list[Placement] = []
        self._placed_bytes = 0
        self._hole_proofs: Dict[int, bytes] = {}
        self._receipts: list[PartReceipt] = []
        self.bytes_stored = 0

    def begin(self, sizes: PartSizes, head_size: int, buffers: Buffers) -> None:
        """Before the first `emit`. `buffers` are of `sizes.other` bytes."""
        if head_size % LEAF:
            raise VmferryError("internal", f"A head of {head_size} bytes is not a whole number of blocks.")
        self._sizes, self._buffers, self._head_size = sizes, buffers, head_size
        self._open = self._first = _OpenPart(sizes.part(1), None)
        if not self._store.any_offset:
            self._first.buffer = bytearray(sizes.first) if head_size else buffers.acquire()
        self._at = head_size

    @property
    def size(self) -> int:
        """Bytes of the object so far, the head among them."""
        return self._open.part.offset + self._at

    @property
    def receipts(self) -> tuple[PartReceipt, ...]:
        """Of the parts that the store has taken, by number."""
        return tuple(sorted(self._receipts, key=lambda receipt: receipt.part.number))

    def emit(self, data: memoryview, digests: Sequence[bytes] | None = None) -> None:
        self._check_aligned()
        if digests is None:
            digests = [sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF)]
        done = 0
        while done < len(data):
            count = min(len(data) - done, self._room())
            self._open.blocks += b"".join(digests[done // LEAF : -(-(done + count) // LEAF)])
            self._place(self._at, data[done : done + count])
            self._at += count
            done += count
        if self._placed_bytes > PLACED_LIMIT:
            self.deliver(self.take_placed())

    def hole(self, length: int) -> None:
        self._check_aligned()
        while length and not self._store.any_offset:
            count = min(length, len(ZEROS))
            whole = not count % LEAF
            self.emit(memoryview(ZEROS)[:count], _ZERO_DIGESTS[: count // LEAF] if whole else None)
            length -= count
        while length:
            count = min(length, self._room())
            self._add_hole(count)
            self._at += count
            length -= count

    def take_placed(self) -> list[Placement]:
        """What was laid out since the last call, to be delivered outside of the turn."""
        placed, self._placed, self._placed_bytes = self._placed, [], 0
        return placed

    def finish(self, head: bytes) -> None:
        """Nothing more is laid out; every earlier delivery has returned."""
        if len(head) != self._head_size:
            raise VmferryError("internal", f"The image's head has {len(head)} bytes, not {self._head_size}.")
        self._open.part = Part(self._open.part.number, self._open.part.offset, self._at)
        if head:
            self._first.blocks[:0] = b"".join(sha256(head[at : at + LEAF]).digest() for at in range(0, len(head), LEAF))
            self.deliver(self.take_placed())
            self._close(self._open, unless=self._first)
            with self._counting:
                self._first.awaited += len(head)
                self._first.closed = True
            self.deliver([Placement(self._first, 0, memoryview(head))])
        else:
            self.deliver(self.take_placed())
            self._close(self._open)

    def deliver(self, placed: Sequence[Placement]) -> None:
        """Move bytes to where they belong. Whoever brings the last byte of a closed part sends it."""
        for place in placed:
            if place.part.buffer is None:
                self._store.write_at(place.part.part.offset + place.at, place.data)
                self._count(len(place.data))
            else:
                self._held(len(place.data))
                place.part.buffer[place.at : place.at + len(place.data)] = place.data
        for place in placed:
            with self._counting:
                place.part.awaited -= len(place.data)
                whole = place.part.closed and not place.part.awaited
            if whole:
                self._send(place.part)

    def _check_aligned(self) -> None:
        if self._at % LEAF:
            raise VmferryError("internal", "An image writer went on after a piece that was not a whole block.")

    def _room(self) -> int:
        """Bytes left in the open part; opens the next one where there are none."""
        if self._at == self._open.part.size:
            self._open_next()
        return self._open.part.size - self._at

    def _open_next(self) -> None:
        full = self._open
        if full is not self._first or not self._head_size:
            self._close(full)
        following = _OpenPart(self._sizes.part(full.part.number + 1), None)
        if not self._store.any_offset:
            following.buffer = self._next_buffer()
        self._open, self._at = following, 0

    def _next_buffer(self) -> bytearray:
        buffer = self._buffers.acquire_now()
        if buffer is None:
            # A buffer may be free only once this very window's bytes are in it.
            self.deliver(self.take_placed())
            buffer = self._buffers.acquire()
        return buffer

    def _place(self, at: int, data: memoryview) -> None:
        with self._counting:
            self._open.awaited += len(data)
        self._placed.append(Placement(self._open, at, data))
        self._placed_bytes += len(data)

    def _add_hole(self, count: int) -> None:
        if count == self._open.part.size:
            if count not in self._hole_proofs:
                self._hole_proofs[count] = _proof_of_hole(count)
            self._receipts.append(PartReceipt(self._open.part, self._hole_proofs[count]))
            self._open.closed = True
            return
        self._open.blocks += ZERO_DIGEST * (count // LEAF)
        if count % LEAF:
            self._open.blocks += sha256(bytes(count % LEAF)).digest()

    def _close(self, part: _OpenPart, unless: _OpenPart | None = None) -> None:
        with self._counting:
            if part is unless or part.closed:
                return
            part.closed = True
            whole = not part.awaited
        if whole:
            self._send(part)

    def _send(self, whole: _OpenPart) -> None:
        etag = ""
        if whole.buffer is not None:
            etag = self._store.write_part(whole.part, memoryview(whole.buffer)[: whole.part.size])
            self._count(whole.part.size)
            self._held(-whole.part.size)
            if whole is not self._first or not self._head_size:
                self._buffers.release(whole.buffer)
            whole.buffer = None
        self._receipts.append(PartReceipt(whole.part, sha256(whole.blocks).digest(), etag))
        failpoint("part-sent")

    def _count(self, count: int) -> None:
        with self._counting:
            self.bytes_stored += count
        self._sent(count)


def _proof_of_hole(size: int) -> bytes:
    proof = sha256()
    for _unused in range(size // len(ZEROS)):
        proof.update(ZERO_DIGEST * (len(ZEROS) // LEAF))
    rest = size % len(ZEROS)
    proof.update(ZERO_DIGEST * (rest // LEAF))
    if rest % LEAF:
        proof.update(sha256(bytes(rest % LEAF)).digest())
    return proof.digest()


def object_proof_root(receipts: Sequence[PartReceipt]) -> str:
    """SHA-256, in hex, over the proofs of an object's parts in order."""
    return sha256(b"".join(receipt.proof for receipt in receipts)).hexdigest()
