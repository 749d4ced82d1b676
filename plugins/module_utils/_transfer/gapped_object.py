# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object written in order, with runs in it that are known only later: an archive's headers, which tell how long what
follows them is. A part with such a gap waits in memory until it is filled; all others go as they come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Callable, List, Optional, Sequence, Set, Tuple

from .._blocks import LEAF, ObjectInfo, Part, PartReceipt, PartWriter
from .._errors import VmferryError
from .buffers import Buffers
from .flow import Flow
from .gapped_proof import GappedProof
from .part_sizes import PartRules, PartSizes

MOST_WAITING = 3  # parts with gaps at once: the first, and of the gap behind it those that it lies across


@dataclass(frozen=True)
class Gap:
    """Bytes of the object that are to come."""

    offset: int
    size: int


@dataclass
class _OpenPart:
    part: Part
    buffer: bytearray
    gaps: Set[Gap] = field(default_factory=set)


class GappedObject:
    """`write`, `reserve`, `fill` and `take_ready` are for one thread at a time; `send` is for any.

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
        size = self._sizes.other
        self._buffers = Buffers(flow, 0 if parts.any_offset else (MOST_WAITING + under_way) * size, size)
        self._open: Optional[_OpenPart] = None
        self._waiting: List[_OpenPart] = []  # full, but for their gaps
        self._ready: List[_OpenPart] = []
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
            open_part, at = self._room()
            count = min(len(view), open_part.part.size - at)
            open_part.buffer[at : at + count] = view[:count]
            view = view[count:]
            self.size += count
            self._close_if_full(open_part)

    def reserve(self, size: int) -> Gap:
        gap = Gap(self.size, size)
        self._gaps.add(gap)
        if self._parts.any_offset:
            self._proof.reserve(size)
            self.size += size
            return gap
        left = size
        while left:
            open_part, at = self._room()
            count = min(left, open_part.part.size - at)
            open_part.gaps.add(gap)
            left -= count
            self.size += count
            self._close_if_full(open_part)
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
            start, end = max(gap.offset, one.part.offset), min(gap.offset + gap.size, one.part.offset + one.part.size)
            one.buffer[start - one.part.offset : end - one.part.offset] = data[start - gap.offset : end - gap.offset]
            one.gaps.discard(gap)
        self._find_ready()

    def take_ready(self) -> Sequence[_OpenPart]:
        ready, self._ready = self._ready, []
        return ready

    def send(self, ready: Sequence[_OpenPart]) -> None:
        for one in ready:
            data = memoryview(one.buffer)[: one.part.size]
            etag = self._parts.write_part(one.part, data)
            proof = sha256(b"".join(sha256(data[at : at + LEAF]).digest() for at in range(0, len(data), LEAF)))
            with self._lock:
                self._receipts.append(PartReceipt(one.part, proof.digest(), etag))
            self._sent(len(data))
            self._buffers.release(one.buffer)

    def finish(self, *, if_absent: bool = False) -> ObjectInfo:
        """Everything that was taken has been sent. The object appears."""
        if self._gaps:
            raise VmferryError("internal", f"{len(self._gaps)} runs of an object were never filled.")
        if self._open is not None:
            planned = self._open.part
            self._open.part = Part(planned.number, planned.offset, self.size - planned.offset)
            self._ready.append(self._open)
            self._open = None
        self.send(self.take_ready())
        if self._parts.any_offset and not self._receipts:
            self._receipts = [PartReceipt(part, proof) for part, proof in self._proof.finish()]
        self._receipts.sort(key=lambda receipt: receipt.part.number)
        return self._parts.complete(self._receipts, self.size, if_absent=if_absent)

    @property
    def receipts(self) -> Sequence[PartReceipt]:
        """Of all parts in order, once it is finished."""
        return self._receipts

    def _room(self) -> Tuple[_OpenPart, int]:
        """The part that is being filled, and where in it the next byte belongs."""
        if self._open is None:
            part = self._sizes.part(self._sizes.number_at(self.size))
            self._open = _OpenPart(part, self._buffer())
        return self._open, self.size - self._open.part.offset

    def _buffer(self) -> bytearray:
        buffer = self._buffers.acquire_now()
        if buffer is None:  # whoever waits for others sends first what they might wait for
            self.send(self.take_ready())
            buffer = self._buffers.acquire()
        return buffer

    def _close_if_full(self, one: _OpenPart) -> None:
        if self.size == one.part.offset + one.part.size:
            self._waiting.append(one)
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
