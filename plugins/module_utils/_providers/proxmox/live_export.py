# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a running VM at one point in time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Dict, List, Mapping, Sequence

from ..._appliances.qm_words import EFI_DISK
from ..._errors import VmferryError
from ..._nbd.transport import Address
from ..._transfer.failpoints import failpoint
from ..base import Consistency, ExportDisk, Tracking
from ..job import Job
from ..spec import DiskSpec, VmSpec
from .block_nodes import BlockNode, block_nodes, node_of
from .drives import Drive
from .export_session import ProxmoxExport, is_off
from .fleeced_disk import FleecedDisk
from .fleecing import Fleecing
from .guest_freeze import FreezeFailed, frozen
from .native_files import FILES, config_file, read_config, read_small, read_state, state_drives
from .safe_serving import insist_on_safe_serving
from .session import Session
from .settings import ProxmoxSettings
from .snapshot_checks import storage_types


class LiveExport(ProxmoxExport):
    def __init__(
        self,
        session: Session,
        settings: ProxmoxSettings,
        vm: VmSpec,
        disks: Sequence[DiskSpec],
        consistency: Consistency,
        job: Job,
        tracking: Tracking,
    ) -> None:
        super().__init__(session, settings, vm, disks, job)
        self._wanted, self._tracking = consistency, tracking
        self._since: Dict[str, str] = {}

    def confirm(self) -> None:
        """Every byte came out of the frozen view, or reading it would have failed."""

    def keep_token(self) -> None:
        if self.token:
            self._fleecing.keep_token()

    def _open(self, stack: ExitStack, chosen: Sequence[DiskSpec]) -> None:
        if is_off(self.vm):
            raise VmferryError("conflict", f"{self.vm.name} was switched off meanwhile.", retryable=True)
        insist_on_safe_serving(self._keeper, self.vm, chosen)
        config = read_config(self._session, self.vm)
        self.native = config_file(config)
        state = state_drives(config)
        nodes = block_nodes(self._keeper, self.vm)
        drives = {disk.name: node_of(nodes, disk.name, self.vm) for disk in chosen}
        self._plan_tracking(drives)
        storages = {disk.name: self._storage_for(disk.storage) for disk in chosen}
        efi = state.get(EFI_DISK)
        if efi is not None and EFI_DISK in nodes:
            drives[EFI_DISK], storages[EFI_DISK] = nodes[EFI_DISK], self._storage_for(efi.volume.storage)
        self._fleecing = Fleecing(self._keeper, self.vm, self._job, storage_types(self._session, self.vm))
        self._fleecing.prepare(drives, storages, self.token)
        failpoint("fleece_prepared")
        self._begin([disk.name for disk in chosen])
        failpoint("backup_begun")
        self._fleecing.serve(self._since)
        local = stack.enter_context(self._keeper.node.forward(self._fleecing.socket))
        self._open_disks(stack, Address.unix(local), chosen)
        self._read_states(stack, Address.unix(local), state, EFI_DISK in drives)

    def _storage_for(self, storage: str) -> str:
        return self._settings.fleecing_storage or storage

    def _plan_tracking(self, drives: Mapping[str, BlockNode]) -> None:
        since = self._tracking.since
        if since:
            self._since = {drive: since for drive, node in drives.items() if node.can_tell(since)}
            if not self._since:
                self.lost = (
                    f"{self.vm.name} has no dirty bitmap {since}: they go when its QEMU ends, as when it is switched "
                    "off, moved to another node or rolled back."
                )
        if self._tracking.keep:
            self.token = self._job.token

    def _begin(self, tracked: Sequence[str]) -> None:
        chosen = tracked if self.token else ()
        if self._may_quiesce():
            try:
                with frozen(self._session, self._keeper, self.vm):
                    failpoint("frozen")
                    self._fleecing.begin(self._since, chosen)
                    self.taken_at = time.time()
                self.consistency = "quiesced"
                return
            except FreezeFailed as error:
                if self._wanted == "quiesced":
                    raise
                self.warnings.append(f"{error.message} The export is crash consistent.")
        self._fleecing.begin(self._since, chosen)
        self.taken_at, self.consistency = time.time(), "crash_consistent"

    def _may_quiesce(self) -> bool:
        if self._wanted not in ("quiesced", "auto"):
            return False
        name, details = self.vm.name, self.vm.details
        if self.vm.power_state != "powered_on":
            reason = f"{name} is not running"
        elif not details["agent_enabled"]:
            reason = f"{name} has no guest agent switched on in its options"
        elif not details["agent_freezes"]:
            reason = f"The options of {name} say that its guest agent may not freeze file systems"
        elif not self.vm.guest_agent:
            reason = f"The guest agent of {name} does not answer, or may not be asked by {self._session.settings.who}"
        else:
            return True
        if self._wanted == "quiesced":
            hint = "Switch the QEMU guest agent on, start qemu-guest-agent in the guest, or choose another consistency."
            raise VmferryError("unsupported", f"{reason}, so it cannot be quiesced.", hint)
        self.warnings.append(f"{reason}: the export is crash consistent.")
        return False

    def _open_disks(self, stack: ExitStack, address: Address, chosen: Sequence[DiskSpec]) -> None:
        opened: List[ExportDisk] = []
        for disk in chosen:
            source = self._disk(stack, address, disk.name)
            changes = None
            if disk.name in self._since:
                changes = self._disk(stack, address, disk.name, self._fleecing.copy)
            opened.append(ExportDisk(replace(disk, size=source.size), source, changes))
        self.disks = tuple(opened)
        sizes = {disk.spec.id: disk.spec for disk in opened}
        self.vm = self.vm.with_disks(tuple(sizes.get(disk.id, disk) for disk in self.vm.disks))

    def _disk(self, stack: ExitStack, address: Address, drive: str, bitmap: str = "") -> FleecedDisk:
        disk = FleecedDisk(self._session, self.vm, self._fleecing, address, drive, bitmap)
        stack.callback(disk.close)
        return disk

    def _read_states(self, stack: ExitStack, address: Address, state: Mapping[str, Drive], efi: bool) -> None:
        """The firmware's variables are of the same moment; the TPM's state, which QEMU does not have, is of a later."""
        for key, drive in state.items():
            if key == EFI_DISK and efi:
                self.native[FILES[key]] = read_small(self._disk(stack, address, key))
            else:
                self.native.update(read_state(self._keeper, self._job.job_id, self.vm, drive, self.warnings))
