# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object written in order, with runs in it that are known only later: an archive's headers, which tell how long what
follows them is. A part with such a gap waits in memory until it is filled; all others go as they come.

Where an object of many gibibytes asks for parts that are larger than wished for, and the store puts them together, that
holds for pieces of them instead: memory does not grow with the object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Set, Tuple, cast

from .._blocks import LEAF, ObjectInfo, Part, PartReceipt, PartWriter, PieceWriter
from .._errors import VmferryError
from .buffers import Buffers
from .flow import Flow
from .gapped_proof import GappedProof
from .part_sizes import PartRules, PartSizes

MOST_WAITING = 3  # parts, or pieces, with gaps at once: the first, and of the gap behind it those that it lies across


@dataclass(frozen=True)
class Gap:
    """Bytes of the object that are to come."""

    offset: int
    size: int


class Gapped(Protocol):
    """What is written in order, with gaps. As `GappedObject` says."""

    size: int

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def reserve(self, size: int) -> Gap: ...

    def fill(self, gap: Gap, data: bytes) -> None: ...

    def take_ready(self) -> Sequence[Any]: ...

    def send(self, ready: Sequence[Any]) -> None: ...


@dataclass
class _OpenPart:
    part: Part
    pieces: int = 0  # begun so far
    unsent: int = 0  # of these
    closed: bool = False  # nothing more belongs to it
    blocks: Dict[int, bytes] = field(default_factory=dict)  # the digests of each piece's blocks, by its number


@dataclass
class _Piece:
    """A run of a part, of whole blocks but for the object's last: all of it, unless it is sent in pieces."""

    owner: _OpenPart
    number: int  # from 1
    offset: int  # in the object
    size: int
    buffer: bytearray
    gaps: Set[Gap] = field(default_factory=set)

    @property
    def end(self) -> int:
        return self.offset + self.size


class GappedObject:
    """Plays Gapped. `write`, `reserve`, `fill` and `take_ready` are for one thread at a time; `send` is for any.

    What `take_ready` returns is given to `send`, by whoever took it. `size`: bytes so far, gaps among them.
    """

    def __init__(
        self,
        parts: PartWriter,
        size_bound: int,
        part_size: int,
        rules: PartRules,
        flow: Flow,
        sent: Callable[[int], object] = lambda count: None,
        under_way: int = 2,
    ) -> None:
        """`under_way`: parts that are filled or sent, besides those that wait. Raises as `PartSizes.for_object`."""
        self._parts, self._sent = parts, sent
        self._sizes = PartSizes.for_object(size_bound, 0, part_size, rules)
        held = MOST_WAITING + under_way
        self._piece_size = self._sizes.other
        if rules.joins_pieces:
            self._piece_size = min(self._sizes.other, -(-max(part_size, rules.min_part) // LEAF) * LEAF)
        self._buffers = Buffers(flow, 0 if parts.any_offset else held * self._piece_size, self._piece_size)
        self._part: Optional[_OpenPart] = None
        self._open: Optional[_Piece] = None
        self._waiting: List[_Piece] = []  # full, but for their gaps
        self._ready: List[_Piece] = []
        self._gaps: Set[Gap] = set()
        self._receipts: List[PartReceipt] = []
        self._proof = GappedProof(self._sizes)  # of what is gathered in no parts
        self._lock = Lock()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._parts.any_offset:
            self._write_at(self.size, memoryview(data))
            self._proof.write(memoryview(data))
            self.size += len(data)
            return
        view = memoryview(data)
        while view:
            piece, at = self._room()
            count = min(len(view), piece.size - at)
            piece.buffer[at : at + count] = view[:count]
            view = view[count:]
            self.size += count
            self._close_if_full(piece)

    def reserve(self, size: int) -> Gap:
        gap = Gap(self.size, size)
        self._gaps.add(gap)
        if self._parts.any_offset:
            self._proof.reserve(size)
            self.size += size
            return gap
        left = size
        while left:
            piece, at = self._room()
            count = min(left, piece.size - at)
            piece.gaps.add(gap)
            left -= count
            self.size += count
            self._close_if_full(piece)
        return gap

    def fill(self, gap: Gap, data: bytes) -> None:
        if len(data) != gap.size or gap not in self._gaps:
            raise VmferryError("internal", f"{len(data)} bytes do not belong into {gap}.")
        self._gaps.discard(gap)
        if self._parts.any_offset:
            self._write_at(gap.offset, memoryview(data))
            self._proof.fill(gap.offset, data)
            return
        for one in [*self._waiting, *([self._open] if self._open is not None else [])]:
            if gap not in one.gaps:
                continue
            start, end = max(gap.offset, one.offset), min(gap.offset + gap.size, one.end)
            one.buffer[start - one.offset : end - one.offset] = data[start - gap.offset : end - gap.offset]
            one.gaps.discard(gap)
        self._find_ready()

    def take_ready(self) -> Sequence[_Piece]:
        ready, self._ready = self._ready, []
        return ready

    def send(self, ready: Sequence[_Piece]) -> None:
        for one in ready:
            data, etag = memoryview(one.buffer)[: one.size], ""
            alone = one.size == one.owner.part.size
            if alone:
                etag = self._parts.write_part(one.owner.part, data)
            else:
                cast(PieceWriter, self._parts).write_piece(one.owner.part, one.number, data)
            digests = b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF))
            with self._lock:
                one.owner.blocks[one.number] = digests
                one.owner.unsent -= 1
                whole = one.owner.closed and not one.owner.unsent
            self._sent(len(data))
            self._buffers.release(one.buffer)
            if whole:
                self._complete(one.owner, etag if alone else None)

    def finish(self, *, if_absent: bool = False) -> ObjectInfo:
        """Everything that was taken has been sent. The object appears."""
        if self._gaps:
            raise VmferryError("internal", f"{len(self._gaps)} runs of an object were never filled.")
        if self._part is not None:
            last = self._part
            last.part, last.closed = Part(last.part.number, last.part.offset, self.size - last.part.offset), True
            if self._open is not None:
                self._open.size = self.size - self._open.offset
                self._ready.append(self._open)
            elif not last.unsent:
                self._complete(last, None)
            self._part = self._open = None
        self.send(self.take_ready())
        if self._parts.any_offset and not self._receipts:
            self._receipts = [PartReceipt(part, proof) for part, proof in self._proof.finish()]
        self._receipts.sort(key=lambda receipt: receipt.part.number)
        return self._parts.complete(self._receipts, self.size, if_absent=if_absent)

    @property
    def receipts(self) -> Sequence[PartReceipt]:
        """Of all parts in order, once it is finished."""
        return self._receipts

    def _complete(self, whole: _OpenPart, etag: Optional[str]) -> None:
        """Every piece of it was sent. `etag`: of one that was sent as the part that it is."""
        if etag is None:
            etag = cast(PieceWriter, self._parts).join_pieces(whole.part)
        proof = sha256(b"".join(digests for _number, digests in sorted(whole.blocks.items())))
        with self._lock:
            self._receipts.append(PartReceipt(whole.part, proof.digest(), etag))

    def _room(self) -> Tuple[_Piece, int]:
        """The piece that is being filled, and where in it the next byte belongs."""
        if self._part is None:
            self._part = _OpenPart(self._sizes.part(self._sizes.number_at(self.size)))
        if self._open is None:
            left, buffer = self._part.part.offset + self._part.part.size - self.size, self._buffer()
            with self._lock:
                self._part.pieces += 1
                self._part.unsent += 1
            self._open = _Piece(self._part, self._part.pieces, self.size, min(left, self._piece_size), buffer)
        return self._open, self.size - self._open.offset

    def _buffer(self) -> bytearray:
        buffer = self._buffers.acquire_now()
        if buffer is None:  # whoever waits for others sends first what they might wait for
            self.send(self.take_ready())
            buffer = self._buffers.acquire()
        return buffer

    def _close_if_full(self, piece: _Piece) -> None:
        if self.size < piece.end:
            return
        part = piece.owner.part
        if piece.end == part.offset + part.size:
            with self._lock:
                piece.owner.closed = True
            self._part = None
        self._waiting.append(piece)
        self._open = None
        self._find_ready()

    def _find_ready(self) -> None:
        self._ready += [one for one in self._waiting if not one.gaps]
        self._waiting = [one for one in self._waiting if one.gaps]
        if len(self._waiting) > MOST_WAITING:
            raise VmferryError("internal", "More parts of an object wait for their gaps than there is memory for.")

    def _write_at(self, offset: int, data: memoryview) -> None:
        if data:
            self._parts.write_at(offset, data)
            self._sent(len(data))
