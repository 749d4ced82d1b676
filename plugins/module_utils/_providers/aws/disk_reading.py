# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of an instance as snapshots of its volumes have them, whoever made these, read by EBS direct."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Dict, List, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..base import ExportDisk
from ..spec import DiskSpec, VmSpec
from .block_reader import BlockReader
from .change_token import Since
from .crew import Crew
from .request_rate import RequestRates
from .session import Session
from .snapshot_blocks import BLOCK, KeptPages, SnapshotBlocks
from .snapshot_disk import PARALLEL, SnapshotDisk
from .snapshot_set import EbsSnapshot

METHOD = "ebs_direct"
# Kinds of answers to the question what changed that only mean that it cannot be told any more.
_LOST = ("conflict", "not_found", "unsupported", "invalid_config", "internal")


class DiskReading:
    """All its disks share their requests, and the pages that they remember."""

    lost = ""  # why nobody can tell any more what changed; a sentence

    def __init__(
        self, session: Session, flow: Flow, vm: str, snapshots: Mapping[str, EbsSnapshot], ahead: bool = False
    ) -> None:
        """`vm`: its name. `snapshots`: by the disk's name. `ahead`: they will be read in order, and their extents are
        known already."""
        account = next((one.account for one in snapshots.values() if one.account), "") or session.account
        self._session, self._flow, self._vm, self._set, self._ahead = session, flow, vm, snapshots, ahead
        self._pages = KeptPages()
        self._free: List[bytearray] = []  # memory for blocks, used again
        self._open = ExitStack()
        self._rates = RequestRates(account, session.region, flow.sleep)
        self._open.callback(self._rates.close)
        self._crew = Crew(PARALLEL)
        self._open.callback(self._crew.close)

    def open(self, chosen: Sequence[DiskSpec], known: Since) -> Tuple[ExportDisk, ...]:
        """`known`: since when it is to be told what changed."""
        whole = {disk.name: self._blocks(disk) for disk in chosen}
        changed = self._changed(chosen, known)
        return tuple(self._disk(disk, whole[disk.name], changed.get(disk.name)) for disk in chosen)

    def close(self) -> None:
        self._open.close()

    def _disk(self, disk: DiskSpec, whole: SnapshotBlocks, changed: SnapshotBlocks | None) -> ExportDisk:
        one, label = self._set[disk.name], self._label(disk)
        reader = BlockReader(self._session, self._rates, one.id, label, self._flow.sleep, one.key, self._free)
        source = SnapshotDisk(self._crew, reader, whole, label, ahead=self._ahead)
        self._open.callback(source.close)
        changes = None
        if changed is not None:
            changes = SnapshotDisk(self._crew, reader, whole, label, changed, self._ahead)
            self._open.callback(changes.close)
        return ExportDisk(replace(disk, size=one.size), source, changes, METHOD, BLOCK)

    def _blocks(self, disk: DiskSpec, older: str = "") -> SnapshotBlocks:
        one = self._set[disk.name]
        return SnapshotBlocks(self._session, self._rates, one.id, one.size, self._label(disk), older, self._pages)

    def _changed(self, chosen: Sequence[DiskSpec], known: Since) -> Dict[str, SnapshotBlocks]:
        """By a disk's name; none where that of one is lost, which the first page of its list tells."""
        found: Dict[str, SnapshotBlocks] = {}
        for disk in chosen:
            older = known.snapshots.get(disk.name)
            if older is None:
                continue
            if older.size != self._set[disk.name].size:
                return {}  # whoever compares the sizes says so
            found[disk.name] = self._blocks(disk, older.id)
            try:
                found[disk.name].page_at(0)
            except VmferryError as error:
                if error.kind not in _LOST:
                    raise
                self.lost = error.message
                return {}
        return found

    def _label(self, disk: DiskSpec) -> str:
        return f"{disk.name} of {self._vm}"


def with_sizes(vm: VmSpec, disks: Sequence[ExportDisk]) -> VmSpec:
    """As it was when the snapshots were made: a volume may have grown since."""
    sizes = {disk.spec.id: disk.spec for disk in disks}
    return vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in vm.disks))
