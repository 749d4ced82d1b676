# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup leaves what it says and nothing else, in every store, as seen behind the store's back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine.exports.shelves import SIZE, begin, clean_up, commit, folder_of, keys, rules, whole

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.marks import CHECKED, PINNED
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import DAY
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.litter import probe_key
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning import orphans
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.dav.client import Body

from .store_rigs import RIGS, StoreRig

OTHER = "99999999-3c4d-4e5f-8a9b-0c1d2e3f4a5b"
DATED = [each.name for each in RIGS if each.declared.dates_uploads]
each_rig = pytest.mark.parametrize("rig", [each.name for each in RIGS], indirect=True)


@pytest.fixture
def store(rig: StoreRig) -> Store:
    return rig.fresh()


def files_in(rig: StoreRig, store: Store) -> list[str]:
    """Also what is unfinished. A folder on a path is a leftover, too, unless something lies in it."""
    found = rig.leftovers(store)
    return [one for one in found if not any(other.startswith(f"{one}/") for other in found)]


def upload(store: Store, key: str) -> None:
    """Begun, and left."""
    data = b"x" * 70_000
    parts = store.open_parts(key)
    if parts.any_offset:
        parts.write_at(0, memoryview(data))
    else:
        parts.write_part(Part(1, 0, len(data)), memoryview(data))
    parts.leave()


@each_rig
def test_what_goes_is_gone_and_what_stays_is_whole(rig: StoreRig, store: Store) -> None:
    old, pinned, young = commit(store, 40), commit(store, 35, number=1), commit(store, 1, number=2)
    other = commit(store, 50, vm="db01", uuid=OTHER)
    store.put(f"{folder_of(pinned)}/{PINNED}", b"for the auditors\n")
    upload(store, f"{folder_of(old)}/disk-0.qcow2")
    result = clean_up(store, max_age=30 * DAY)
    assert rules(result) == {other: "max_age", old: "max_age", pinned: "pinned", young: "within_limits"}
    assert [one["reason"] for one in result["exports"] if one["id"] == pinned] == ["It is pinned: for the auditors"]
    assert (sorted(result["deleted"]), result["freed"], result["changed"]) == (sorted([old, other]), 2 * SIZE, True)
    assert files_in(rig, store) == sorted([*whole(pinned, young), f"{folder_of(pinned)}/{PINNED}"])
    again = clean_up(store, max_age=30 * DAY)
    assert (again["changed"], again["deleted"], again["diff"]["before"]) == (False, [], again["diff"]["after"])


@each_rig
def test_check_mode_says_the_same_and_deletes_nothing(rig: StoreRig, store: Store) -> None:
    for number in range(3):
        commit(store, 10 * number, number=number)
    begin(store, lease=-100.0, number=7)
    before = rig.leftovers(store)
    planned = clean_up(store, check_mode=True, max_count=1, orphans=True)
    assert rig.leftovers(store) == before
    assert len(planned["deleted"]) == 2
    assert planned == clean_up(store, max_count=1, orphans=True)
    assert planned["diff"]["before"]["exports"] == [*planned["deleted"], *planned["diff"]["after"]["exports"]]


@each_rig
def test_a_base_stays_while_an_increment_on_it_is_under_way(rig: StoreRig, store: Store) -> None:
    base = commit(store, 40)
    child = begin(store, parent=base, number=1)
    result = clean_up(store, max_age=DAY)
    assert rules(result) == {base: "in_use"}
    assert f"is making {child}" in result["exports"][0]["reason"]
    assert set(whole(base)) < set(files_in(rig, store))


@each_rig
def test_a_base_whose_increment_died_goes_with_it(rig: StoreRig, store: Store) -> None:
    base = commit(store, 40)
    begin(store, parent=base, lease=-1.0, number=1)
    assert clean_up(store, max_age=DAY)["deleted"] == [base]
    assert rig.leftovers(store) == []


@each_rig
@pytest.mark.parametrize("becomes", ["an intent", "a manifest"])
def test_a_manifest_is_put_back_when_an_increment_turns_up_after_it_was_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    base, delete = commit(store, 40), store.delete
    before = keys(store)
    late: list[str] = []

    def meanwhile(key: str, **options: Any) -> None:
        delete(key, **options)
        if key.endswith(MANIFEST) and not late:
            late.append(key)
            if becomes == "an intent":
                begin(store, parent=base, number=1)
            else:
                commit(store, 0, parent=base, number=1)

    monkeypatch.setattr(store, "delete", meanwhile)
    result = clean_up(store, max_age=DAY)
    assert late
    assert (result["deleted"], rules(result)) == ([], {base: "in_use"})
    assert set(before) < set(keys(store))


@each_rig
def test_a_chain_goes_from_its_newest_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    full = commit(store, 40)
    middle = commit(store, 39, parent=full, number=1)
    last = commit(store, 38, parent=middle, number=2)
    removed: list[str] = []
    delete = store.delete
    monkeypatch.setattr(store, "delete", lambda key, **options: (removed.append(key), delete(key, **options))[1])
    assert sorted(clean_up(store, max_age=DAY)["deleted"]) == sorted([full, middle, last])
    manifests = [key for key in removed if key.endswith(MANIFEST)]
    assert manifests == [f"{folder_of(one)}/{MANIFEST}" for one in (last, middle, full)]


@each_rig
def test_free_space_is_made_where_a_store_can_tell_and_refused_where_not(rig: StoreRig, store: Store) -> None:
    old, young = commit(store, 2), commit(store, 1, number=1)
    free = store.free_space()
    if free is None:
        with pytest.raises(VmferryError) as caught:
            clean_up(store, min_free=1)
        assert caught.value.kind == "invalid_config"
        assert files_in(rig, store) == whole(old, young)
    else:
        store.free_space = lambda: 1000  # type: ignore[method-assign]
        assert clean_up(store, min_free=1001)["deleted"] == [old]
        assert clean_up(store, min_free=1000)["deleted"] == []


@pytest.mark.parametrize("rig", ["filesystem"], indirect=True)
def test_room_that_an_unfinished_export_takes_is_made_before_whole_exports_are_deleted_for_it(store: Store) -> None:
    old = commit(store, 2)
    commit(store, 1, number=1)
    dead, held = begin(store, lease=-1.0, number=2), begin(store, lease=-1.0, held=60.0, number=3)
    store.put(f"{folder_of(dead)}/disk-0.digests", bytes(50_000))
    upload(store, f"{folder_of(dead)}/disk-0.qcow2")
    folder = Path(store.url.removeprefix("file://"))

    def used() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    room = used()
    store.free_space = lambda: room - used()  # type: ignore[method-assign]
    planned = clean_up(store, check_mode=True, min_free=50_000, orphans=True)
    done = clean_up(store, min_free=50_000, orphans=True)
    for told in (planned, done):
        assert (told["deleted"], [one["kind"] for one in told["orphans"]]) == ([], ["attempt"])
    assert clean_up(store, min_free=room, orphans=True)["deleted"] == [old], "what is held counts as used"
    assert list(store.list(f"{folder_of(held)}/"))


@pytest.mark.parametrize("rig", DATED, indirect=True)
def test_orphans_are_removed_and_what_somebody_may_be_at_stays(
    rig: StoreRig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_one = commit(store, 1)
    dead, alive = begin(store, lease=-100.0, number=1), begin(store, number=2)
    upload(store, f"{folder_of(dead)}/disk-0.qcow2")
    upload(store, f"{folder_of(alive)}/disk-0.qcow2")
    upload(store, f"{folder_of(whole_one)}/disk-1.qcow2")
    gone = folder_of("20200101T000000Z-0000abcd")
    litter = [
        probe_key(),
        *(f"{folder_of(whole_one)}/{name}" for name in (INTENT, "cancel", "journal/disk-0")),
        f"{gone}/{CHECKED}",
    ]
    for key in litter:
        store.put(key, b"{}")
    foreign = [".vmferry-notes", "other/notes.txt", "web01-1f0c9a2b/notes.txt"]
    for key in foreign:
        store.put(key, b"not ours")
    told = clean_up(store, orphans=True)["orphans"]
    assert [one["kind"] for one in told] == ["attempt"], "the rest may be somebody's, for five minutes"
    upload(store, f"{folder_of(dead)}/disk-0.qcow2")
    monkeypatch.setattr(orphans, "LEASE", -60.0)  # as if they had lain there for long
    result = clean_up(store, orphans=True)
    kinds = [one["kind"] for one in result["orphans"]]
    hidden = [] if rig.declared.lists_hidden else litter[:1]  # what no listing tells of, nobody finds
    assert sorted(kinds) == sorted(["mark"] * 4 + ["probe"] * (not hidden) + ["upload", "upload"])
    stayed = [*(f"{folder_of(alive)}/{name}" for name in ("disk-0.digests", INTENT)), *hidden]
    left = [one for one in files_in(rig, store) if not one.startswith(f"{folder_of(alive)}/disk-0.qcow2")]
    assert left == sorted([*whole(whole_one), *stayed, *foreign])
    assert len(files_in(rig, store)) == len(left) + 1, "the upload of the living one"
    assert clean_up(store, orphans=True)["changed"] is False


@pytest.mark.parametrize("rig", ["filesystem", "nfs", "nginx_dav", "rclone_dav"], indirect=True)
def test_half_a_file_of_a_put_or_of_a_copy_by_the_server_is_an_orphan_once_it_is_old(
    rig: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_one = commit(store, 1)
    key = f"{folder_of(whole_one)}/disk-1.qcow2.0123456789abcdef.part"
    if hasattr(rig, "folder"):
        half = rig.folder(store) / key
        store.innermost.__dict__["_folder"].put(key, Body(memoryview(b"half"), lambda: None), {})
    else:
        half = Path(store.location(key))
        half.write_bytes(b"half")
    assert clean_up(store, orphans=True)["orphans"] == [], "somebody may be writing it"
    monkeypatch.setattr(orphans, "LEASE", -60.0)
    (told,) = clean_up(store, orphans=True, check_mode=True)["orphans"]
    assert (told["kind"], half.exists()) == ("upload", True)
    assert clean_up(store, orphans=True)["orphans"] == [told]
    assert not half.exists()
    assert files_in(rig, store) == whole(whole_one)
