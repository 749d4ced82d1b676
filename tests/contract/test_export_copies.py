# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A committed export is in further stores, too, whole and proved, or it is told where it is not; the export stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine.operations.one_vm import VM, OneVm

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import read_manifest
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts import attempt
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import PHASES_WITH_COPIES
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import copy_export, export_copies
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.copy_export import ExportCopies
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.export_copies import (
    checked_copies,
    with_copies,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.owed_copies import OwedCopies
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.readable_chain import insist_on
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limiter import Limiter

from .chains import HOME, Chain, Guest, export, restored
from .objects_rig import Places, each_kind, opened

Loading = Callable[[Store], Chain]


class Copied:
    """Exports in a folder, of which one is copied."""

    def __init__(self, folder: Path, chain: Loading) -> None:
        self.folder = folder
        (folder / "here").mkdir()
        self.here = StoreSpec((folder / "here").as_uri())
        with opened(self.here) as store:
            self.chain = chain(store)

    def copy(self, *to: StoreSpec, export: int = -1, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        options = {"state_dir": str(self.folder / "state"), "max_retries": 0, **options}
        transfer = TransferOptions(**options)
        request = ExportRequest(ProviderSpec("libvirt"), self.here, "web01", copies_to=to, transfer=transfer)
        identity = self.chain.ids[export]
        found = {"id": identity, "vm": {"id": VM.id}, "url": f"{self.here.url}/{HOME}/{identity}"}
        result = {"changed": False, "export": found, "warnings": []}
        with (
            RunningJob.start("export", transfer, "web01", self.here.url, PHASES_WITH_COPIES, check_mode) as job,
            closing(job.open_store(self.here)) as store,
        ):
            if check_mode:
                return checked_copies(request, job, store, result)
            return with_copies(request, job, store, result)

    def image(self, export: int) -> Path:
        return self.folder / "here" / HOME / self.chain.ids[export] / "disk-0.qcow2"


@pytest.fixture
def copied(tmp_path: Path, chain: Loading) -> Copied:
    return Copied(tmp_path, chain)


def exports(spec: StoreSpec) -> list[str]:
    with opened(spec) as store:
        return sorted(entry.manifest.export_id for entry in Catalog(store).read()[0])


def keys(spec: StoreSpec) -> list[str]:
    with opened(spec) as store:
        left = [info.key for info in store.list("")]
        store.abort_uploads("", lambda info: bool(left.append(f"unfinished {info.key}")))
        return left


@each_kind
def test_a_copy_restores_what_the_export_does(kind: str, places: Places, copied: Copied) -> None:
    target = places(kind)
    done = copied.copy(target)
    (row,) = done["copies"]
    newest = copied.chain.ids[-1]
    assert (done["changed"], row["holds"], row["exports"], row["msg"]) == (True, True, list(copied.chain.ids), "")
    assert row["url"] == f"{target.url}/{HOME}/{newest}"
    assert row["bytes_sent"] > 0
    assert exports(target) == sorted(copied.chain.ids)
    with opened(target) as store:
        assert restored(store, newest) == copied.chain.held[newest]
        text = store.get(f"{HOME}/{newest}/manifest.json")
    assert str(copied.folder / "here") not in text.decode()
    assert not [key for key in keys(target) if "intent" in key or "unfinished" in key or "probe" in key]
    again = copied.copy(target)
    assert (again["changed"], again["copies"][0]["exports"], again["copies"][0]["bytes_sent"]) == (False, [], 0)


def test_only_what_is_not_there_yet_is_copied(places: Places, copied: Copied) -> None:
    target = places("file")
    assert copied.copy(target, export=1)["copies"][0]["exports"] == copied.chain.ids[:2]
    assert copied.copy(target, export=3)["copies"][0]["exports"] == copied.chain.ids[2:4]


def test_a_copy_stands_on_nothing_that_a_cleanup_removed_meanwhile(
    places: Places, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = places("file")
    copied.copy(target, export=-2)
    parent, child = copied.chain.ids[-2:]

    def meanwhile(store: Store, entries: Any) -> None:
        insist_on(store, entries)
        shutil.rmtree(Path(target.url.removeprefix("file://")) / HOME / parent)

    with monkeypatch.context() as patched:
        patched.setattr(copy_export, "insist_on", meanwhile)
        with pytest.raises(VmferryError) as refused:
            copied.copy(target)
    (row,) = refused.value.done["copies"]
    assert "was removed while" in row["msg"]
    assert not row["holds"]
    assert child not in exports(target)
    assert copied.copy(target)["copies"][0]["exports"] == [parent, child]
    with opened(target) as store:
        assert restored(store, child) == copied.chain.held[child]


def test_what_was_merged_in_the_further_store_is_not_copied_again(
    places: Places, copied: Copied, tmp_path: Path
) -> None:
    target = places("file")
    copied.copy(target)
    asked = CleanupRequest(target, Limits(max_count=1), Protections(keep_last=1, min_retention=0), merge=True)
    clean_up_exports(asked, False)
    newest = copied.chain.ids[-1]
    assert exports(target) == [newest]
    again = copied.copy(target)
    assert (again["changed"], again["copies"][0]["exports"]) == (False, [])
    with opened(target) as store:
        assert restored(store, newest) == copied.chain.held[newest]


@each_kind
def test_a_damaged_export_is_not_copied(kind: str, places: Places, copied: Copied) -> None:
    target, image = places(kind), copied.image(0)
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    with pytest.raises(VmferryError, match=r"is made, but is not in .* differs from what was sent") as refused:
        copied.copy(target)
    (row,) = refused.value.done["copies"]
    assert (refused.value.kind, row["holds"]) == ("checksum_mismatch", False)
    assert keys(target) == []
    image.write_bytes(data[:-1])
    with pytest.raises(VmferryError, match="bytes were sent"):
        copied.copy(target)
    assert keys(target) == []


def test_a_bandwidth_limit_counts_each_byte_of_a_copy_once(
    places: Places, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(Limiter, "take", lambda _self, count: taken.append(count))
    target = places("file")
    copied.copy(target, bandwidth_limit="1GiB/s")
    with opened(target) as store:
        stored = sum(info.size for info in store.list(""))
    # What is small is beside it: manifests and intents go more than once.
    assert stored * 0.9 < sum(taken) < stored * 1.3


def test_a_copy_that_fails_tells_which_hold(places: Places, copied: Copied) -> None:
    good, other = places("file"), places("s3")
    bad = StoreSpec(f"file://{copied.folder}/no/such/place")
    with pytest.raises(VmferryError) as refused:
        copied.copy(good, bad, other)
    error = refused.value
    assert [row["holds"] for row in error.done["copies"]] == [True, False, True]
    assert error.done["changed"]
    assert error.done["export"]["id"] == copied.chain.ids[-1]
    assert (error.kind, "no/such/place" in error.message) == ("not_found", True)
    assert f"{good.url}/{HOME}" in error.hint
    assert "The next run completes" in error.hint
    assert exports(good) == exports(other) == exports(copied.here)


def test_a_copy_holds_although_that_it_was_owed_cannot_be_forgotten(
    places: Places, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = places("file")
    with monkeypatch.context() as patched:
        patched.setattr(OwedCopies, "forget", _is_away)
        done = copied.copy(target)
    assert ([row["holds"] for row in done["copies"]], exports(target)) == ([True], exports(copied.here))
    assert "away for a moment" in done["warnings"][0]


def test_an_export_that_cannot_be_looked_up_for_its_copies_is_told(
    places: Places, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Catalog, "find", _is_away)
    target = places("file")
    with pytest.raises(VmferryError, match="is made, but is not in") as refused:
        copied.copy(target)
    assert refused.value.done["export"]["id"] == copied.chain.ids[-1]
    assert [(row["url"], row["holds"]) for row in refused.value.done["copies"]] == [(target.url, False)]


def _is_away(*_unused: Any) -> None:
    raise VmferryError("network", "The store is away for a moment.")


@each_kind
def test_a_copy_that_failed_is_made_up_for_although_the_next_export_does_not_stand_on_it(
    kind: str, places: Places, tmp_path: Path, two_children: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, target = Copied(tmp_path, two_children), places(kind)
    *chain, cousin = copied.chain.ids  # which stands on the third of them
    copied.copy(target, export=2)

    def fails(*_what: Any, **_how: Any) -> None:
        raise VmferryError("network", "The network is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(copy_export, "_undo_the_dead", fails)
        with pytest.raises(VmferryError, match="gone"):
            copied.copy(target, export=5)
    assert exports(target) == sorted(chain[:3])
    assert copied.copy(target, export=2, check_mode=True)["changed"]
    (row,) = copied.copy(target, export=4)["copies"]
    assert (row["exports"], row["holds"]) == ([*chain[3:], cousin], True)
    assert exports(target) == sorted([*chain, cousin])
    with opened(target) as store:
        assert restored(store, cousin) == copied.chain.held[cousin]
    for where in (copied.here, target):
        assert not [key for key in keys(where) if "/copy-" in key]
    with opened(target) as store:  # as a cleanup there does, by rules of its own
        for key in [info.key for info in store.list(f"{HOME}/{cousin}/")]:
            store.delete(key)
    assert (copied.copy(target, export=4)["changed"], exports(target)) == (False, sorted(chain))


def test_an_older_export_that_cannot_be_copied_is_told_and_the_new_one_is_there(
    places: Places, tmp_path: Path, two_children: Loading
) -> None:
    copied, target = Copied(tmp_path, two_children), places("file")
    cousin, image = copied.chain.ids[5], copied.image(5)
    data = image.read_bytes()
    image.write_bytes(data[:-1])
    with pytest.raises(VmferryError, match="bytes were sent"):
        copied.copy(target, export=5)
    done = copied.copy(target, export=4)
    assert done["copies"][0]["holds"]
    assert any(f"{cousin} was not copied" in warning for warning in done["warnings"])
    image.write_bytes(data)
    assert copied.copy(target, export=4)["copies"][0]["exports"] == [cousin]


def test_what_is_to_end_copies_no_further(places: Places, copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = places("file"), places("file")
    copy = ExportCopies.copy_to

    def cancelled(self: ExportCopies, spec: StoreSpec) -> dict[str, Any]:
        self._job.flow.request_cancel("somebody asked for it")
        self._job.flow.honour_cancel()
        return copy(self, spec)

    monkeypatch.setattr(ExportCopies, "copy_to", cancelled)
    with pytest.raises(VmferryError) as refused:
        copied.copy(first, second)
    assert refused.value.kind == "cancelled"
    assert [row["msg"] for row in refused.value.done["copies"]][1] == "It was not begun."
    assert keys(first) == keys(second) == []


def test_another_export_of_that_id_is_not_replaced(places: Places, copied: Copied) -> None:
    target = places("file")
    copied.copy(target, export=0)
    manifest = Path(target.url.removeprefix("file://")) / HOME / copied.chain.ids[0] / "manifest.json"
    root = read_manifest(manifest.read_bytes(), "x").disks[0].digest_root
    manifest.write_text(manifest.read_text().replace(root, "0" * 64))
    before = manifest.read_bytes()
    with pytest.raises(VmferryError, match="another export than the one of its id") as refused:
        copied.copy(target, export=0)
    assert (refused.value.kind, manifest.read_bytes()) == ("conflict", before)


def test_what_a_killed_copy_left_goes_and_a_living_one_is_left_alone(places: Places, copied: Copied) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
    from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner

    target = places("file")
    identity = copied.chain.ids[0]
    living = Intent(identity, "a" * 32, VM.id, "web01", 1.0, 1.0, current_owner())
    with opened(target) as store:
        store.put(f"{HOME}/{identity}/intent.json", living.to_json())
        store.put(f"{HOME}/{identity}/disk-9.qcow2", b"half of it")
        with pytest.raises(VmferryError) as refused:
            copied.copy(target, export=0)
        assert refused.value.kind == "busy"
        gone = replace(living, owner={**living.owner, "pid": 1 << 22 | os.getpid()})
        store.put(f"{HOME}/{identity}/intent.json", gone.to_json())
    copied.copy(target, export=0)
    assert not [key for key in keys(target) if "disk-9" in key or "intent" in key]


def test_check_mode_finds_a_store_that_cannot_be_written(places: Places, copied: Copied) -> None:
    good, bad = places("file"), StoreSpec(f"file://{copied.folder}/no/such/place")
    planned = copied.copy(good, bad, check_mode=True)
    assert not planned["changed"]
    assert [finding["kind"] for finding in planned["findings"]] == ["not_found"]
    assert keys(good) == []


def test_check_mode_tells_whether_a_copy_is_missing(places: Places, copied: Copied) -> None:
    target = places("file")
    assert copied.copy(target, check_mode=True)["changed"]
    copied.copy(target)
    assert not copied.copy(target, check_mode=True)["changed"]


def test_the_export_module_asks_for_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: Copied) -> None:
    class Provider(OneVm):
        def close(self) -> None:
            """A test's holds nothing."""

    monkeypatch.setattr(export_vm, "open_provider", lambda *_unused: Provider())
    here, there = (StoreSpec((tmp_path / name).as_uri()) for name in ("first", "second"))
    transfer = TransferOptions(state_dir=str(tmp_path / "state"))
    request = ExportRequest(ProviderSpec("libvirt"), here, "web01", copies_to=(there,), transfer=transfer)
    assert export_vm.export_vm(request, True)["findings"] == []
    done = export_vm.export_vm(request, False)
    assert [row["holds"] for row in done["copies"]] == [True]
    assert exports(there) == [done["export"]["id"]]
    assert open_store(there.url, {}).stat("intent.json") is None


class Killed(BaseException):
    """Nothing of the process runs any more."""


def test_a_run_that_is_killed_behind_its_commit_owes_the_copy_and_the_next_one_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Provider(Guest):
        def close(self) -> None:
            """A test's holds nothing."""

    guest = Provider()
    monkeypatch.setattr(export_vm, "open_provider", lambda *_unused: guest)
    here, there, third = (StoreSpec((tmp_path / name).as_uri()) for name in ("first", "second", "third"))
    transfer = TransferOptions(state_dir=str(tmp_path / "state"))
    request = ExportRequest(ProviderSpec("libvirt"), here, "web01", mode="full", copies_to=(there,), transfer=transfer)

    def killed(*_unused: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(export_copies, "with_copies", killed)
        with pytest.raises(Killed):
            export_vm.export_vm(request, False)
    (lost,) = exports(here)
    guest.write_some()
    made = export_vm.export_vm(replace(request, copies_to=(third,)), False)
    assert exports(third) == [made["export"]["id"]]  # what was never to be there is not
    made = export_vm.export_vm(request, False)
    assert made["copies"][0]["exports"] == [made["export"]["id"], lost]
    assert [key for key in keys(here) if "/copy-" in key] == []


def test_an_export_that_fails_owes_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (StoreSpec((tmp_path / name).as_uri()) for name in ("first", "second"))
    monkeypatch.setattr(attempt.AttemptFolder, "_put_manifest", _fails)
    with pytest.raises(VmferryError, match="gone"):
        export(here, Guest(), tmp_path / "state", copies_to=(there,), on_failure="undo")
    assert keys(here) == []


def _fails(*_unused: Any) -> None:
    raise VmferryError("network", "The network is gone.")
