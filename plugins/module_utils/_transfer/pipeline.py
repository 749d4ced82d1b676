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
from threading import Lock
from typing import Callable, Sequence

from .._blocks import LEAF, BlockSource, ImageOutput, ImageWriter, PartReceipt, PartWriter
from .._errors import VmferryError
from .buffers import Buffers
from .digests import Digests, DigestWriter, equal_runs, leaf_digests
from .failpoints import failpoint
from .flow import Flow, Turns
from .limits import Limits
from .part_sizes import PartRules, PartSizes
from .parts import PartAssembler
from .progress import DiskProgress
from .windows import ExtentMap, Window, windows
from .workers import run_workers


@dataclass(frozen=True)
class DiskResult:
    """What `PartWriter.complete` and the manifest need. All in bytes, `digest_root` in hex."""

    receipts: tuple[PartReceipt, ...]
    size: int  # of the object
    bytes_read: int
    bytes_stored: int  # what the store was sent; holes of a file are in `size` only
    bytes_zero: int  # of the disk, told by the source or found by reading
    bytes_unchanged: int
    digest_root: str


def export_disk(
    source: BlockSource,
    make_image: Callable[[ImageOutput, int], ImageWriter],
    parts: PartWriter,
    digests: DigestWriter,
    *,
    limits: Limits,
    rules: PartRules,
    flow: Flow,
    progress: DiskProgress | None = None,
    layered: bool = False,
) -> DiskResult:
    """Read, digest and store a disk. The caller completes or aborts `parts`.

    `make_image(output, data_bound)` gets the bytes of leaves that may hold data. Raises the first error of any thread
    when all of them have ended, and `unsupported` before the first byte where the store cannot take the object.
    """
    with flow.on_stop(source.close):  # whoever waits for the source is woken
        extents = ExtentMap(source.extents(), source.size)
    if extents.bytes_of("unchanged") and not layered:
        raise VmferryError("internal", "A full export cannot leave out what has not changed.")
    progress = progress or DiskProgress()
    progress.expect(extents.bytes_of("data"))
    assembler = PartAssembler(parts, progress.sent, progress.held)
    image = make_image(assembler, extents.data_bound)
    sizes = PartSizes.for_object(image.size_bound, image.head_size, limits.part, rules)
    held_back = sizes.first if image.head_size else 0
    assembler.begin(sizes, image.head_size, Buffers(flow, limits.part_budget - held_back, sizes.other))
    export = _Export(source, extents, image, assembler, digests, limits, flow, progress)
    with flow.on_stop(source.close):
        run_workers(flow, limits.workers, export.work)
    root = digests.finish()
    image.finish()
    assembler.finish(image.head())
    return DiskResult(
        receipts=assembler.receipts,
        size=assembler.size,
        bytes_read=extents.bytes_of("data"),
        bytes_stored=assembler.bytes_stored,
        bytes_zero=extents.bytes_of("zero") + export.zeros_found,
        bytes_unchanged=extents.bytes_of("unchanged"),
        digest_root=root,
    )


class _Export:
    def __init__(
        self,
        source: BlockSource,
        extents: ExtentMap,
        image: ImageWriter,
        assembler: PartAssembler,
        digests: DigestWriter,
        limits: Limits,
        flow: Flow,
        progress: DiskProgress,
    ) -> None:
        self._source, self._image, self._assembler = source, image, assembler
        self._digests, self._flow, self._progress = digests, flow, progress
        self._window_size = limits.window
        self._windows = enumerate(windows(extents, limits.window))
        self._taking, self._turns = Lock(), Turns(flow)
        self.zeros_found = 0

    def work(self) -> None:
        buffer = bytearray(self._window_size)  # whole leaves, so that the disk's short last one can be padded in place
        view = memoryview(buffer)
        while taken := self._take():
            number, window = taken
            count = window.data_bytes
            self._source.read_into(window.pieces(view))
            self._progress.read(count)
            found = leaf_digests(buffer, count)
            with self._turns.turn(number):
                self._lay_out(window, view, found)
                placed = self._assembler.take_placed()
            self._assembler.deliver(placed)
            self._progress.settled(count)
            failpoint("window-delivered")

    def _take(self) -> tuple[int, Window] | None:
        self._flow.raise_if_stopped()
        with self._taking:
            return next(self._windows, None)

    def _lay_out(self, window: Window, view: memoryview, found: Sequence[bytes | None]) -> None:
        at = 0  # leaves of this window laid out so far
        for run in window.runs:
            first, count = run.offset // LEAF, -(-run.length // LEAF)
            if run.kind == "zero":
                self._digests.zero(first, count)
                self._image.zero(run.offset, run.length)
                continue
            here = found[at : at + count]
            self._digests.leaves(first, here)
            self._image_data(run.offset, run.length, view[at * LEAF : (at + count) * LEAF], here)
            at += count

    def _image_data(self, offset: int, length: int, view: memoryview, digests: Digests) -> None:
        for start, stop in equal_runs(digests):
            end = min(stop * LEAF, length)
            if digests[start] is None:
                self.zeros_found += end - start * LEAF
                self._image.zero(offset + start * LEAF, end - start * LEAF)
                continue
            known = [digest for digest in digests[start:stop] if digest is not None]
            if end % LEAF:  # the image stores the short last leaf padded: a block with a digest of its own
                view[end : stop * LEAF] = bytes(stop * LEAF - end)
                known[-1] = sha256(view[(stop - 1) * LEAF : stop * LEAF]).digest()
            self._image.data(offset + start * LEAF, view[start * LEAF : stop * LEAF], known)
