# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `export_verify` does: an export is looked at again, and what was seen is noted beside it."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import Any, Mapping, Sequence

from .._errors import VmferryError
from .._exports.catalog import CLOCK_SKEW, BrokenEntry, Catalog, CatalogEntry
from .._exports.chain import ChainFault, blames_manifest, followed
from .._exports.manifest import MANIFEST
from .._exports.verifications import VERIFIED, Verifications, read_verifications
from .._stores.base import Store
from .importing.boot_trial import BootTrial
from .jobs.findings import checked
from .jobs.requests import VerifyRequest
from .jobs.running_job import RunningJob
from .stored.fill_checksums import fill_checksums
from .stored.inspection import Inspection, Problem
from .stored.readable_chain import as_stored, held_still, insist_on, settled
from .stored.results import export_result
from .stored.stored_disk import insist_on_keys, layers_of

PHASES: Mapping[str, Mapping[str, float]] = {  # in which bytes move, by level
    "manifest": {},
    "stored": {"verifying": 1.0},
    "content": {"verifying": 1.0},
    "boot": {"importing": 1.0},
}


def verify_export(request: VerifyRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`, whose `done` has the problems where the export is damaged."""
    with ExitStack() as stack:
        url, phases = request.store.url, PHASES[request.level]
        job = stack.enter_context(RunningJob.start("verify", request.transfer, request.vm, url, phases, check_mode))
        trial = stack.enter_context(closing(BootTrial(request, job))) if request.level == "boot" else None
        store = stack.enter_context(closing(job.open_store(request.store)))
        return _Verification(request, job, store, trial).run(check_mode)


class _Verification:
    def __init__(self, request: VerifyRequest, job: RunningJob, store: Store, trial: BootTrial | None) -> None:
        self._request, self._job, self._store, self._trial = request, job, store, trial

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        chain, faults, seen = self._job.ask(self._find)
        self._job.concerns(chain[-1].manifest.machine.name)
        if self._is_recent(seen):
            return self._result(chain, seen, seen)
        if self._request.level in ("content", "boot"):
            insist_on_keys(self._store, chain)
        inspection = Inspection(self._job, self._store, chain, faults)
        if check_mode:
            return self._job.ask(lambda: self._checked(chain, seen, inspection))
        if self._trial is not None:
            self._trial.wait_for_slot()
        try:
            booted = self._job.supervise(lambda: self._held_look(chain, inspection))
        except VmferryError as error:
            if error.kind == "not_found":
                self._insist_on_presence(chain[-1])
            raise
        return self._ended(chain, seen, inspection, booted)

    def _find(self) -> tuple[Sequence[CatalogEntry], Sequence[ChainFault], Verifications]:
        self._store.require_root()
        catalog = Catalog(self._store, self._request.seals)
        entry = catalog.search(self._request.export, self._request.vm)
        if isinstance(entry, BrokenEntry):
            if not blames_manifest(entry.error):  # it may be sound, and of a newer version
                raise entry.error
            raise self._failure([_of_manifest(entry)], {"changed": False})
        chain, faults = followed(entry, catalog.beside(entry))
        return settled(as_stored(self._store, chain)), faults, read_verifications(self._store, entry)

    def _is_recent(self, seen: Verifications) -> bool:
        """A pass from the future was noted while a clock was wrong. It would satisfy every age until then."""
        at, now = seen.newest(self._request.level), time.time()
        return self._request.max_age is not None and now - self._request.max_age <= at <= now + CLOCK_SKEW

    def _checked(self, chain: Sequence[CatalogEntry], seen: Verifications, inspection: Inspection) -> dict[str, Any]:
        inspection.sizes()
        machine = inspection.machine()
        findings = [problem.as_finding() for problem in inspection.problems]
        if self._trial is not None and machine is not None:
            findings += self._trial.findings(chain[-1], machine)
        after = {"export": chain[-1].manifest.export_id, "level": self._request.level, "passed": True}
        result = checked(findings, self._plan(chain), _state(chain, seen), after)
        return {**result, "job": self._job.as_result()}

    def _plan(self, chain: Sequence[CatalogEntry]) -> dict[str, Any]:
        """Bytes are an upper bound: what a layer hides is read by `stored` alone."""
        entry = chain[-1]
        bytes_of: dict[str, int] = {}
        for disk in entry.manifest.disks:
            layers = layers_of(chain, disk.id) if self._request.level != "manifest" else ()
            bytes_of[disk.id] = sum(layer.record.bytes_stored for layer in layers)
        return {
            "export": entry.manifest.export_id,
            "level": self._request.level,
            "disks": [
                {"id": disk.id, "size": disk.size, "bytes_to_read": bytes_of[disk.id]} for disk in entry.manifest.disks
            ],
            "bytes_to_read": sum(bytes_of.values()),
        }

    def _held_look(self, chain: Sequence[CatalogEntry], inspection: Inspection) -> dict[str, Any]:
        with held_still(self._job, self._store, chain):
            return self._look(chain, inspection)

    def _look(self, chain: Sequence[CatalogEntry], inspection: Inspection) -> dict[str, Any]:
        """What a boot adds to the result."""
        level = self._request.level
        images = [(disk or one.file, one.size) for entry in chain for disk, one in entry.manifest.objects]
        disks = [(disk.id, disk.size) for disk in chain[-1].manifest.disks]
        self._job.phase("verifying", {"stored": images, "content": disks}.get(level, ()))
        inspection.sizes()
        if level == "manifest":
            return {}
        inspection.small_files()
        machine = inspection.machine()
        if level == "stored":
            inspection.images()
        elif self._trial is None:
            inspection.contents()
        elif machine is not None and not inspection.problems:
            return self._trial.run(chain[-1], machine, inspection)
        else:  # it makes no sense to boot it; the rest of what is wrong is wanted all the same
            self._job.phase("verifying", disks)
            inspection.contents()
        return {}

    def _ended(
        self, chain: Sequence[CatalogEntry], before: Verifications, inspection: Inspection, booted: Mapping[str, Any]
    ) -> dict[str, Any]:
        self._insist_on_presence(chain[-1])
        now, level, problems = float(int(time.time())), self._request.level, inspection.problems  # as it is noted
        with self._job.flow.shielded():
            insist_on(self._store, chain)  # or what was seen is not about what lies there now
        if problems:
            damaged = not all(problem.is_of_boot for problem in problems)
            after = before.with_failure(level, now, self._job.id, len(problems), damaged)
        else:
            after = before.with_pass(level, now, self._job.id, inspection.files)
        if not self._noted(chain[-1], after):
            after = before
        elif not problems and inspection.files:
            self._fill_manifest(chain[-1], inspection.files)
        result = {**self._result(chain, before, after), **booted}
        if problems:
            raise self._failure(problems, result)
        return result

    def _insist_on_presence(self, entry: CatalogEntry) -> None:
        if self._store.stat(entry.key(MANIFEST)) is None:
            raise VmferryError(
                "not_found",
                f"{self._store.object_url(entry.folder)} was deleted while it was looked at.",
                "What was found says nothing about other exports.",
            )

    def _noted(self, entry: CatalogEntry, seen: Verifications) -> bool:
        """A store that can only be read from can be verified, too."""
        try:
            with self._job.flow.shielded():
                self._store.put(entry.key(VERIFIED), seen.to_json())
        except VmferryError as error:
            self._job.warn(f"What was found could not be noted beside the export. {error}")
            return False
        return True

    def _fill_manifest(self, entry: CatalogEntry, files: Mapping[str, str]) -> None:
        """For other tools; whether it can be done says nothing about the export."""
        try:
            with self._job.flow.shielded():
                filled = fill_checksums(self._store, entry, files)
            self._job.log("info", f"Checksums of whole images in the manifest: {'yes' if filled else 'no'}.")
        except VmferryError as error:
            self._job.log("info", f"The checksums of whole images could not be written into the manifest. {error}")

    def _result(self, chain: Sequence[CatalogEntry], before: Verifications, after: Verifications) -> dict[str, Any]:
        return {
            "changed": after is not before,
            "export": export_result(self._store, chain[-1], chain),
            "level": self._request.level,
            "problems": [],
            "job": self._job.as_result(),
            "diff": {"before": _state(chain, before), "after": _state(chain, after)},
            "warnings": list(self._job.warnings),
        }

    def _failure(self, problems: Sequence[Problem], result: Mapping[str, Any]) -> VmferryError:
        more = f" There are {len(problems) - 1} more problems." if len(problems) > 1 else ""
        only_boot = all(problem.is_of_boot for problem in problems)
        error = VmferryError(
            "timeout" if only_boot else "checksum_mismatch",
            f"{problems[0].problem}{more}",
            "Its disks hold what was exported. See what the guest shows when it is imported and started."
            if only_boot
            else "All that was found is returned as problems. Run vm_export with mode: full, and restore from another "
            "export until then. Where another copy of this one puts it right, verify it again.",
            retryable=False,
        )
        error.done = {**result, "problems": [problem.as_result() for problem in problems]}
        return error


def _of_manifest(broken: BrokenEntry) -> Problem:
    return Problem(str(broken.error), broken.folder.rsplit("/", 1)[-1], object=MANIFEST)


def _state(chain: Sequence[CatalogEntry], seen: Verifications) -> dict[str, Any]:
    last = seen.as_result()
    return {"export": chain[-1].manifest.export_id, **{name: last[name] for name in ("level", "at", "passed")}}
