# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports are merged while others read, build on them or want them gone: nobody loses data, or is told of damage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine.exports.shelves import ELSEWHERE, begin, clean_up, folder_of, keys, rules

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.deletion import DELETION, Deletion
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.folding import (
    DIGESTS,
    FOLDING,
    Folding,
    read_folding,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.marks import PINNED
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.verifications import VERIFIED
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts import litter
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning import fold_claim, orphans
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning.vm_folder import VmFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .chains import HOME, LEAF, Chain, Guest, assert_whole, export, restored, there
from .store_rigs import StoreRig

pytestmark = pytest.mark.parametrize("rig", ["filesystem"], indirect=True)
Load = Callable[[Store], Chain]


@pytest.fixture
def store(rig: StoreRig) -> Store:
    return rig.fresh()


@pytest.fixture
def made(store: Store, chain: Load) -> Chain:
    return chain(store)


def second(store: Store) -> Store:
    """As another process sees it, without what a test did to the first."""
    return open_store(store.url, {})


def merge(store: Store, count: int = 2, **options: Any) -> dict[str, Any]:
    return clean_up(store, max_count=count, merge=True, **options)


def refused(work: Callable[[], object], kind: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        work()
    assert caught.value.kind == kind, caught.value
    return caught.value


def once(
    monkeypatch: pytest.MonkeyPatch, store: Store, method: str, end: str, work: Callable[[], object], *, turn: int = 1
) -> list[str]:
    """`work` is done before the store's method is called for such a key; which was tried is returned."""
    inner, turns = getattr(store, method), [0]
    called: list[str] = []

    def outer(key: str, *arguments: Any, **options: Any) -> Any:
        if key.endswith(end) and not called:
            turns[0] += 1
            if turns[0] == turn:
                called.append(key)
                work()
        return inner(key, *arguments, **options)

    monkeypatch.setattr(store, method, outer)
    return called


def merging_by_another_host(store: Store, made: str) -> None:
    """From now on it is another's, who lives."""
    key = f"{HOME}/{made}/{FOLDING}"
    found = read_folding(store.get(key), key)
    claim = replace(found.claim, job_id="c" * 32, owner=ELSEWHERE, lease_until=time.time() + 300)
    store.put(key, replace(found, claim=claim).to_json())


@pytest.mark.parametrize("where", [0, 2, 3])
def test_damage_that_is_met_stops_it_and_nothing_is_replaced(store: Store, made: Chain, where: int) -> None:
    path = Path(store.url.removeprefix("file://")) / HOME / made.ids[where] / "disk-0.qcow2"
    data = path.read_bytes()
    leaf = {0: 5, 2: 1, 3: 2}[where]  # that this export's image has, and nothing above hides
    at = data.find(made.held[made.ids[where]]["disk-0"][leaf * LEAF : (leaf + 1) * LEAF])
    assert at > 0
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    before = {key: store.get(key) for key in keys(store)}
    error = refused(lambda: merge(store), "checksum_mismatch")
    assert made.ids[3] in error.message
    assert (error.done["merged"], error.done["deleted"]) == ([], [])
    assert {key: store.get(key) for key in keys(store)} == before


@pytest.mark.parametrize("number", [2, 3, 4])
def test_what_a_job_makes_an_increment_on_is_left_alone(store: Store, made: Chain, number: int) -> None:
    """On what should go, on what should take it over, and on what stands on that."""
    begin(store, parent=made.ids[number], number=1)
    before = keys(store)
    result = merge(store, 2 if number > 2 else 1)
    if number == 2:  # what lies above it can go all the same
        assert {rules(result)[one] for one in made.ids[:2]} == {"child"}
        assert rules(result)[made.ids[2]] == "in_use"
        assert result["deleted"] == [made.ids[3]]
        assert assert_whole(store, made) == [*made.ids[:3], made.ids[4]]
    else:
        assert (keys(store), result["changed"]) == (before, False)
        assert {rules(result)[one] for one in made.ids[:3]} == {"child"}


def test_an_increment_that_began_meanwhile_keeps_what_it_may_be_reading(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = f"{HOME}/{made.ids[3]}/disk-0.digests"
    born: list[str] = []
    called = once(
        monkeypatch, store, "open_parts", "disk-0.qcow2", lambda: born.append(begin(store, parent=made.ids[4]))
    )
    result = merge(store)
    assert called
    assert (len(result["merged"]), result["deleted"]) == (1, [])
    assert {rules(result)[one] for one in made.ids[:3]} == {"in_use"}
    assert old in keys(store)
    assert assert_whole(store, made) == made.ids
    assert merge(store)["changed"] is False
    assert clean_up(store, max_count=2)["changed"] is False
    store.delete(f"{folder_of(born[0])}/{INTENT}")
    after = clean_up(store, max_count=2)
    assert [one["kind"] for one in after["orphans"]] == ["merge"]
    assert sorted(after["deleted"]) == made.ids[:3]
    assert old not in keys(store)
    assert assert_whole(store, made) == made.ids[3:]


def test_what_is_pinned_meanwhile_stays(store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = f"{HOME}/{made.ids[1]}/{PINNED}"
    assert once(monkeypatch, store, "put", FOLDING, lambda: store.put(pin, b"")) == []
    result = merge(store)
    assert (result["merged"], result["deleted"]) == ([], [])
    assert there(store) == made.ids
    assert not [key for key in keys(store) if key.endswith(FOLDING)]


def test_a_store_without_conditions_is_refused(store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(store.probe("probe"), conditional_replace=False)
    monkeypatch.setattr(store, "probe", lambda key: without)
    before = keys(store)
    for work in (lambda: merge(store, check_mode=True), lambda: merge(store)):
        assert "does not write on conditions" in refused(work, "unsupported").message
    assert keys(store) == before


def test_a_locked_image_is_not_replaced(store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = store.stat

    def locked(key: str) -> Any:
        info = stat(key)
        return info and replace(info, locked=key.endswith(f"{made.ids[3]}/disk-1.qcow2"))

    monkeypatch.setattr(store, "stat", locked)
    before = keys(store)
    assert "disk-1.qcow2 is locked" in refused(lambda: merge(store), "unsupported").message
    assert keys(store) == before


@pytest.mark.parametrize("file", ["disk-0.digests", "disk-0.qcow2", "disk-1.qcow2"])
def test_an_import_that_reads_what_is_replaced_is_told_to_run_again(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    called = once(monkeypatch, store, "read_into", f"{made.ids[3]}/{file}", lambda: merge(second(store)), turn=2)
    error = refused(lambda: restored(store, made.ids[4]), "conflict")
    assert called
    assert error.retryable
    assert "rewritten by a cleanup" in error.message
    assert restored(store, made.ids[4]) == made.held[made.ids[4]]


def test_a_list_that_was_read_before_leads_to_no_missing_parent(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = once(monkeypatch, store, "get", f"{made.ids[2]}/{MANIFEST}", lambda: merge(second(store)), turn=2)
    assert restored(store, made.ids[4]) == made.held[made.ids[4]]
    assert called


def test_a_verification_of_what_is_replaced_meanwhile_notes_nothing(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = VerifyRequest(StoreSpec(store.url), "stored", transfer=TransferOptions(state_dir=str(tmp_path)))
    verify_export(request, False)
    verify_export(replace(request, export=made.ids[3]), False)
    assert f"{HOME}/{made.ids[3]}/{VERIFIED}" in keys(store)
    merge(store)
    assert f"{HOME}/{made.ids[3]}/{VERIFIED}" not in keys(store), "it told the SHA-256 of what is gone"
    read_into, looked = FilesystemStore.read_into, []

    def meanwhile(self: FilesystemStore, key: str, offset: int, buffer: memoryview) -> None:
        if key.endswith(".digests") and not looked:
            looked.append(key)
            merge(store, 1)
        read_into(self, key, offset, buffer)

    monkeypatch.setattr(FilesystemStore, "read_into", meanwhile)
    store.delete(f"{HOME}/{made.ids[4]}/{VERIFIED}")
    assert refused(lambda: verify_export(request, False), "conflict").retryable
    assert looked
    assert f"{HOME}/{made.ids[4]}/{VERIFIED}" not in keys(store)
    for level in ("stored", "content"):
        assert verify_export(replace(request, level=level), False)["problems"] == []


def test_an_increment_is_made_while_what_it_stands_on_is_merged(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest = Guest()
    guest.disks = {name: bytearray(data) for name, data in made.held[made.ids[4]].items()}
    guest.write_some()

    def increment() -> None:
        done = export(StoreSpec(store.url), guest, tmp_path, mode="incremental", verify="content")["export"]
        made.add(done["id"], guest.now)

    assert once(monkeypatch, store, "open_parts", "disk-1.qcow2", increment) == []
    result = merge(store)
    assert len(made.ids) == 6
    assert sorted(result["deleted"]) == made.ids[:3]
    assert assert_whole(store, made) == made.ids[3:]


def test_a_merge_beside_an_increment_waits_for_the_next_cleanup(store: Store, made: Chain, tmp_path: Path) -> None:
    guest = Guest()
    guest.disks = {name: bytearray(data) for name, data in made.held[made.ids[4]].items()}
    guest.write_some()
    results: list[dict[str, Any]] = []
    guest.reading = lambda: results.append(merge(store)) if not results else None
    done = export(StoreSpec(store.url), guest, tmp_path, mode="incremental")["export"]
    made.add(done["id"], guest.now)
    assert results[0]["changed"] is False
    assert assert_whole(store, made) == made.ids


def test_another_cleanup_deletes_nothing_of_what_is_being_merged(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    other = second(store)

    def cleanups() -> None:
        told.append(clean_up(other, max_age=1e-6))
        told.append(merge(other, 1))
        monkeypatch.setattr(orphans, "LEASE", -60.0)  # as if all had lain there for long
        monkeypatch.setattr(litter, "LEASE", -60.0)
        told.append(clean_up(other, orphans=True))
        litter.remove_litter(other, [f"{HOME}/{one}" for one in made.ids], time.time(), print)

    assert once(monkeypatch, store, "put", FOLDING, cleanups, turn=2) == []
    result = merge(store)
    assert len(told) == 3
    assert [one["deleted"] for one in told] == [[made.ids[4]], [], []]
    assert (told[1]["merged"], told[2]["orphans"]) == ([], [])
    assert sorted(result["deleted"]) == made.ids[:3]
    assert assert_whole(store, made) == [made.ids[3]]


def test_a_deletion_that_began_first_is_let_go_on(store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    text = store.get(f"{HOME}/{made.ids[3]}/{MANIFEST}")
    mark = f"{HOME}/{made.ids[3]}/{DELETION}"
    intent = Intent(made.ids[3], "c" * 32, "", "", time.time(), time.time() + 300, ELSEWHERE)
    assert once(monkeypatch, store, "put", FOLDING, lambda: store.put(mark, Deletion(intent, text).to_json())) == []
    result = merge(store)
    assert "is deleting" in next(one["reason"] for one in result["exports"] if one["id"] == made.ids[0])
    assert (result["merged"], result["deleted"]) == ([], [])
    assert not [key for key in keys(store) if key.endswith(FOLDING)]


def test_a_merge_that_began_first_is_let_go_on_by_a_deletion(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"{HOME}/{made.ids[4]}"
    claim = Intent(made.ids[4], "c" * 32, "", "", time.time(), time.time() + 300, ELSEWHERE)
    folding = Folding(claim, "0" * 8, (made.ids[3],)).to_json()
    called = once(monkeypatch, store, "put", f"{folder}/{DELETION}", lambda: store.put(f"{folder}/{FOLDING}", folding))
    result = clean_up(store, max_age=1e-6)
    assert called
    assert (result["deleted"], rules(result)[made.ids[4]]) == ([], "in_use")
    assert f"{folder}/{DELETION}" not in keys(store)
    assert assert_whole(store, made) == made.ids


def test_a_base_is_not_deleted_by_who_knows_an_older_parent_of_what_stands_on_it(store: Store, made: Chain) -> None:
    """The list was read while a merge was under way: the parent was gone already, and the child's manifest was old."""
    store.put(f"{HOME}/{made.ids[0]}/{PINNED}", b"")
    entries = {entry.manifest.export_id: entry for entry in Catalog(store).read()[0]}
    merge(store, 2)
    known = [entries[made.ids[number]] for number in (0, 3, 4)]
    family = VmFolder(store, store.probe("probe"), HOME, known, print, time.time())
    assert family.who_stands_on(made.ids[0]) == f"{made.ids[3]} stands on it."


@pytest.mark.parametrize("change", [{"export_id": "20200101T000000Z-0000abcd"}, {"digest_root": "0" * 64}])
def test_what_is_said_to_become_of_an_export_must_be_its_own(store: Store, made: Chain, change: dict[str, str]) -> None:
    entry = Catalog(store).find(made.ids[3])
    (disk, *others) = entry.manifest.disks
    disks = (replace(disk, **{name: value for name, value in change.items() if name == "digest_root"}), *others)
    named = {name: value for name, value in change.items() if name == "export_id"}
    forged = replace(entry.manifest, disks=disks, parent=made.ids[0], **named).to_json(str)
    claim = Intent(made.ids[3], "c" * 32, "", "", time.time(), 0.0, {})
    store.put(f"{HOME}/{made.ids[3]}/{FOLDING}", Folding(claim, "0" * 8, tuple(made.ids[1:3]), forged).to_json())
    assert "belongs to another export" in refused(lambda: restored(store, made.ids[4]), "invalid_config").message
    assert "belongs to another export" in refused(lambda: clean_up(store, max_count=9), "invalid_config").message


def test_a_claim_that_cannot_be_read_keeps_the_whole_vm(store: Store, made: Chain) -> None:
    store.put(f"{HOME}/{made.ids[3]}/{FOLDING}", b"{")
    result = merge(store)
    assert (result["changed"], set(rules(result).values())) == (False, {"in_use"})
    assert f"{FOLDING} is not JSON" in result["warnings"][0]


def test_a_cleanup_that_lost_its_claim_replaces_nothing(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.get(f"{HOME}/{made.ids[3]}/disk-0.qcow2")

    def lose() -> None:
        merging_by_another_host(second(store), made.ids[3])

    called = once(monkeypatch, store, "put", FOLDING, lose, turn=3)
    result = merge(store)
    assert called
    assert (result["merged"], result["deleted"]) == ([], [])
    assert "Another run is merging" in next(one["reason"] for one in result["exports"] if one["id"] == made.ids[0])
    assert store.get(f"{HOME}/{made.ids[3]}/disk-0.qcow2") == before
    assert assert_whole(store, made) == made.ids


def test_a_renewal_whose_answer_is_lost_is_no_other_runs(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next renewal, by the run itself, and by the removal of the claim in the end."""
    put, lost = store.put, threading.Event()

    def loses_the_answer(key: str, *arguments: Any, **options: Any) -> Any:
        info = put(key, *arguments, **options)
        if key.endswith(FOLDING) and threading.current_thread().name == "lease":
            lost.set()
            raise VmferryError("network", "The answer is lost.")
        return info

    delete = store.delete

    def after_a_renewal(key: str, **options: Any) -> Any:
        if key.endswith(DIGESTS) and store.stat(f"{key.rpartition('/')[0]}/{FOLDING}") is not None:
            lost.clear()
            assert lost.wait(10)
        return delete(key, **options)

    monkeypatch.setattr(fold_claim.FoldClaim, "beat", 0.02)
    monkeypatch.setattr(store, "put", loses_the_answer)
    monkeypatch.setattr(store, "delete", after_a_renewal)
    result = merge(store)
    assert result["merged"], [one["reason"] for one in result["exports"]]
    assert not any(key.endswith(FOLDING) for key in keys(store))
    assert lost.is_set()
