# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module job makes of jobs that died, failed, or run elsewhere: on this host's records and in a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from one_vm import UUID, OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, LEASE, Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import iso_time
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import end_job as ending
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    JobRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import SILENCE, current_owner
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import JobRecord

JOB, OTHER = "0123456789abcdef", "fedcba9876543210"
GONE = {"pid": 2**22 + 1}
ELSEWHERE = {"hostname": "pod-7f9"}
AFTER_A_RESTART = {"boot_id": "00000000-of-another"}


class Place:
    """A state directory, a store, and a provider that only notes that it was asked to undo a job."""

    def __init__(self, folder: Path) -> None:
        self.state, self.store = folder / "state", folder / "store"
        self.store.mkdir()
        self.options = TransferOptions(state_dir=str(self.state), job_id=JOB, max_retries=0)
        self.undone: list[str] = []
        self.account = "memory"

    def end(self, state: Any, *, with_store: bool = True, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        spec = StoreSpec(str(self.store)) if with_store else None
        asked = {"timeout": 1.0, "state_dir": str(self.state), "store": spec, "provider": ProviderSpec("libvirt")}
        return ending.end_job(JobRequest(JOB, state, **{**asked, **options}), check_mode)

    def job(self, *, with_store: bool = False) -> dict[str, Any]:
        store = StoreSpec(str(self.store)) if with_store else None
        (job,) = list_jobs(str(self.state), JOB, "", "", 0, store)["jobs"]
        return dict(job)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.store.rglob("*") if path.is_file())

    def rewrite(self, owner: Mapping[str, Any], age: float = 0.0, **fields: Any) -> None:
        """The record, as a job would have left it that another process ran, and wrote `age` seconds ago."""
        path = self.state / "jobs" / JOB / "record.json"
        found = json.loads(path.read_text())
        found.update(fields, heartbeat=time.time() - age)
        found["owner"].update(owner)
        path.write_text(json.dumps(found))

    def begun(self, owner: Mapping[str, Any], age: float = 0.0) -> None:
        JobRecord.create(self.state, JOB, "export", vm="web01", url=str(self.store))
        self.rewrite(owner, age, phase="exporting")

    def intend(self, owner: Mapping[str, Any], lease: float) -> Path:
        folder = self.store / "web01-1f0c9a2b" / "20261121T063000Z-aaaaaaaa"
        folder.mkdir(parents=True)
        now = time.time()
        whole = {**current_owner(), **owner}
        intent = Intent(folder.name, JOB, UUID, "web01", now - 60, now + lease, whole, progress={"phase": "exporting"})
        (folder / INTENT).write_bytes(intent.to_json())
        (folder / "disk-0.qcow2").write_bytes(b"half")
        return folder

    def died(self) -> None:
        """Whoever wrote the intents that are there."""
        for path in self.store.rglob(INTENT):
            found = json.loads(path.read_text())
            found["owner"].update(GONE)
            path.write_text(json.dumps(found))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)

    class Provider(OneVm):
        account = property(lambda self: made.account)  # type: ignore[assignment]

        def undo(self, job: str) -> None:
            made.undone.append(job)

        def close(self) -> None:
            pass

    monkeypatch.setattr(ending, "open_provider", lambda *_unused: Provider())
    monkeypatch.setattr(ending, "STORE_POLL", 0.05)
    return made


def refused(action: Callable[[], object], kind: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        action()
    assert caught.value.kind == kind
    return caught.value


@pytest.mark.parametrize("owner", [ELSEWHERE, AFTER_A_RESTART], ids=["elsewhere", "another boot"])
def test_a_silent_job_that_nobody_can_see_is_over(place: Place, owner: Mapping[str, Any]) -> None:
    """As of a dead pod, on a volume that the next one has, too."""
    place.begun(owner, SILENCE + 10)
    assert place.job()["state"] == "failed"
    assert place.end("finished")["job"]["state"] == "failed"
    assert place.end("cancelled")["job"]["state"] == "cancelled"
    assert place.undone == [JOB]
    assert place.end("absent")["changed"]


@pytest.mark.parametrize("owner", [ELSEWHERE, AFTER_A_RESTART], ids=["elsewhere", "another boot"])
def test_a_job_that_nobody_can_see_runs_while_its_record_is_written(place: Place, owner: Mapping[str, Any]) -> None:
    place.begun(owner, SILENCE - 60)
    assert (place.job()["state"], place.job()["alive"]) == ("running", None)
    refused(lambda: place.end("absent"), "busy")
    refused(lambda: place.end("cancelled"), "timeout")
    assert (place.state / "jobs" / JOB / "cancel").exists()
    assert place.undone == []


def test_a_silent_job_whose_lease_holds_in_the_store_runs(place: Place) -> None:
    """Its state directory is full, perhaps."""
    place.begun(ELSEWHERE, SILENCE + 10)
    folder = place.intend(ELSEWHERE, LEASE)
    assert place.job()["state"] == "failed"
    assert place.job(with_store=True)["state"] == "running"
    refused(lambda: place.end("absent"), "busy")
    refused(lambda: place.end("cancelled"), "timeout")
    assert (folder / "cancel").exists()
    assert place.undone == []


def test_a_silent_job_whose_lease_is_over_in_the_store_is_undone(place: Place) -> None:
    place.begun(ELSEWHERE, SILENCE + 10)
    place.intend(ELSEWHERE, -1)
    assert place.job(with_store=True)["state"] == "failed"
    assert place.end("cancelled")["changed"]
    assert place.files() == []
    assert (place.job()["state"], place.job()["undone"]) == ("cancelled", True)


class Failing(OneVm):
    """The store is lost with the hypervisor, so that nothing can be undone."""

    lost = False

    def open_export(self, *_unused: object) -> AbstractContextManager[Any]:
        self.lost = True
        raise VmferryError("network", "The hypervisor is gone.")

    def losing(self, store: Store) -> Store:
        delete = store.delete

        def lost(key: str, **options: Any) -> None:
            if self.lost:
                raise VmferryError("network", "The store is gone.")
            delete(key, **options)

        store.delete = lost  # type: ignore[method-assign]
        return store


def test_a_job_that_could_not_undo_everything_says_so_and_is_undone_by_cancelling_it(place: Place) -> None:
    failing = Failing()
    refused(lambda: export_one(place.store, failing, place.options, wrap=failing.losing), "network")
    place.died()
    assert place.files() == [INTENT]
    assert (place.job()["state"], place.job()["undone"]) == ("failed", False)

    refused(lambda: place.end("cancelled", provider=None), "invalid_config")
    assert place.end("cancelled", check_mode=True)["changed"]
    assert place.files() == [INTENT]
    result = place.end("cancelled")
    assert (result["changed"], result["job"]["state"], result["job"]["undone"]) == (True, "failed", True)
    assert place.files() == []
    assert not place.end("cancelled")["changed"]


def test_a_job_that_undid_everything_says_so_and_is_not_undone_again(place: Place) -> None:
    def failing(*_unused: object, **_options: object) -> list[Any]:
        raise VmferryError("network", "The hypervisor is gone.")

    vm = OneVm()
    vm.clean_up = failing  # type: ignore[method-assign]
    refused(lambda: export_one(place.store, vm, place.options), "network")
    assert place.job()["undone"] is True
    assert not place.end("cancelled")["changed"]
    assert place.undone == []


@pytest.mark.parametrize("how", ["warned", "raised"])
def test_a_point_in_time_that_could_not_be_left_is_not_undone(place: Place, how: str) -> None:
    class Leaving(OneVm):
        @contextmanager
        def open_export(self, *words: object) -> Iterator[Any]:
            with super().open_export(*words) as session:
                session.confirm = self.fail
                try:
                    yield session
                finally:
                    session.warnings.append("What the export made on this host is left to its watchdog to undo.")
                    if how == "raised":
                        session.warnings.clear()
                        raise VmferryError("timeout", "libvirtd is stuck.")

        def fail(self) -> None:
            raise VmferryError("network", "The hypervisor is gone.")

    with suppress(VmferryError):
        export_one(place.store, Leaving(), place.options)
    assert place.files() == []
    assert (place.job()["state"], place.job()["undone"]) == ("failed", False)


def test_a_migration_is_undone_once_both_of_its_ends_are(place: Place) -> None:
    ends = ["memory", "memory elsewhere"]
    place.begun(GONE)
    place.rewrite(GONE, kind="migrate", left_at=ends)
    first = place.end("cancelled", with_store=False)
    assert (first["changed"], first["job"]["state"], first["job"]["undone"]) == (True, "cancelled", False)
    assert ["memory elsewhere may still be there" in text for text in first["warnings"]] == [True]
    again = place.end("cancelled", with_store=False)
    assert again["job"]["undone"] is False
    place.account = "memory elsewhere"
    last = place.end("cancelled", with_store=False)
    assert (last["changed"], last["job"]["undone"], last["warnings"]) == (True, True, [])
    assert not place.end("cancelled", with_store=False)["changed"]
    assert place.undone == [JOB] * 3


def test_an_export_that_was_made_right_before_its_process_was_killed_is_ready_and_not_cancelled(place: Place) -> None:
    export_one(place.store, OneVm(), place.options)
    whole = place.files()
    place.rewrite(GONE, finished=None, phase="finishing")
    assert place.job()["state"] == "failed"
    assert (place.job(with_store=True)["state"], place.job(with_store=True)["vm"]) == ("ready", "web01")
    refused(lambda: place.end("cancelled"), "conflict")
    assert place.end("finished")["job"]["state"] == "ready"
    assert (place.undone, place.files()) == ([], whole)


def test_a_job_of_another_host_that_disappears_from_the_store_is_gone_and_nothing_more_is_claimed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place.intend(ELSEWHERE, LEASE)
    sleep = time.sleep

    def meanwhile(seconds: float) -> None:
        for path in folder.iterdir():
            path.unlink()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", meanwhile)
    job = place.end("finished")["job"]
    assert (job["state"], job["phase"], job["finished"]) == ("gone", "gone", True)
    assert "pod-7f9 tells more" in job["note"]


def test_a_job_in_a_store_is_looked_for_once_and_then_looked_at_in_its_own_folder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_one(place.store, OneVm(), replace(place.options, job_id="another-of-this-vm"))
    place.intend(ELSEWHERE, LEASE)
    opened, read = [], []
    get = FilesystemStore.get

    def opening(*words: Any) -> Store:
        opened.append(words)
        return open_store(*words)

    def reading(self: FilesystemStore, key: str, *words: Any) -> bytes:
        read.append(key)
        return get(self, key, *words)

    monkeypatch.setattr(ending, "open_store", opening)
    monkeypatch.setattr(FilesystemStore, "get", reading)
    refused(lambda: place.end("finished"), "timeout")
    assert len(opened) == 1
    assert len([key for key in read if key.endswith("aaaaaaaa/intent.json")]) > 3
    assert len([key for key in read if "aaaaaaaa" not in key]) <= 1


def test_a_job_tells_its_times_as_exports_do_beside_seconds(place: Place) -> None:
    JobRecord.create(place.state, JOB, "export", vm="web01", url=str(place.store)).log("info", "It begins.")
    running = list_jobs(str(place.state), JOB, "", "", 1)["jobs"][0]
    assert (running["id"], running["ended_at"], running["ended"]) == (JOB, "", None)
    for name in ("started", "heartbeat"):
        assert running[f"{name}_at"] == iso_time(running[name])
    assert running["log"][0]["at"] == iso_time(running["log"][0]["time"])
    export_one(place.store, OneVm(), replace(place.options, job_id=OTHER))
    ended = list_jobs(str(place.state), OTHER, "", "", 1)["jobs"][0]
    assert ended["ended_at"] == iso_time(ended["ended"])


def test_a_job_that_moved_objects_on_another_host_is_not_there_and_the_hint_says_where_to_look(place: Place) -> None:
    with pytest.raises(VmferryError, match="nor in the store") as refused:
        place.end("cancelled")
    assert refused.value.kind == "not_found"
    assert "An export of another host is found through its store" in refused.value.hint
    assert "moved files or objects" in refused.value.hint
