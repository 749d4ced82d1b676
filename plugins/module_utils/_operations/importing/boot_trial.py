# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export that has to boot: imported under a name of its own, without a network, and gone afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.naming import new_attempt
from ..._providers.base import NotBooted, Placement
from ..._providers.finding import Finding
from ..._providers.job import Job
from ..._providers.open import open_provider
from ..._providers.spec import VmSpec
from ..jobs.findings import raise_first_error
from ..jobs.requests import VerifyRequest
from ..jobs.running_job import RunningJob
from ..stored.inspection import Inspection, Problem

StoredMachine = Tuple[VmSpec, Mapping[str, bytes]]


class BootTrial:
    def __init__(self, request: VerifyRequest, job: RunningJob) -> None:
        if request.provider is None:
            raise VmferryError("invalid_config", "An export boots on a provider, and the task names none.")
        if not (request.markers.serial or request.markers.agent or request.markers.screen):
            raise VmferryError(
                "invalid_config",
                "Nothing tells that the VM has booted.",
                "Set boot.serial, boot.agent or boot.screen.",
                phase="validating",
            )
        self._provider = open_provider(request.provider.name, request.provider.settings)
        self._markers, self._job = request.markers, job
        self._owner = Job(job.id, new_attempt())
        self._placement = Placement(f"boot-{self._owner.attempt}", storage=request.storage)

    def wait_for_slot(self) -> None:
        self._job.wait_for_slot(self._provider)

    def findings(self, entry: CatalogEntry, machine: StoredMachine) -> Sequence[Finding]:
        return self._provider.check_import(_alone(machine[0]), self._placement, entry.manifest.export_id)

    def run(self, entry: CatalogEntry, machine: StoredMachine, inspection: Inspection) -> dict[str, Any]:
        """What it adds to a result. A disk that is damaged is told like any other, and nothing is booted from it."""
        exported, native = machine
        made = entry.manifest.export_id
        for _unused, sentence in self._provider.clean_up_imports():  # or the disks of killed trials would pile up
            self._job.log("warning", sentence)
        raise_first_error(self.findings(entry, machine))
        self._job.phase("creating")
        with self._provider.open_import(_alone(exported), native, self._placement, made, self._owner) as session:
            for warning in session.warnings:
                self._job.warn(warning)
            self._job.phase("importing", [(disk.id, disk.size) for disk in entry.manifest.disks])
            inspection.contents(session.sinks)
            if inspection.problems:
                return {}
            self._job.phase("verifying")
            self._job.note(f"waiting for {self._placement.name} to boot, for {self._markers.timeout:.0f} s at most")
            try:
                return {"boot": {"seconds": round(session.boot(self._markers, self._job.flow.sleep), 1)}}
            except NotBooted as error:
                inspection.tell(Problem(str(error), made, is_of_boot=True))
                return {}
            finally:
                self._job.note("")

    def close(self) -> None:
        self._provider.close()


def _alone(vm: VmSpec) -> VmSpec:
    """Without a network, on which the VM itself may be at work."""
    return replace(vm, nics=())
