# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a stream of bytes to numbered parts. Part 1 stays open where the image has a head, which is known last.

Two steps, since only the first must happen in order: `emit` decides where bytes go, `deliver` moves them there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Sequence

from .._blocks import LEAF, Part, PartReceipt, PartWriter
from .._errors import VmferryError
from .buffers import Buffers
from .digests import ZERO_DIGEST, ZERO_LEAF
from .flow import Flow

MIB = 1024 * 1024
PART = 8 * MIB  # preferred: large enough for a store's per-request cost, small enough to hold three of them
PARTS_IN_MEMORY = 3  # one being filled, the others being sent; part 1, held back, comes on top


@dataclass(frozen=True)
class PartLimits:
    """What a store takes, in bytes but for `count`."""

    count: int = 10_000
    smallest: int = 1
    largest: int = 1 << 62
    object: int = 1 << 62


@dataclass(frozen=True)
class PartSizes:
    """A pure function of the part's number and the object's bound, so that a resumed export cuts in the same places."""

    first: int
    other: int

    @classmethod
    def for_object(cls, bound: int, head: int, limits: PartLimits, what: str) -> PartSizes:
        """`what` names the object in the refusal of one that cannot fit, before its first byte."""
        other = max(PART, limits.smallest)
        while bound > other * (min(limits.count, 10_000) - 1):
            other *= 2
        first = max(other, -(-(head + limits.smallest) // LEAF) * LEAF)
        if bound > limits.object or max(first, other) > limits.largest:
            raise VmferryError(
                "no_space",
                f"{what} may take {bound} bytes, more than one object of this store can hold.",
                "Choose a store that takes larger objects, or a path.",
            )
        return cls(first, other)

    def part(self, number: int) -> Part:
        if number == 1:
            return Part(1, 0, self.first)
        return Part(number, self.first + (number - 2) * self.other, self.other)


@dataclass
class OpenPart:
    part: Part
    buffer: bytearray | None  # none where the store takes bytes at any offset
    missing: int  # bytes not delivered yet
    blocks: list[bytes] = field(default_factory=list)  # SHA-256 of each 64 KiB; of a cluster that is a leaf, the leaf's

    @property
    def proof(self) -> bytes:
        return sha256(b"".join(self.blocks)).digest()


@dataclass(frozen=True)
class Placement:
    """Bytes in a window's buffer, and the place in a part that is theirs."""

    part: OpenPart
    at: int
    data: memoryview


class PartAssembler:
    """Plays ImageOutput. `receipts` has every part that was taken by the store, in no order."""

    def __init__(self, store: PartWriter, flow: Flow) -> None:
        self._store, self._flow = store, flow
        self._counting = Lock()
        self._placed: list[Placement] = []
        self.receipts: list[PartReceipt] = []

    def open(self, sizes: PartSizes, head_size: int, in_memory: int) -> None:
        """Before the first byte. `in_memory` parts are held at once where the store takes whole ones."""
        self._sizes = sizes
        self._buffers = Buffers(self._flow, 0 if self._store.any_offset else in_memory, sizes.other)
        first = sizes.part(1)
        buffer = None if self._store.any_offset else bytearray(first.size)
        self._first = self._open = OpenPart(first, buffer, first.size)
        self._at = head_size

    @property
    def position(self) -> int:
        """Bytes of the object laid out so far, the head among them."""
        return self._open.part.offset + self._at

    def emit(self, data: memoryview, digests: Sequence[bytes] | None = None) -> None:
        """In order. Where the part is full, the next one's buffer is waited for here, so the oldest always gets one."""
        if digests is None:
            digests = [sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF)]
        done = 0
        while done < len(data):
            count = self._room(len(data) - done)
            self._placed.append(Placement(self._open, self._at, data[done : done + count]))
            self._open.blocks += digests[done // LEAF : -(-(done + count) // LEAF)]
            self._at += count
            done += count

    def hole(self, length: int) -> None:
        if not self._store.any_offset:
            for _ in range(length // LEAF):
                self.emit(memoryview(ZERO_LEAF), [ZERO_DIGEST])
            if length % LEAF:
                self.emit(memoryview(ZERO_LEAF)[: length % LEAF])
            return
        while length:
            count = self._room(length)
            self._open.blocks += [ZERO_DIGEST] * (count // LEAF)
            if count % LEAF:
                self._open.blocks.append(sha256(bytes(count % LEAF)).digest())
            self._at += count
            length -= count
            self._count_down(self._open, count)

    def take_placed(self) -> list[Placement]:
        placed, self._placed = self._placed, []
        return placed

    def finish(self, head: bytes) -> list[Placement]:
        """What is left: the last part ends here, and the head completes part 1."""
        last = self._open
        unused = last.part.size - self._at
        last.part = Part(last.part.number, last.part.offset, self._at)
        self._first.blocks[:0] = [sha256(head[at : at + LEAF]).digest() for at in range(0, len(head), LEAF)]
        placed = self.take_placed()
        if head:
            placed.append(Placement(self._first, 0, memoryview(head)))
        self._count_down(last, unused)
        return placed

    def deliver(self, placed: Sequence[Placement]) -> int:
        """Any thread, any order; returns the bytes moved. Whoever brings a part's last byte sends the part."""
        for place in placed:
            if place.part.buffer is None:
                self._store.write_at(place.part.part.offset + place.at, place.data)
            else:
                place.part.buffer[place.at : place.at + len(place.data)] = place.data
        for place in placed:
            self._count_down(place.part, len(place.data))
        return sum(len(place.data) for place in placed)

    def _room(self, wanted: int) -> int:
        if self._at == self._open.part.size:
            part = self._sizes.part(self._open.part.number + 1)
            buffer = None if self._store.any_offset else self._buffers.acquire()
            self._open, self._at = OpenPart(part, buffer, part.size), 0
        return min(wanted, self._open.part.size - self._at)

    def _count_down(self, part: OpenPart, count: int) -> None:
        with self._counting:
            part.missing -= count
            whole = not part.missing and part.part.size > 0
        if whole:
            self._send(part)

    def _send(self, whole: OpenPart) -> None:
        etag = ""
        if whole.buffer is not None:
            etag = self._store.write_part(whole.part, memoryview(whole.buffer)[: whole.part.size])
            if whole.part.number > 1:
                self._buffers.release(whole.buffer)
            whole.buffer = None
        receipt = PartReceipt(whole.part, whole.proof, etag)
        whole.blocks = []
        with self._counting:
            self.receipts.append(receipt)


def ordered(receipts: Sequence[PartReceipt]) -> list[PartReceipt]:
    return sorted(receipts, key=lambda receipt: receipt.part.number)


def proof_root(receipts: Sequence[PartReceipt]) -> str:
    """Over the parts' proofs, in order; in hexadecimal."""
    return sha256(b"".join(receipt.proof for receipt in receipts)).hexdigest()
