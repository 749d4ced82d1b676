# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `disk_snapshot` does: snapshots of a VM as a task wants them, and never those of others unasked."""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from datetime import datetime, timezone
from typing import Any, Sequence

from .._errors import VmferryError
from .._exports.naming import new_attempt
from .._providers.finding import Finding
from .._providers.job import Job
from .._providers.open import open_provider
from .._providers.snapshot_choice import DEFAULT_NAME, filled, in_removal_order, named, surplus
from .._providers.snapshots import Snapshot, SnapshotService, SnapshotWish
from .._providers.spec import VmSpec
from .jobs.findings import checked, raise_first_error
from .jobs.requests import SnapshotRequest


def manage_snapshots(request: SnapshotRequest, check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises `VmferryError`."""
    with closing(open_provider(request.provider.name, request.provider.settings)) as opened:
        vm = opened.describe(request.vm)
        return _Snapshots(request, vm, opened.snapshots(vm)).run(check_mode)


class _Snapshots:
    def __init__(self, request: SnapshotRequest, vm: VmSpec, service: SnapshotService) -> None:
        self._request, self._vm, self._service = request, vm, service
        self._job = Job(secrets.token_hex(16), new_attempt())
        self._deadline = time.monotonic() + request.timeout
        self._before = list(service.list())
        self._warnings: list[str] = []

    def run(self, check_mode: bool) -> dict[str, Any]:
        name = self._name()
        present = self._find(name)
        if self._request.state == "present":
            return self._make(name, present, check_mode)
        if self._request.state == "reverted":
            return self._revert(name, present, check_mode)
        if self._request.state == "consolidated":
            chosen = [snapshot for snapshot in self._ours() if snapshot.method == "external"]
            if self._service.needs_consolidation():
                return self._consolidate(chosen, check_mode)
        elif name:
            chosen = [present] if present is not None else []
        else:
            chosen = self._surplus(self._request.keep or 0)
        return self._remove(chosen, check_mode)

    def _name(self) -> str:
        """What is there is found by its very name, whatever signs whoever made it put into that."""
        given, new = self._request.name, self._request.state == "present"
        if self._find(given) is not None:
            return given
        fill = filled if new else named
        template = given or (DEFAULT_NAME if new else "")
        return template and fill(template, self._vm.name, self._job.job_id, datetime.now(timezone.utc))

    def _make(self, name: str, present: Snapshot | None, check_mode: bool) -> dict[str, Any]:
        request = self._request
        wish = SnapshotWish(name, request.memory, request.quiesce, request.method)
        keep = request.keep
        doomed = [] if keep is None else self._surplus(keep if present is not None else keep - 1, spared=name)
        findings = self._of_removal(doomed)
        if present is None:
            findings = [*self._service.check_create(wish), *findings]
        elif not present.whole:
            hint = "Remove it with state: absent, which goes on where that stopped."
            text = f"The snapshot {name} is not whole: its removal has begun, or it was never done."
            findings.append(Finding("error", text, hint, "conflict"))
        made = "" if present is not None else name
        if check_mode:
            return self._checked(findings, doomed, create=made, method=self._service.chosen_method(wish))
        raise_first_error(findings)
        if made:
            weak = [finding for finding in findings if finding.severity == "warning"]
            self._warnings += [f"{finding.message} {finding.hint}".rstrip() for finding in weak]
            self._warnings += self._service.create(wish, self._job, self._left())
        self._remove_all(doomed, made)
        return self._result(name, doomed)

    def _revert(self, name: str, present: Snapshot | None, check_mode: bool) -> dict[str, Any]:
        if present is None:
            raise VmferryError(
                "not_found", f"{self._vm.name} has no snapshot {name}.", "List them with disk_snapshot_info."
            )
        findings = self._service.check_revert(name)
        if check_mode:
            return self._checked(findings, [], revert=name)
        raise_first_error(findings)
        self._warnings += self._service.revert(name, self._job, self._left())
        result = self._result(name, [])
        diff = {"before": result["diff"]["before"], "after": {**result["diff"]["after"], **_reverted_to(name)}}
        return {**result, "changed": True, "diff": diff}

    def _remove(self, chosen: Sequence[Snapshot], check_mode: bool) -> dict[str, Any]:
        findings = self._of_removal(chosen)
        if check_mode:
            return self._checked(findings, chosen)
        raise_first_error(findings)
        self._remove_all(chosen, "")
        return self._result("", chosen)

    def _consolidate(self, chosen: Sequence[Snapshot], check_mode: bool) -> dict[str, Any]:
        """Of what no snapshot stands for any more: first, since the removal of the others may ask for it."""
        findings = [*self._service.check_consolidate(), *self._of_removal(chosen)]
        if check_mode:
            return self._checked(list(dict.fromkeys(findings)), chosen, consolidate=True)
        raise_first_error(findings)
        self._warnings += self._service.consolidate(self._job, self._left())
        self._remove_all(chosen, "")
        result = self._result("", chosen)
        diff = {"before": {**result["diff"]["before"], "consolidation_needed": True}, "after": result["diff"]["after"]}
        return {**result, "changed": True, "diff": diff}

    def _remove_all(self, chosen: Sequence[Snapshot], made: str) -> None:
        done: list[str] = [f"made {made}"] if made else []
        for snapshot in in_removal_order(chosen):
            try:
                self._warnings += self._service.remove(snapshot.name, self._job, self._left())
            except VmferryError as error:
                if done:
                    error.message = f"{error.message} Before that, the task {' and '.join(done)}."
                raise
            done.append(f"removed {snapshot.name}")

    def _of_removal(self, chosen: Sequence[Snapshot]) -> list[Finding]:
        findings: list[Finding] = []
        gone: list[str] = []
        for snapshot in in_removal_order(chosen):
            findings += self._service.check_remove(snapshot.name, gone)
            gone.append(snapshot.name)
        return list(dict.fromkeys(findings))

    def _ours(self) -> list[Snapshot]:
        return [snapshot for snapshot in self._before if snapshot.ours]

    def _surplus(self, keep: int, spared: str = "") -> list[Snapshot]:
        kept = keep - any(snapshot.name == spared for snapshot in self._ours())
        return surplus([snapshot for snapshot in self._before if snapshot.name != spared], kept)

    def _find(self, name: str) -> Snapshot | None:
        return next((snapshot for snapshot in self._before if name and snapshot.name == name), None)

    def _left(self) -> float:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            hint = "Run the task again, with a longer timeout; it goes on where it stopped."
            raise VmferryError("timeout", f"Not all was done within {self._request.timeout:g} s.", hint)
        return seconds

    def _checked(
        self,
        findings: Sequence[Finding],
        doomed: Sequence[Snapshot],
        *,
        create: str = "",
        method: str = "",
        revert: str = "",
        consolidate: bool = False,
    ) -> dict[str, Any]:
        removed = [snapshot.name for snapshot in in_removal_order(doomed)]
        planned = {
            "create": create,
            "method": method if create else "",
            "remove": removed,
            "revert": revert,
            "consolidate": consolidate,
        }
        before = [snapshot.name for snapshot in self._before]
        after = [name for name in before if name not in removed] + ([create] if create else [])
        was = {"snapshots": before, **({"consolidation_needed": True} if consolidate else {})}
        result = checked(findings, planned, was, {"snapshots": after, **_reverted_to(revert)})
        return {**result, "changed": result["changed"] and bool(create or removed or revert or consolidate)}

    def _result(self, name: str, removed: Sequence[Snapshot]) -> dict[str, Any]:
        found = self._service.list()
        before, after = ([snapshot.name for snapshot in some] for some in (self._before, found))
        snapshot = next((one.as_dict() for one in found if name and one.name == name), None)
        return {
            "changed": before != after,
            "snapshot": snapshot,
            "removed": [one.name for one in in_removal_order(removed)],
            "snapshots": [one.as_dict() for one in found],
            "job": {"id": self._job.job_id},
            "diff": {"before": {"snapshots": before}, "after": {"snapshots": after}},
            "warnings": self._warnings,
        }


def _reverted_to(name: str) -> dict[str, str]:
    return {"reverted_to": name} if name else {}
