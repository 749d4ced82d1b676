# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `storage_download` does: an object into a file of this host, which is there whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from stat import S_ISREG
from typing import Any

from .._blocks import ObjectInfo
from .._errors import VmferryError
from .._stores.base import Store
from .._transfer.digest_bytes import digest_of
from .attempts.litter import probe_key
from .jobs.findings import checked, finding_of
from .jobs.requests import StoreSpec
from .jobs.running_job import RunningJob
from .jobs.storage_requests import DownloadRequest
from .jobs.store_access import keeps_files
from .objects.byte_sources import LocalFile, looking
from .objects.move_object import ObjectMove, Sent, Target, Wanted
from .objects.object_results import (
    PHASES,
    StoreAccount,
    insist_on_checksum,
    not_told,
    space_findings,
    tell_outcome,
    told,
    warnings_of,
)
from .objects.sparse_object import SparseObject
from .objects.stored_checksums import known_details


def download_object(request: DownloadRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    spec = request.source.store
    with ExitStack() as stack:
        job = stack.enter_context(RunningJob.start("download", request.transfer, "", spec.url, PHASES, check_mode))
        source = stack.enter_context(closing(job.open_store(spec)))
        path = _file_at(request)
        folder = StoreSpec(path.parent.as_uri(), request.access)
        target = stack.enter_context(closing(job.open_store(folder, limited=False)))
        return _Download(request, job, source, target, path).run(check_mode)


def _file_at(request: DownloadRequest) -> Path:
    name = request.source.key.rsplit("/", 1)[-1]
    path = Path(request.dest)
    if not path.is_absolute():
        raise VmferryError("invalid_config", f"dest is {request.dest}; it must be an absolute path.")
    return path / name if request.dest.endswith("/") or path.is_dir() else path


class _Download:
    def __init__(self, request: DownloadRequest, job: RunningJob, source: Store, target: Store, path: Path) -> None:
        self._request, self._job, self._source, self._path = request, job, source, path
        self._target = Target(target, path.name, is_path=True, any_offset=True)
        self._noted = self._there = ""
        self._first: dict[str, Any] = {}  # what was there before

    def run(self, check_mode: bool) -> dict[str, Any]:
        self._job.phase("validating")
        info = self._job.ask(self._find)
        needed = self._job.ask(lambda: self._is_needed(info))
        self._first = self._before()
        if check_mode:
            return {**self._job.supervise(lambda: self._checked(info, needed)), "job": self._job.as_result()}
        if not needed:
            return self._result(info, None)
        self._job.wait_for_slot(StoreAccount.of(self._request.source.store))
        return self._job.supervise(lambda: self._result(info, self._receive(info)))

    @property
    def _wanted(self) -> str:
        return self._request.checksum or self._noted

    def _find(self) -> ObjectInfo:
        spec, key = self._request.source.store, self._request.source.key
        self._source.require_root()
        info = self._source.stat(key)
        if info is None:
            raise VmferryError(
                "not_found", f"{self._source.object_url(key)} does not exist.", "Correct the URL or the key."
            )
        self._noted = known_details(self._source, info, keeps_files(spec))[0]
        insist_on_checksum(self._source.object_url(key), self._noted, self._request.checksum)
        return info

    def _is_needed(self, info: ObjectInfo) -> bool:
        """Where nobody knows the object's checksum, what comes is compared with what is there when it has come."""
        try:
            with looking(f"Looking at {self._path}"):
                status = self._path.stat()
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            return True
        if not S_ISREG(status.st_mode):
            raise VmferryError("invalid_config", f"{self._path} is there, and is no file.", "Choose another dest.")
        if self._request.overwrite == "never":
            return False
        if self._request.overwrite == "always" or status.st_size != info.size:
            return True
        with LocalFile.opened(self._path) as file:
            self._there = digest_of(file, self._job.flow, self._job.progress.alive)
        return self._there != self._wanted

    def _checked(self, info: ObjectInfo, needed: bool) -> dict[str, Any]:
        findings = []
        if needed:
            try:
                self._target.store.probe(probe_key())
                findings += space_findings(self._target.store, info.size)
            except VmferryError as error:
                findings.append(finding_of(error))
        plan = {"url": self._source.object_url(info.key), "dest": str(self._path), "size": info.size}
        sends = {"bytes_to_receive": info.size if needed else 0}
        after = self._state(info.size, self._wanted) if needed else self._first
        found = checked(findings, {**plan, **sends}, self._first, after)
        return {**found, "changed": found["changed"] and needed}

    def _receive(self, info: ObjectInfo) -> Sent | None:
        self._job.capabilities = self._target.store.probe(probe_key())
        for warning in warnings_of(space_findings(self._target.store, info.size)):
            self._job.warn(warning)
        self._job.phase("transferring", [(self._path.name, info.size)])
        same = self._there if self._request.overwrite == "different" else ""
        wanted = Wanted(checksum=self._wanted, resume_window=self._request.resume_window, same=same)
        source = SparseObject(self._source, info)
        move = ObjectMove(self._job, source, self._target, wanted)
        return move.run(self._job.progress.disk(0))

    def _before(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {"state": "absent"}
        return self._state(self._path.stat().st_size, self._there)

    def _state(self, size: int, sha256: str) -> dict[str, Any]:
        return {"state": "present", "dest": str(self._path), "size": size, "checksum": sha256}

    def _result(self, info: ObjectInfo, sent: Sent | None) -> dict[str, Any]:
        before = self._first
        row = not_told(info.size, self._there, "") if sent is None else told(sent, bool(self._wanted))
        del row["sent_as"]  # of a file there is one way
        tell_outcome(self._job, sent is not None)
        return {
            "changed": sent is not None,
            "dest": str(self._path),
            "url": self._source.object_url(info.key),
            **row,
            "etag": info.etag,
            "job": self._job.as_result(),
            "diff": {"before": before, "after": before if sent is None else self._state(info.size, sent.sha256)},
            "warnings": list(self._job.warnings),
        }
