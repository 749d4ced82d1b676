# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A point in time of a VM, read at one provider and written at another, as one stream of blocks.

The order is what keeps data safe: point in time, new disks, data, a last look whether the point in time has held, the
source let go, what was written read back and compared; only then is there a VM. Whatever goes wrong before leaves
nothing at either end.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Sequence

from ..._errors import VmferryError
from ..._exports.naming import new_attempt
from ..._providers.base import ExportDisk, ExportSession, ImportSession, Provider
from ..._providers.job import Job
from ..._providers.spec import DiskSpec, VmSpec
from ..._transfer.copy_blocks import copy_blocks
from ..._transfer.failpoints import failpoint
from ..._transfer.leaf_record import LeafRecord, place_of
from ..._transfer.progress import DiskProgress
from ..jobs.fill_disks import DiskContent, fill_disks
from ..jobs.findings import raise_first_error
from ..jobs.requests import MigrateRequest
from ..jobs.running_job import RunningJob, state_dir_of
from .new_hardware import with_firmware, with_hardware
from .rounded_up import RoundedUp


@dataclass(frozen=True)
class Moved:
    """`vm`: the new one."""

    vm: VmSpec
    session: ExportSession
    disks: Sequence[dict[str, Any]]
    duration: float  # seconds


def move_vm(
    job: RunningJob,
    request: MigrateRequest,
    source: Provider,
    destination: Provider,
    vm: VmSpec,
    disks: Sequence[DiskSpec],
    identity: str,
) -> Moved:
    """`identity`: what the new VM is made of, by which a later run knows it."""
    return _Move(job, request, source, destination, identity).run(vm, disks)


class _Move:
    def __init__(
        self, job: RunningJob, request: MigrateRequest, source: Provider, destination: Provider, identity: str
    ) -> None:
        self._job, self._request, self._identity = job, request, identity
        self._source, self._destination = source, destination

    def run(self, vm: VmSpec, disks: Sequence[DiskSpec]) -> Moved:
        started = time.monotonic()
        self._job.phase("snapshotting")
        with ExitStack() as stack:
            reading = stack.enter_context(ExitStack())
            frozen = self._source.open_export(vm, disks, self._request.consistency, Job(self._job.id, new_attempt()))
            session = reading.enter_context(self._job.session(frozen))
            new = self._described(session)
            self._job.phase("creating")
            owner = Job(self._job.id, new_attempt())
            made = self._destination.open_import(new, session.native, self._request.placement, self._identity, owner)
            target = stack.enter_context(self._job.session(made))
            for warning in [*session.warnings, *target.warnings]:
                self._job.warn(warning)
            records = [stack.enter_context(record) for record in self._records(session, target)]
            told = self._copy(session, target, records)
            session.confirm()
            failpoint("migration_read")
            self._let_go(reading, session)
            self._verify(target, records)
            failpoint("migration_verified")
            self._job.phase("creating")
            there = target.commit()
        return Moved(there, session, told, time.monotonic() - started)

    def _described(self, session: ExportSession) -> VmSpec:
        """What the new VM is to be like, now that the disks can be looked into."""
        placement = self._request.placement
        vm = session.vm.with_disks(tuple(disk.spec for disk in session.disks)).without_drives(self._request.detach)
        vm = with_hardware(vm, self._request.networks)
        if vm.firmware != "unknown" or placement.firmware:
            return vm
        vm = with_firmware(vm, session.disks[0].source)
        raise_first_error(self._destination.check_import(vm, placement, self._identity))
        return vm

    def _records(self, session: ExportSession, target: ImportSession) -> Sequence[LeafRecord]:
        """None where nobody needs digests: whoever writes files takes them anyway."""
        if self._request.verify == "none" and not target.takes_disks:
            return ()
        return [LeafRecord(disk.source.size, state_dir_of(self._job.options)) for disk in session.disks]

    def _copy(
        self, session: ExportSession, target: ImportSession, records: Sequence[LeafRecord]
    ) -> Sequence[dict[str, Any]]:
        """What the result says of each disk."""
        self._job.phase("transferring", [(disk.spec.id, disk.source.size) for disk in session.disks])
        progress = self._job.progress
        checks: Sequence[LeafRecord | None] = records or [None] * len(session.disks)
        contents = [self._content(*one) for one in zip(session.disks, checks)]
        fill_disks(self._job, target, contents, session.at_once)
        return [
            _told(disk, progress.disk(number), check) for number, (disk, check) in enumerate(zip(session.disks, checks))
        ]

    def _content(self, disk: ExportDisk, check: LeafRecord | None) -> DiskContent:
        return DiskContent(lambda _progress: nullcontext((self._job.limited(disk.source), check)))

    def _let_go(self, reading: ExitStack, session: ExportSession) -> None:
        """Before what was written is read back, so that a guest that runs is held back no longer than it takes. What
        could not be removed is no reason to throw away what was copied: the next run removes it."""
        self._job.phase("finishing")
        try:
            reading.close()
        except (VmferryError, OSError) as error:
            self._job.flow.raise_if_stopped()
            self._job.warn(f"The point in time of {session.vm.name} may not be removed: {error}")
        for warning in session.warnings:
            self._job.warn(warning)

    def _verify(self, target: ImportSession, records: Sequence[LeafRecord]) -> None:
        if self._request.verify == "none":
            return
        sources = target.read_back()
        names = [f"disk-{number}" for number in range(len(records))]
        self._job.phase("verifying", [(name, record.size) for name, record in zip(names, records)])
        for number, (name, source, record) in enumerate(zip(names, sources, records)):
            disk = RoundedUp(self._job.limited(source), record.size)
            copy_blocks(
                disk,
                None,
                record.check(name, partial(self._refuse, name, record.size)),
                limits=self._job.limits,
                flow=self._job.flow,
                progress=self._job.progress.disk(number),
            )
            if not disk.ends_with_zeros(self._job.flow):
                raise self._not_kept(f"{name} of {self._name} does not end with zeros behind its {record.size} bytes.")

    def _refuse(self, disk: str, size: int, leaf: int) -> None:
        place = place_of(leaf, size)
        raise self._not_kept(f"{disk} of {self._name} is not what was read at its source in {place}.")

    @property
    def _name(self) -> str:
        return self._request.placement.name

    def _not_kept(self, message: str) -> VmferryError:
        return VmferryError(
            "checksum_mismatch",
            message,
            "Its storage, or the memory of the host, did not keep what was written. Look at their health, and migrate "
            "again: no VM was made.",
        )


def _told(disk: ExportDisk, progress: DiskProgress, record: LeafRecord | None) -> dict[str, Any]:
    return {
        "id": disk.spec.id,
        "name": disk.spec.name,
        "size": disk.source.size,
        "bytes_read": progress.bytes_read,
        "bytes_written": progress.bytes_sent,
        "digest_root": "" if record is None else record.finish(),
    }
