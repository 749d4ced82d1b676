# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A driver with a store of its own, and the operations as tasks ask for them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from system.leftovers import left_in_store, left_processes

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImportRequest,
    ProviderSpec,
    SnapshotRequest,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import failpoints
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow

from .base import Driver, data_of
from .dying import PATIENCE, Request, die_at


@dataclass(frozen=True)
class ProviderBench:
    driver: Driver
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def store(self) -> StoreSpec:
        return StoreSpec(self.root.as_uri())

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def transfer(self) -> TransferOptions:
        return TransferOptions(state_dir=str(self.state))

    def export_request(self, vm: str, **options: Any) -> ExportRequest:
        asked = {"provider": self.driver.spec, "store": self.store, "transfer": self.transfer, **options}
        return ExportRequest(vm=vm, **asked)

    def export(self, vm: str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        return export_vm(self.export_request(vm, **options), check_mode)

    def import_request(self, name: str, *, placement: Mapping[str, Any] | None = None, **options: Any) -> ImportRequest:
        placed = Placement(name, **{**self.driver.placement, **(placement or {})})
        asked = {"provider": self.driver.spec, "store": self.store, "transfer": self.transfer, **options}
        return ImportRequest(placement=placed, **asked)

    def import_(self, name: str, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        return import_vm(self.import_request(name, **options), check_mode)

    def snapshot_request(self, vm: str, state: str = "present", **options: Any) -> SnapshotRequest:
        return SnapshotRequest(self.driver.spec, vm, state, **options)

    def snapshot(self, vm: str, state: str = "present", *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        return manage_snapshots(self.snapshot_request(vm, state, **options), check_mode)

    def snapshots(self, vm: str) -> list[str]:
        return [one["name"] for one in self.vms(vm)[0]["snapshots"]]

    def vms(self, *names: str, provider: ProviderSpec | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = describe_vms(provider or self.driver.spec, names or None, {})["vms"]
        return found

    def disks(self, vm: str) -> list[bytes]:
        """As they are now, by no code of ours; without the zeros at their ends."""
        return [self.driver.read(vm, number).rstrip(b"\0") for number in range(len(self.vms(vm)[0]["disks"]))]

    def content(self, export: Mapping[str, Any]) -> list[bytes]:
        """Of what a result names: each disk through all it stands on, as QEMU alone reads it; without the zeros at its
        end, which make up its size."""
        found = []
        for disk in export["disks"]:
            raw = self.folder / "judged"
            image = disk["url"].removeprefix("file://")
            subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, str(raw)], check=True)
            assert raw.stat().st_size == disk["size"]
            found.append(data_of(raw))
        return found

    def keys(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())

    def tokens(self) -> set[str]:
        """Of the newest export of each choice of disks: the next increment of those asks since it, and none other."""
        manifests = [key for key in self.keys() if key.endswith("/manifest.json")]
        found = [json.loads((self.root / key).read_text())["x_vmferry"] for key in manifests]
        found.sort(key=lambda one: one["taken_at"])
        return set({tuple(disk["id"] for disk in one["disks"]): one["change_token"] for one in found}.values())

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list_jobs(str(self.state), "", "", "", 50)["jobs"]
        return found

    def die_at(self, failpoint: str, request: Request, *, keep_record: bool = False, alone: bool = False) -> list[str]:
        """The job's id, if it is one. Its record goes, as the kill left it."""
        before = {job["id"] for job in self.jobs()}
        die_at(failpoint, request, alone=alone)
        self.driver.died()
        died = [job["id"] for job in self.jobs() if job["id"] not in before]
        for job in died if not keep_record else ():
            shutil.rmtree(self.state / "jobs" / job)
        return died

    def assert_nothing_left(self, vm: str) -> None:
        """Committed exports and records of jobs that ended are all that may stay."""
        found = [*self.driver.leftovers(vm, self.tokens()), *left_in_store(self.keys(), []), *left_processes()]
        found += [f"{path} is there" for path in self.state.rglob("*.part")]
        found += [f"the job {job['id']} is {job['phase']}" for job in self.jobs() if not job["finished"]]
        assert not found, "\n".join(found)


def refused(work: Callable[[], object], kind: str, words: str = "") -> VmferryError:
    """One sentence with its kind, and what to do."""
    with pytest.raises(VmferryError) as caught:
        work()
    error = caught.value
    assert error.kind == kind, f"{error.kind}: {error}"
    assert words in str(error)
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)
    return error


def act_at(monkeypatch: pytest.MonkeyPatch, name: str, action: Callable[[], object]) -> None:
    """In the place of a death: the first time that point is passed by this process, `action` is done there."""
    place = SimpleNamespace(environ={failpoints.VARIABLE: name}, getpid=int, kill=partial(_act, action))
    monkeypatch.setattr(failpoints, "os", place)
    monkeypatch.setattr(failpoints, "_passes", type(failpoints._passes)())


def _act(action: Callable[[], object], _process: int, _signal: int) -> None:
    action()


def cancel_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By a signal to the process, as it passes that point; it goes on from there once that is known to all of it."""
    stopped = threading.Event()
    stop = Flow.stop

    def noted(flow: Flow, error: BaseException) -> None:
        stop(flow, error)
        stopped.set()

    def cancel() -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # it may be waiting, and no other thread would wake it
        assert stopped.wait(PATIENCE)

    monkeypatch.setattr(Flow, "stop", noted)
    act_at(monkeypatch, name, cancel)
