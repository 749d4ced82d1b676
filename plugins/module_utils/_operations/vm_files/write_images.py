# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of one disk as a file of its own, and the SHA-256 of that file.

The head of most formats is known last, so that no one pass over the bytes in their order can sum them up. They are read
back once: each part is compared with what was sent, which proves that the store has it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from secrets import token_hex
from typing import Callable, List, Tuple

from ..._blocks import ImageOutput, ImageWriter, ObjectInfo, PartReceipt, PartWriter
from ..._errors import VmferryError
from ..._exports.proven import ProvenPart
from ..._providers.base import ReadDisk
from ..._transfer import pipeline
from ..._transfer.flow import Flow
from ..._transfer.limits import Limits
from ..._transfer.progress import DiskProgress
from ..._transfer.proved_digests import digests_of, output_for
from ..._transfer.windows import ExtentMap
from ..stored.appliance_files import WrittenFile
from ..stored.image_formats import image_writer, streamed_image
from ..stored.stored_objects import StoredParts, flaw_of_size
from ..stored.write_appliance import Writing


@dataclass(frozen=True)
class Reading:
    """What reads back: plays the job of `StoredParts`."""

    flow: Flow
    limits: Limits


def write_image(
    how: Writing, limits: Limits, key: str, file: str, disk: ReadDisk, *, joins_parts: bool = False
) -> WrittenFile:
    """The object is there, whole and proved. Raising leaves what was complete. `joins_parts`: as the store says."""
    digests = digests_of(disk.source, disk.check)
    extents, size = pipeline.read_extents(disk.source, how.flow), disk.source.size
    with ExitStack() as on_error:
        parts, make, interrupt = _opened(how, key, extents, size, joins_parts)
        on_error.callback(_abort, how.flow, parts)
        with how.flow.on_stop(interrupt):
            made = pipeline.export_disk(
                disk.source,
                lambda output, bound: make(output_for(output, digests), bound),
                parts,
                digests,
                limits=limits,
                rules=how.rules,
                flow=how.flow,
                progress=disk.progress,
                extents=extents,
            )

        def complete() -> ObjectInfo:
            with disk.progress.rest():
                return parts.complete(made.receipts, made.size, if_absent=how.if_absent)

        how.make(key, complete)
        on_error.pop_all()
    summed = _read_back(how, limits, key, made.size, made.receipts, disk.progress)
    return WrittenFile(file, made.size, summed, made.digest_root, made.bytes_read, made.bytes_zero)


def _opened(
    how: Writing, key: str, extents: ExtentMap, size: int, joins_parts: bool
) -> Tuple[PartWriter, Callable[[ImageOutput, int], ImageWriter], Callable[[], object]]:
    """A store that moves the bytes of parts more than once is sent one stream, where the length is known before."""
    identity = token_hex(16)  # an import begins anew, so that nobody has to know it again
    if joins_parts:
        planned = streamed_image(how.format, size, extents, identity)
        stream = how.store.open_stream(key, planned.size, metadata=how.metadata) if planned is not None else None
        if planned is not None and stream is not None:
            writer = planned.writer
            return stream, lambda output, bound: writer(output), stream.interrupt

    def make(output: ImageOutput, bound: int) -> ImageWriter:
        return image_writer(how.format, size, output, extents, bound, identity=identity)

    return how.store.open_parts(key, metadata=how.metadata), make, lambda: None


def _abort(flow: Flow, parts: PartWriter) -> None:
    with flow.shielded():
        parts.abort()


def _read_back(
    how: Writing, limits: Limits, key: str, size: int, receipts: Tuple[PartReceipt, ...], progress: DiskProgress
) -> str:
    where = how.store.object_url(key)
    hint = "The store did not keep what it was given. Look at its health, and run the task again."
    flaw = flaw_of_size(how.store, key, size)
    if flaw:
        raise VmferryError("checksum_mismatch", f"{where} {flaw}.", hint)
    proven: List[ProvenPart] = [ProvenPart(receipt.part.size, receipt.proof.hex()) for receipt in receipts]

    def damaged(number: int) -> None:
        offset = sum(part.size for part in proven[:number])
        text = f"{where} differs from what was sent in the part at {offset}."
        raise VmferryError("checksum_mismatch", text, hint)

    return StoredParts(Reading(how.flow, limits), how.store, key, proven, damaged).read(_Alive(progress))


class _Alive(DiskProgress):
    """Of what is no byte of the import: a sign of life."""

    def __init__(self, progress: DiskProgress) -> None:
        super().__init__()
        self._of = progress

    def read(self, count: int) -> None:
        self._of.alive()
