# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an image's bytes, laid out in order, to the parts of an object, moved in any order.

`emit` and `hole` only decide where bytes go; `deliver` moves them there. Part 1 stays open to the end where the image
has a head, since the head is known last.
"""

from __future__ import annotations

from hashlib import sha256
from threading import Lock
from typing import Callable, Dict, Mapping, Sequence, cast

from .._blocks import LEAF, Cipher, Part, PartReceipt, PartWriter, PieceWriter
from .._errors import VmferryError
from .buffers import Buffers
from .digests import ZERO_DIGEST
from .encrypted_blocks import encrypted, fill_in
from .failpoints import failpoint
from .journal import UnfitJournal
from .open_parts import DIGEST_SIZE, ZEROS, OpenPart, OpenPiece, Placement, proof_of_hole
from .part_sizes import PartSizes, Pieces

PLACED_LIMIT = 4 * 1024 * 1024  # bytes laid out in one turn before they are delivered within it
_ZERO_DIGESTS = (ZERO_DIGEST,) * (len(ZEROS) // LEAF)


class PartAssembler:
    """Plays `ImageOutput` for an image writer, one thread at a time; `deliver` is for all threads."""

    def __init__(
        self,
        store: PartWriter,
        sent: Callable[[int], object],
        held: Callable[[int], object],
        taken: Callable[[PartReceipt], object] = lambda receipt: None,
    ) -> None:
        """`sent` is told how many bytes the store has taken, once for each byte; `held`, how many more or fewer wait
        in buffers; `taken`, of each part that the store has."""
        self._store, self._sent, self._held, self._taken = store, sent, held, taken
        self._counting = Lock()
        self._placed: list[Placement] = []
        self._placed_bytes = 0
        self._hole_proofs: Dict[int, bytes] = {}
        self._receipts: list[PartReceipt] = []
        self._received: Mapping[int, PartReceipt] = {}
        self.bytes_stored = self.bytes_kept = 0

    def begin(
        self,
        sizes: PartSizes,
        head_size: int,
        buffers: Buffers,
        received: Mapping[int, PartReceipt] | None = None,
        pieces: Pieces | None = None,
    ) -> None:
        """Before the first `emit`. `received`: parts that are there already, by number; `UnfitJournal` where others are
        laid out in their place. `pieces`: how parts are sent, whole if nothing is said; `buffers` are as large as one.
        """
        if head_size % LEAF:
            raise VmferryError("internal", f"A head of {head_size} bytes is not a whole number of blocks.")
        self._sizes, self._buffers, self._head_size = sizes, buffers, head_size
        self._pieces = pieces or Pieces(sizes.first, sizes.other)
        self._received = received or {}
        self._open = self._first = self._opened(1)
        self._piece = self._held_back = self._opened_piece(self._open, 0)
        if not self._store.any_offset and self._first.received is None:
            self._piece.buffer = bytearray(self._piece.size) if head_size else buffers.acquire()
        self._at = head_size

    @property
    def size(self) -> int:
        """Bytes of the object so far, the head among them."""
        return self._open.part.offset + self._at

    def is_received(self, start: int, end: int) -> bool:
        """Whether all these bytes of the object are in parts that are there already."""
        if start == end:
            return True
        numbers = range(self._sizes.number_at(start), self._sizes.number_at(end - 1) + 1)
        return all(number in self._received for number in numbers)

    @property
    def receipts(self) -> tuple[PartReceipt, ...]:
        """Of the parts that the store has taken, by number."""
        return tuple(sorted(self._receipts, key=lambda receipt: receipt.part.number))

    def emit(self, data: memoryview, digests: Sequence[bytes] | None = None, cipher: Cipher | None = None) -> None:
        self._check_aligned()
        if digests is None and cipher is None and len(data) <= LEAF:
            digests = [sha256(data).digest()]
        digested = digests is not None and cipher is None
        if digests is None or not digested:  # whoever delivers them fills in the digests of what is stored
            digests = (bytes(DIGEST_SIZE),) * -(-len(data) // LEAF)
        done = 0
        while done < len(data):
            count = min(len(data) - done, self._room())
            self._place(self._at, data[done : done + count], cipher, digested)
            self._open.blocks += b"".join(digests[done // LEAF : -(-(done + count) // LEAF)])
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
        self._piece.size = self._at - self._piece.at
        self.deliver(self.take_placed())
        if not head:
            self._close(self._open)
            return
        self._first.blocks[:0] = b"".join(sha256(head[at : at + LEAF]).digest() for at in range(0, len(head), LEAF))
        if self._open is not self._first:
            self._close(self._open)
        elif self._piece is not self._held_back:
            self._close_piece(self._piece)
        with self._counting:
            self._held_back.awaited += len(head)
            self._held_back.closed = self._first.closed = True
        if self._first.received is not None:
            self._keep(self._first, self._first.received)
        else:
            self.deliver([Placement(self._held_back, 0, memoryview(head))])

    def deliver(self, placed: Sequence[Placement]) -> None:
        """Move bytes to where they belong. Whoever brings the last byte of a closed part sends it."""
        for place in placed:
            piece = place.piece
            if not place.digested and place.cipher is None:
                fill_in(piece.owner.blocks, place.block, place.data)
            if piece.buffer is None:
                stored = [(piece.owner.part.offset + piece.at + place.at, place.data)]
                for offset, data in encrypted(place, place.cipher) if place.cipher is not None else stored:
                    self._write_at(piece.owner, offset, data)
                continue
            self._held(len(place.data))
            if place.cipher is None:
                piece.buffer[place.at : place.at + len(place.data)] = place.data
            else:
                list(encrypted(place, place.cipher))
        for place in placed:
            with self._counting:
                place.piece.awaited -= len(place.data)
                whole = place.piece.closed and not place.piece.awaited
            if whole:
                self._send(place.piece)

    def _check_aligned(self) -> None:
        if self._at % LEAF:
            raise VmferryError("internal", "An image writer went on after a piece that was not a whole block.")

    def _room(self) -> int:
        """Bytes left in the open piece; opens the next one where there are none."""
        if self._at == self._open.part.size:
            self._open_next()
        elif self._at == self._piece.at + self._piece.size:
            full = self._piece
            if full is not self._held_back or not self._head_size:
                self._close_piece(full)
            self._piece = self._filled(self._open)
        return min(self._open.part.size, self._piece.at + self._piece.size) - self._at

    def _open_next(self) -> None:
        if self._open is not self._first or not self._head_size:
            self._close(self._open)
        elif self._piece is not self._held_back:
            self._close_piece(self._piece)
        self._open, self._at = self._opened(self._open.part.number + 1), 0
        self._piece = self._filled(self._open)

    def _opened(self, number: int) -> OpenPart:
        return OpenPart(self._sizes.part(number), received=self._received.get(number))

    def _opened_piece(self, part: OpenPart, at: int) -> OpenPiece:
        left = part.part.size - at
        limit = self._pieces.first if part is self._first and not at else self._pieces.other
        cut = part.received is None and not self._store.any_offset
        with self._counting:
            part.pieces += 1
            part.unsent += 1
            return OpenPiece(part, part.pieces, at, min(left, limit) if cut else left)

    def _filled(self, part: OpenPart) -> OpenPiece:
        piece = self._opened_piece(part, self._at)
        if not self._store.any_offset and part.received is None:
            piece.buffer = self._next_buffer()
        return piece

    def _next_buffer(self) -> bytearray:
        buffer = self._buffers.acquire_now()
        if buffer is None:
            # A buffer may be free only once this very window's bytes are in it.
            self.deliver(self.take_placed())
            buffer = self._buffers.acquire()
        return buffer

    def _place(self, at: int, data: memoryview, cipher: Cipher | None, digested: bool) -> None:
        if self._open.received is not None and digested:
            return
        with self._counting:
            self._piece.awaited += len(data)
        block = len(self._open.blocks) // DIGEST_SIZE
        self._placed.append(Placement(self._piece, at - self._piece.at, data, cipher, block, digested))
        self._placed_bytes += len(data)

    def _add_hole(self, count: int) -> None:
        if count == self._open.part.size and self._open.received is None:
            if count not in self._hole_proofs:
                self._hole_proofs[count] = proof_of_hole(count)
            self._note(PartReceipt(self._open.part, self._hole_proofs[count]))
            self._open.closed = True
            return
        self._open.blocks += ZERO_DIGEST * (count // LEAF)
        if count % LEAF:
            self._open.blocks += sha256(bytes(count % LEAF)).digest()

    def _close(self, part: OpenPart) -> None:
        """The open part, with the piece that is open in it."""
        with self._counting:
            if part.closed:
                return
            part.closed = True
        self._close_piece(self._piece)

    def _close_piece(self, piece: OpenPiece) -> None:
        with self._counting:
            piece.closed = True
            whole = not piece.awaited
        if whole:
            self._send(piece)

    def _keep(self, part: OpenPart, receipt: PartReceipt) -> None:
        if receipt.part != part.part or receipt.proof != sha256(part.blocks).digest():
            raise UnfitJournal(f"Part {part.part.number} in the store is not the one that belongs there.")
        self._receipts.append(receipt)
        with self._counting:
            self.bytes_kept += receipt.part.size

    def _note(self, receipt: PartReceipt) -> None:
        self._receipts.append(receipt)
        self._taken(receipt)

    def _send(self, piece: OpenPiece) -> None:
        part, etag = piece.owner, ""
        if part.received is not None:
            self._keep(part, part.received)
            return
        alone = not piece.at and piece.size == part.part.size
        if piece.buffer is not None:
            data = memoryview(piece.buffer)[: piece.size]
            if alone:
                etag = self._store.write_part(part.part, data)
            else:
                cast(PieceWriter, self._store).write_piece(part.part, piece.number, data)
            self._count(piece.size)
            self._held(-piece.size)
            if piece is not self._held_back or not self._head_size:
                self._buffers.release(piece.buffer)
            piece.buffer = None
        with self._counting:
            part.unsent -= 1
            complete = part.closed and not part.unsent
        if not complete:
            return
        if not alone:
            etag = cast(PieceWriter, self._store).join_pieces(part.part)
        self._note(PartReceipt(part.part, sha256(part.blocks).digest(), etag))
        failpoint("part-sent")

    def _write_at(self, part: OpenPart, offset: int, data: memoryview) -> None:
        if part.received is None:
            self._store.write_at(offset, data)
            self._count(len(data))

    def _count(self, count: int) -> None:
        with self._counting:
            self.bytes_stored += count
        self._sent(count)
