# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed export of a disk needs to go on: which leaves it found, and which parts the store took.

Where bytes lie in an image follows from the kinds and digests of the leaves, in guest order. So nothing of the image
writer is saved: an export that goes on lays everything out again, from the journal instead of from the disk, and reads
only what parts need that the store does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Callable, Iterator, Sequence

from .._blocks import PartReceipt
from .._errors import VmferryError
from .digests import Digests
from .failpoints import failpoint
from .journal_entries import Entry, JournalHeader, KnownWindow, pack_entry, read_entries
from .limits import Limits
from .part_sizes import PartSizes
from .windows import ExtentMap

STEP = 16 * 1024 * 1024  # bytes that the store takes between two entries: so much may be sent again
SMALL = STEP // 4  # an object of fewer bytes is rather sent again than written down
MANY_LEAVES = 16384  # and so many leaves (512 KiB of digests), where little is sent
CHAPTER = 16  # entries in one object, which is replaced as it grows


class UnfitJournal(VmferryError):
    """What is there is not what the journal says. Nothing can be gone on with; the disk is exported anew."""

    def __init__(self, message: str) -> None:
        super().__init__("conflict", message, "Export again: this disk begins anew.", retryable=True)


def header_name(disk: str) -> str:
    return f"{disk}.journal"


def _map_name(disk: str) -> str:
    return f"{disk}.extents"


def _chapter_name(disk: str, number: int) -> str:
    return f"{disk}.journal-{number}"


@dataclass(frozen=True)
class Place:
    """Behind an entry: the chapter, how many entries and which bytes it has so far, and the entry's seal."""

    chapter: int
    entries: int
    data: bytes
    seal: bytes


class KnownDisk:
    """A journal as it was found. Of a large disk it is longer than what may be held, so it is read once to see what
    is sound, and once more while the export goes on.
    """

    def __init__(self, read: Callable[[str], bytes | None], disk: str, header: JournalHeader, extents: ExtentMap):
        self._read, self._disk, self.header, self.extents = read, disk, header, extents
        self.count = self.end = 0  # windows, and where the object ends behind them
        self.closed = False
        self.receipts: dict[int, PartReceipt] = {}
        self.last = Place(0, 0, b"", header.seal)
        for entry, behind in self._entries():
            self.last = behind
            self.count += len(entry.windows)
            self.end = entry.end if entry.closed else entry.windows[-1].end if entry.windows else self.end
            self.closed = self.closed or entry.closed
            self.receipts.update((receipt.part.number, receipt) for receipt in entry.receipts)

    @classmethod
    def read(cls, read: Callable[[str], bytes | None], disk: str) -> KnownDisk | None:
        """`read(name)` gives what was written under this name, or None. None where nothing can be gone on with."""
        text = read(header_name(disk))
        header = JournalHeader.parse(text) if text is not None else None
        packed = read(_map_name(disk)) if header is not None else None
        if header is None or packed is None or sha256(packed).hexdigest() != header.extents:
            return None
        try:
            return cls(read, disk, header, ExtentMap.unpacked(packed, header.size))
        except VmferryError as error:
            if error.kind != "internal":  # the map is none
                raise
            return None

    def fits(self, binding: str, size: int, limits: Limits) -> bool:
        """Whether it is about this disk, and was made with no more memory than there is now."""
        header = self.header
        return (header.binding, header.size) == (binding, size) and limits.allow(header.window, header.part)

    def windows(self) -> Iterator[tuple[int, KnownWindow]]:
        """Where the object began with each, which for the first one only the image knows (0), and the window."""
        before, left = 0, self.count
        for entry, _unused in self._entries():
            for window in entry.windows:
                if not left:
                    return
                yield before, window
                before, left = window.end, left - 1
        if left:
            raise UnfitJournal(f"The journal of {self._disk} was changed while it was read.")

    def _entries(self) -> Iterator[tuple[Entry, Place]]:
        chapter, seal = 0, self.header.seal
        while (data := self._read(_chapter_name(self._disk, chapter))) is not None:
            count = done = 0
            for entry, sealed, ended in read_entries(data, seal):
                count, done, seal = count + 1, ended, sealed
                yield entry, Place(chapter, count, data[:done], seal)
            if count < CHAPTER or done < len(data):
                return
            chapter += 1


class DiskJournal:
    """Written by whichever worker finds that an entry is due, one at a time."""

    def __init__(self, write: Callable[[str, bytes], object], disk: str, binding: str, token: str) -> None:
        """`write(name, data)` puts what has to survive this process, not the power. `token` of the object's writer."""
        self._write, self._disk, self._binding, self._token = write, disk, binding, token
        self._lock, self._writing = Lock(), Lock()
        self._windows: list[KnownWindow] = []
        self._receipts: list[PartReceipt] = []
        self._leaves = self._stored = 0
        self._at = Place(0, 0, b"", b"")
        self._header: JournalHeader | None = None
        self._packed: bytes | None = None
        self._off = False

    def begin(self, size: int, limits: Limits, sizes: PartSizes, extents: ExtentMap) -> None:
        """A map that is too large to be held a second time leaves the disk without a journal."""
        packed = extents.packed()
        if packed is None:
            self._off = True
            return
        extents_sum = sha256(packed).hexdigest()
        self._packed, self._header = (
            packed,
            JournalHeader(
                self._binding, size, limits.window, limits.part, sizes.first, sizes.other, self._token, extents_sum
            ),
        )
        self._at = Place(0, 0, b"", self._header.seal)

    def go_on(self, known: KnownDisk) -> None:
        """Behind what was found, instead of `begin`."""
        self._header, self._at = known.header, known.last

    def window(self, digests: Digests, end: int) -> None:
        """In guest order."""
        if self._off:
            return
        with self._lock:
            self._windows.append(KnownWindow(end, digests))
            self._leaves += len(digests)

    def received(self, receipt: PartReceipt) -> None:
        if self._off:
            return
        with self._lock:
            self._receipts.append(receipt)

    def write_if_due(self, stored: int) -> None:
        """`stored`: bytes that the store has taken so far."""
        late = stored - self._stored
        if self._off or (late < STEP and self._leaves < MANY_LEAVES):
            return
        if self._writing.acquire(blocking=late >= 2 * STEP):
            try:
                if stored - self._stored >= STEP or self._leaves >= MANY_LEAVES:
                    self._write_entry(stored)
            finally:
                self._writing.release()
            failpoint("journal-written")

    def close(self, end: int, stored: int) -> None:
        """Before the object of `end` bytes is completed: every part is sent."""
        if self._off or (self._packed is not None and stored < SMALL):
            return
        self._write_entry(stored, closed=True, end=end)
        failpoint("journal-closed")

    def _write_entry(self, stored: int, closed: bool = False, end: int = 0) -> None:
        if self._packed is not None and self._header is not None:
            self._write(_map_name(self._disk), self._packed)
            self._write(header_name(self._disk), self._header.to_json())
            self._packed = None
        with self._lock:
            entry = Entry(tuple(self._windows), tuple(self._receipts), closed, end)
            self._windows, self._receipts, self._leaves = [], [], 0
        at = self._at
        if at.entries == CHAPTER:
            at = Place(at.chapter + 1, 0, b"", at.seal)
        packed, seal = pack_entry(entry, at.seal)
        self._at = at = Place(at.chapter, at.entries + 1, at.data + packed, seal)
        self._stored = stored
        self._write(_chapter_name(self._disk, at.chapter), at.data)


def received_parts(known: KnownDisk, sizes: PartSizes) -> Sequence[PartReceipt]:
    """Those of which every byte is known: what was laid out in them by windows that are not is not."""
    return [
        receipt
        for number, receipt in known.receipts.items()
        if number > 0
        and receipt.part.offset == sizes.part(number).offset
        and receipt.part.size <= sizes.part(number).size
        and (known.closed or receipt.part.offset + receipt.part.size <= known.end)
    ]
