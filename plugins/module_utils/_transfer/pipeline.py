# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk, from its source to a store: workers that each take a window through read, digest, lay out, deliver.

Laying out is the only step that happens in guest order, and it moves no data: it decides where bytes go. There is no
queue: a worker owns one window's memory. A worker waits for its turn with nothing that an earlier window needs, so
there is always one that can go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from threading import Lock
from typing import Callable, Iterable, Iterator, Sequence

from .._blocks import LEAF, BlockSource, Extent, ImageOutput, ImageWriter, Kind, PartReceipt, PartWriter
from .._errors import VmferryError
from .buffers import Buffers
from .digests import Digests, DiskDigests, leaf_digests
from .failpoints import failpoint
from .flow import Flow, Turns
from .journal import DiskJournal, KnownDisk, UnfitJournal, received_parts
from .journal_entries import KnownWindow
from .limits import Limits
from .part_sizes import PartRules, PartSizes, Pieces
from .parts import PartAssembler
from .progress import DiskProgress
from .windows import ExtentMap, Window, windows
from .workers import run_workers

NOTHING = memoryview(b"")


@dataclass(frozen=True)
class DiskResult:
    """What `PartWriter.complete` and the manifest need. All in bytes, `digest_root` in hex."""

    receipts: tuple[PartReceipt, ...]
    size: int  # of the object
    bytes_read: int
    bytes_stored: int  # what the store was sent; holes of a file are in `size` only
    bytes_kept: int  # of parts that an earlier run had sent
    bytes_zero: int  # of the disk, that the image holds as zeros, told by the source or found by reading
    bytes_unchanged: int  # of the disk, that the image leaves to its parent
    digest_root: str


def export_disk(
    source: BlockSource,
    make_image: Callable[[ImageOutput, int], ImageWriter],
    parts: PartWriter,
    digests: DiskDigests,
    *,
    limits: Limits,
    rules: PartRules,
    flow: Flow,
    progress: DiskProgress | None = None,
    extents: ExtentMap | None = None,
    journal: DiskJournal | None = None,
    known: KnownDisk | None = None,
) -> DiskResult:
    """Read, digest and store a disk. The caller completes or aborts `parts`.

    `make_image(output, data_bound)` gets the bytes of leaves that may hold data. Where `digests` know a parent, a leaf
    that equals the parent's is left out, whatever the source says of it. `extents`: of the source, where they are known
    already. Raises the first error of any thread when all of them have ended, and `unsupported` before the first byte
    where the store cannot take the object.

    `journal` is written as the export goes. With `known`, which must fit, it goes on where an earlier one ended that
    had the same image, parent and digests; raises `UnfitJournal` where that turns out to have been another disk.
    """
    if known is not None:
        limits, extents = limits.like(known.header.window, known.header.part), known.extents
    extents = extents or read_extents(source, flow)
    if extents.bytes_of("unchanged") and not digests.layered:
        raise VmferryError("internal", "A full export cannot leave out what has not changed.")
    progress = progress or DiskProgress()
    progress.expect(extents.bytes_of("data"))
    assembler = PartAssembler(parts, progress.sent, progress.held, journal.received if journal else lambda part: None)
    image = make_image(assembler, extents.data_bound)
    sizes = PartSizes.for_object(image.size_bound, image.head_size, limits.part, rules, limits.asked)
    received = _confirmed(parts, known, sizes, flow, limits, progress) if known is not None else {}
    if journal is not None:
        journal.go_on(known) if known is not None else journal.begin(source.size, limits, sizes, extents)
    pieces = Pieces(sizes.first, sizes.other)
    if rules.joins_pieces:
        pieces = sizes.pieces(limits.part_budget, limits.part, image.head_size, rules.min_part)
    held_back = pieces.first if image.head_size else 0
    buffers = Buffers(flow, limits.part_budget - held_back, pieces.other)
    assembler.begin(sizes, image.head_size, buffers, received, pieces)
    export = _Export(source, extents, image, assembler, digests, limits, flow, progress, journal, known)
    with flow.on_stop(source.close):
        run_workers(flow, limits.workers, export.work)
    root = digests.finish()
    image.finish()
    assembler.finish(image.head())
    if journal is not None and not (known is not None and known.closed):
        journal.close(assembler.size, assembler.bytes_stored + assembler.bytes_kept)
    return DiskResult(
        receipts=assembler.receipts,
        size=assembler.size,
        bytes_read=extents.bytes_of("data"),
        bytes_stored=assembler.bytes_stored,
        bytes_kept=assembler.bytes_kept,
        bytes_zero=export.bytes_of["zero"],
        bytes_unchanged=extents.bytes_of("unchanged") + export.bytes_of["unchanged"],
        digest_root=root,
    )


def read_extents(source: BlockSource, flow: Flow) -> ExtentMap:
    with flow.on_stop(source.close):  # whoever waits for the source is woken
        return ExtentMap(source.extents(), source.size)


def _confirmed(
    parts: PartWriter, known: KnownDisk, sizes: PartSizes, flow: Flow, limits: Limits, progress: DiskProgress
) -> dict[int, PartReceipt]:
    """The parts that are known whole, and that the store really has."""
    if (known.header.first, known.header.other) != (sizes.first, sizes.other):
        raise UnfitJournal("The earlier export cut the object into other parts.")
    wanted, found = iter(received_parts(known, sizes)), {}
    taking = Lock()

    def look() -> None:
        while True:
            flow.raise_if_stopped()
            with taking:
                receipt = next(wanted, None)
            if receipt is None:
                return
            if parts.confirms(receipt):
                found[receipt.part.number] = receipt
            progress.alive()

    run_workers(flow, limits.workers, look)
    return found


class _Export:
    def __init__(
        self,
        source: BlockSource,
        extents: ExtentMap,
        image: ImageWriter,
        assembler: PartAssembler,
        digests: DiskDigests,
        limits: Limits,
        flow: Flow,
        progress: DiskProgress,
        journal: DiskJournal | None,
        known: KnownDisk | None,
    ) -> None:
        self._journal = journal
        self._known = known.windows() if known is not None else iter(())
        self._source, self._image, self._assembler = source, image, assembler
        self._digests, self._flow, self._progress = digests, flow, progress
        self._window_size = limits.window
        self._windows = enumerate(windows(extents, limits.window))
        self._taking, self._turns, self._comparing = Lock(), Turns(flow), Turns(flow)
        self.bytes_of: dict[Kind, int] = dict.fromkeys(("data", "zero", "unchanged"), 0)

    def work(self) -> None:
        buffer = bytearray(self._window_size)  # whole leaves, so that the disk's short last one can be padded in place
        view = memoryview(buffer)
        while taken := self._take():
            number, window, known = taken
            count = window.data_bytes
            found = self._find(window, buffer, view, known)
            self._progress.read(count)
            steps = self._packed(number, window, view, found) if self._image.codec is not None else None
            with self._turns.turn(number):
                self._lay_out(self._compared(window, view, found) if steps is None else steps)
                placed = self._assembler.take_placed()
                self._write_down(found, known)
            self._assembler.deliver(placed)
            self._progress.settled(count)
            failpoint("window-delivered")
            if self._journal is not None:
                self._journal.write_if_due(self._assembler.bytes_stored)

    def _take(self) -> tuple[int, Window, tuple[int, KnownWindow] | None] | None:
        self._flow.raise_if_stopped()
        with self._taking:
            taken = next(self._windows, None)
            return None if taken is None else (*taken, next(self._known, None))

    def _find(
        self, window: Window, buffer: bytearray, view: memoryview, known: tuple[int, KnownWindow] | None
    ) -> Digests:
        """The window in `view`, and its leaves' digests. What the store has whole already is not read again."""
        if known is not None:
            start, before = known
            if len(before.digests) != -(-window.data_bytes // LEAF):
                raise UnfitJournal("The earlier export cut the disk into other windows.")
            # The disk's short last leaf is stored padded, with a digest that takes its bytes; and where leaves are
            # compressed, what is laid out next depends on their bytes. What is stored encrypted can be compared only
            # once it is encrypted again.
            if (
                self._image.codec is None
                and not self._image.encrypts
                and not window.data_bytes % LEAF
                and self._assembler.is_received(start, before.end)
            ):
                return before.digests
        self._source.read_into(window.pieces(view))
        found = leaf_digests(buffer, window.data_bytes, window.leaves(), self._digests.leaf_hash)
        if known is not None and found != known[1].digests:
            first = window.runs[0].offset
            raise UnfitJournal(f"What was read at byte {first} is no longer what the earlier export read there.")
        return found

    def _write_down(self, found: Digests, known: tuple[int, KnownWindow] | None) -> None:
        end = self._assembler.size
        if known is None:
            if self._journal is not None:
                self._journal.window(found, end)
        elif known[1].end != end:
            raise UnfitJournal("The image is laid out in other places than the earlier export's.")

    def _packed(self, number: int, window: Window, view: memoryview, found: Digests) -> Sequence[_Step]:
        """What is left of a window after the comparison, which goes in guest order, compressed in no order at all."""
        codec = self._image.codec
        with self._comparing.turn(number):
            steps = list(self._compared(window, view, found))
        if codec is not None:
            for step in steps:
                step.packed = [codec.pack(step.data[at : at + LEAF]) for at in range(0, len(step.data), LEAF)]
        return steps

    def _lay_out(self, steps: Iterable[_Step]) -> None:
        for step in steps:
            if step.digests:
                self._image.data(step.offset, step.data, step.digests, step.packed)
            else:
                self._image.zero(step.offset, step.length)

    def _compared(self, window: Window, view: memoryview, found: Digests) -> Iterator[_Step]:
        """What the image has to hold of a window: in guest order, and one window after the other."""
        at = 0  # leaves of this window so far
        for run in window.runs:
            first, count = run.offset // LEAF, -(-run.length // LEAF)
            if run.kind == "zero":
                yield from self._zeros(run, first, count)
                continue
            here = found[at : at + count]
            kinds = self._digests.leaves(first, here)
            yield from self._image_data(run, view[at * LEAF : (at + count) * LEAF], here, kinds)
            at += count

    def _zeros(self, run: Extent, first: int, count: int) -> Iterator[_Step]:
        told = 0
        for start, number in self._digests.zero(first, count):
            offset, end = start * LEAF, min((start + number) * LEAF, run.end)
            yield _Step(offset, end - offset)
            told += end - offset
        self.bytes_of["zero"] += told
        self.bytes_of["unchanged"] += run.length - told

    def _image_data(self, run: Extent, view: memoryview, digests: Digests, kinds: Sequence[Kind]) -> Iterator[_Step]:
        for kind, start, stop in neighbours(kinds):
            end = min(stop * LEAF, run.length)
            self.bytes_of[kind] += end - start * LEAF
            if kind == "zero":
                yield _Step(run.offset + start * LEAF, end - start * LEAF)
            elif kind == "data":
                known = [digest for digest in digests[start:stop] if digest is not None]
                if end % LEAF:  # the image stores the short last leaf padded: a block with a digest of its own
                    view[end : stop * LEAF] = bytes(stop * LEAF - end)
                    known[-1] = sha256(view[(stop - 1) * LEAF : stop * LEAF]).digest()
                data = view[start * LEAF : stop * LEAF]
                yield _Step(run.offset + start * LEAF, len(data), data, known)


@dataclass
class _Step:
    """A run for the image: zeros, or data with the digests of its leaves, and what the codec made of them."""

    offset: int
    length: int
    data: memoryview = NOTHING
    digests: Sequence[bytes] = ()
    packed: Sequence[bytes | None] = ()


def neighbours(kinds: Sequence[Kind]) -> Iterator[tuple[Kind, int, int]]:
    """`(kind, start, stop)` of neighbours of one kind."""
    start = 0
    for kind, group in groupby(kinds):
        stop = start + len(list(group))
        yield kind, start, stop
        start = stop
