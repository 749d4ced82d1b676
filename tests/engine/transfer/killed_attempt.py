# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export of a disk that dies, and what of it outlives the process: the store, and the journal beside it."""

from __future__ import annotations

import io
from typing import Any

from disks_in_memory import MemoryParts, MemorySource, PackedImage, RawImage, Rules

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_file import DigestReader, merged_leaves
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import DigestWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal import (
    DiskJournal,
    KnownDisk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.pipeline import DiskResult, export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

SMALL = Limits(workers=3, window=4 * LEAF, part=6 * LEAF, part_budget=16 * LEAF)
BINDING = "disk-0 of an export"


class KilledError(Exception):
    """In the place of SIGKILL: nothing of the export's own runs after it."""


class Store(MemoryParts):
    """Counts what it is sent, and has the process die at the n-th write."""

    def __init__(self, any_offset: bool) -> None:
        super().__init__(any_offset, self._count)
        self.writes_left = -1
        self.bytes = 0

    def _count(self) -> None:
        if self.writes_left == 0:
            raise KilledError
        self.writes_left -= 1

    def write_part(self, part, data):
        self.bytes += len(data)
        return super().write_part(part, data)

    def write_at(self, offset, data):
        self.bytes += len(data)
        super().write_at(offset, data)


RULES = Rules()


class Attempt:
    """The store with a journal beside it: what is left of a process that was killed."""

    def __init__(self, any_offset: bool, format_: str = "packed with tables", rules: Rules = RULES) -> None:
        self.rules = rules
        self.store, self.notes, self.format = Store(any_offset), dict[str, bytes](), format_
        self.file = bytearray()

    def run(
        self,
        source: MemorySource,
        *,
        limits: Limits = SMALL,
        parent: bytes | None = None,
        progress: DiskProgress | None = None,
        anew: bool = False,
    ) -> DiskResult:
        known = None if anew else KnownDisk.read(self.notes.get, "disk-0")
        self.store.pieces.clear()  # as a writer does that is taken up again
        if known is not None:
            assert known.fits(BINDING, source.size, limits)
            if self.store.any_offset:
                del self.store.file[known.end :]
        file = bytearray()
        below = merged_leaves([DigestReader(io.BytesIO(parent).read)]) if parent is not None else None
        result = export_disk(
            source,
            lambda output, data_bound: self.image(source.size, output, data_bound, known is None),
            self.store,
            DigestWriter(source.size, file.extend, below),
            limits=limits,
            rules=self.rules,
            flow=Flow(),
            progress=progress,
            journal=DiskJournal(self.notes.__setitem__, "disk-0", BINDING, self.store.token),
            known=known,
        )
        self.file = file
        if not self.store.any_offset:
            self.store.parts = {r.part.number: self.store.parts[r.part.number] for r in result.receipts}
        self.store.complete(result.receipts, result.size)
        return result

    def image(self, size: int, output: Any, data_bound: int, reads_runs: bool) -> Any:
        if self.format == "raw":
            return RawImage(size, output)
        return PackedImage(size, output, data_bound, self.format.count("tables"), reads_runs=reads_runs)

    def die(self, source: MemorySource, writes: int, **options: Any) -> bool:
        """False where it was done before."""
        self.store.writes_left = writes
        try:
            self.run(source, **options)
        except KilledError:
            return True
        finally:
            self.store.writes_left = -1
        return False
