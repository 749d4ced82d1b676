# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk as an EBS snapshot has it, read in blocks of 512 KiB, many at once.

One request takes tens of milliseconds and brings half a MiB, so that what is read in order is read ahead. What no list
names was never written, and reads as zeros.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Dict, Iterator, List, Sequence, Set, Tuple, Union

from ..._blocks import Extent, Kind, Piece
from ..._errors import VmferryError
from .block_reader import BlockReader
from .crew import Crew, Task
from .snapshot_blocks import BLOCK, GONE, Page, SnapshotBlocks

PARALLEL = 16  # requests under way: at 30 ms each, half of what an account may send
MOST = 20  # blocks in memory, those under way included, unless more are asked for at once: 10 MiB
_NEAR = 8  # blocks that may be passed over where what is read is still in order: several threads do

Block = Union[bytes, bytearray]
Taking = List[Tuple[int, memoryview]]  # where in a block, and where it belongs


class _Slot:
    """A block that is under way, or was brought. `users`: who wait for it; `left`: bytes that nobody took yet."""

    def __init__(self, task: Task[Block]) -> None:
        self.task, self.users, self.left = task, 0, BLOCK


class SnapshotDisk:
    """Plays BlockSource. With `changed`, extents are `unchanged` where no block differs from the older snapshot."""

    def __init__(
        self,
        crew: Crew,
        reader: BlockReader,
        blocks: SnapshotBlocks,
        label: str,
        changed: SnapshotBlocks | None = None,
        ahead: bool = False,
    ) -> None:
        """`ahead`: it will be read in order, and its extents are known already."""
        self._crew, self._reader, self._blocks, self._changed = crew, reader, blocks, changed
        self._listed = changed or blocks
        self._label, self._ahead = label, ahead
        self.size = blocks.size
        self._lock = Lock()
        self._closed = False
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._asking: Set[Task[Page]] = set()
        self._farthest = -1  # block that was asked for

    def extents(self) -> Iterator[Extent]:
        """Each page of the list is asked for when it is needed."""
        self._ahead = True
        between: Kind = "zero" if self._changed is None else "unchanged"
        at = 0
        while at < self.size:
            page = self._page(at // BLOCK)
            for extent in _runs(page):
                if at < extent.offset:
                    yield Extent(at, extent.offset - at, between)
                yield extent
                at = extent.end
            end = min(page.end * BLOCK, self.size)
            if at < end:
                yield Extent(at, end - at, between)
            at = end

    def read_into(self, pieces: Sequence[Piece]) -> None:
        wanted = _by_block(pieces)
        taken: Dict[int, _Slot] = {}
        try:
            for index in wanted:
                taken[index] = self._slot(index)
            for index, parts in wanted.items():
                _fill(parts, taken[index].task.result())
        finally:
            self._give_back({index: sum(len(view) for _at, view in wanted[index]) for index in taken}, taken)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            slots, asking = list(self._slots.values()), list(self._asking)
            self._slots.clear()
        for slot in slots:
            slot.task.give_up(self._cancelled())
        for task in asking:
            task.give_up(self._cancelled())

    def _page(self, index: int) -> Page:
        task: Task[Page] = Task(lambda: self._reader.page(self._listed, index))
        with self._lock:
            if self._closed:
                raise self._cancelled()
            self._asking.add(task)
        self._crew.add(task, first=True)
        try:
            return task.result()
        finally:
            with self._lock:
                self._asking.discard(task)

    def _slot(self, index: int) -> _Slot:
        with self._lock:
            if self._closed:
                raise self._cancelled()
            slot = self._slots.get(index)
            if slot is not None and slot.task.failed:
                slot = None  # it was read ahead, and may well be there by now
            fresh = slot is None
            if slot is None:
                slot = self._slots[index] = _Slot(Task(lambda: self._read(index)))
            slot.users += 1
            self._trim()
        if fresh:
            self._crew.add(slot.task, first=True)
        elif self._ahead:
            self._look_ahead(index)
        return slot

    def _read(self, index: int) -> Block:
        """By a thread of the crew. What did not change is read as the snapshot itself has it."""
        if self._changed is not None and self._reader.page(self._changed, index).token(index) is None:
            return self._reader.read(self._blocks, index)
        if self._ahead:
            self._reader.page(self._listed, index)
            self._look_ahead(index)
        return self._reader.read(self._listed, index)

    def _look_ahead(self, index: int) -> None:
        """Once a block is asked for that lies right behind the farthest one so far."""
        page = self._listed.known(index)
        if page is None:
            return
        begun = []
        with self._lock:
            if index <= self._farthest or self._closed:
                return
            here = page.position(index)
            near = self._farthest < 0 or here - page.position(self._farthest + 1) <= _NEAR
            self._farthest = index
            if not near:
                return
            for at in range(here, min(here + MOST, len(page.indexes))):
                if len(self._slots) >= MOST:
                    break
                begun += self._begun(page.indexes[at], page.tokens[at])
        for task in begun:
            self._crew.add(task)

    def _begun(self, index: int, token: str) -> List[Task[Block]]:
        if token == GONE or index in self._slots:
            return []
        slot = self._slots[index] = _Slot(Task(lambda: self._reader.read(self._listed, index)))
        return [slot.task]

    def _give_back(self, lengths: Dict[int, int], taken: Dict[int, _Slot]) -> None:
        with self._lock:
            for index, slot in taken.items():
                slot.users -= 1
                slot.left -= lengths[index]
                if slot.users == 0 and slot.left <= 0 and self._slots.get(index) is slot:
                    del self._slots[index]
                    self._reuse(slot)
            self._trim()

    def _trim(self) -> None:
        """What was read ahead, or in part, and nobody came for: the oldest first."""
        for index in [index for index, slot in self._slots.items() if not slot.users]:
            if len(self._slots) <= MOST:
                return
            self._reuse(self._slots.pop(index))

    def _reuse(self, slot: _Slot) -> None:
        """Nobody looks at it, nor will: it is out of `_slots`. One that is still under way keeps its memory."""
        if slot.task.done and not slot.task.failed:
            self._reader.reuse(slot.task.result())

    def _cancelled(self) -> VmferryError:
        return VmferryError("cancelled", f"Reading {self._label} was ended.")


def _runs(page: Page) -> Iterator[Extent]:
    """Of what is listed; neighbours of one kind together."""
    start, count, zero = 0, 0, False
    for index, token in zip(page.indexes, page.tokens):
        if count and index == start + count and (token == GONE) == zero:
            count += 1
            continue
        if count:
            yield Extent(start * BLOCK, count * BLOCK, "zero" if zero else "data")
        start, count, zero = index, 1, token == GONE
    if count:
        yield Extent(start * BLOCK, count * BLOCK, "zero" if zero else "data")


def _by_block(pieces: Sequence[Piece]) -> OrderedDict[int, Taking]:
    found: OrderedDict[int, Taking] = OrderedDict()
    for offset, buffer in pieces:
        at = 0
        while at < len(buffer):
            index, inside = divmod(offset + at, BLOCK)
            count = min(BLOCK - inside, len(buffer) - at)
            found.setdefault(index, []).append((inside, buffer[at : at + count]))
            at += count
    return found


def _fill(parts: Taking, block: Block) -> None:
    with memoryview(block or bytes(BLOCK)) as view:
        for inside, buffer in parts:
            buffer[:] = view[inside : inside + len(buffer)]
