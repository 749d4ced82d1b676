# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup that merges exports: what stays reads as it did, in every store, and stands on nothing that went."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from secrets import token_hex

import pytest
from engine.exports.shelves import clean_up, keys, rules

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.marks import PINNED
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .chains import HOME, Chain, Guest, assert_whole, export, there
from .store_rigs import S3Rig, StoreRig

in_a_folder = pytest.mark.parametrize("rig", ["filesystem"], indirect=True)
each_rig = pytest.mark.parametrize("rig", ["filesystem", "s3"], indirect=True)
wrapped_too = pytest.mark.parametrize("rig", ["filesystem", "wrapped", "s3", "gcs"], indirect=True)
FILES = {"disk-0.qcow2", "disk-1.qcow2", "manifest.json", "native/domain.xml", "vm.json"}
Load = Callable[[Store], Chain]


@pytest.fixture
def store(rig: StoreRig) -> Store:
    return rig.fresh()


def files_of(store: Store, made: str) -> set[str]:
    prefix = f"{HOME}/{made}/"
    return {info.key.removeprefix(prefix) for info in store.list(prefix)}


def parents(store: Store) -> dict[str, str]:
    return {entry.manifest.export_id: entry.manifest.parent for entry in Catalog(store).read()[0]}


@wrapped_too
def test_what_goes_is_merged_into_what_stands_on_it(rig: StoreRig, store: Store, chain: Load) -> None:
    made = chain(store)
    full, first, second, third, last = made.ids
    before = {entry.manifest.export_id: entry.manifest for entry in Catalog(store).read()[0]}
    planned = clean_up(store, check_mode=True, max_count=2, merge=True)
    assert there(store) == made.ids
    result = clean_up(store, max_count=2, merge=True)
    assert parents(store) == {third: "", last: third}
    assert assert_whole(store, made, tools=True) == [third, last]
    assert rules(result) == {full: "max_count", first: "max_count", second: "max_count",
                             third: "within_limits", last: "within_limits"}  # fmt: skip
    actions = {one["id"]: (one["action"], one["into"]) for one in result["exports"]}
    assert actions == {**dict.fromkeys((full, first, second), ("merge", [third])),
                       **dict.fromkeys((third, last), ("keep", []))}  # fmt: skip
    assert (sorted(result["deleted"]), result["changed"]) == (sorted([full, first, second]), True)
    (merged,) = result["merged"]
    assert (merged["id"], merged["exports"]) == (third, [full, first, second])
    (ahead,) = planned["merged"]
    assert (ahead["id"], ahead["exports"]) == (third, [full, first, second])
    assert 0 < merged["bytes_read"] <= ahead["bytes_read"]
    assert 0 < merged["bytes_written"] <= ahead["bytes_written"]
    assert planned["exports"] == result["exports"]
    after = Catalog(store).find(third).manifest
    assert (after.mode, after.statistics["merged"]["exports"]) == ("full", [full, first, second])
    for name in ("chain_id", "taken_at", "created_at", "name", "tags", "change_token", "files", "machine"):
        assert getattr(after, name) == getattr(before[third], name)
    assert [disk.digest_root for disk in after.disks] == [disk.digest_root for disk in before[third].disks]
    took = sum(disk.bytes_stored + disk.digests.size for disk in after.disks)
    grown = took - sum(disk.bytes_stored + disk.digests.size for disk in before[third].disks)
    gone = sum(one["size"] for one in result["exports"] if one["action"] == "merge")
    assert result["freed"] == gone - grown
    assert len(files_of(store, third)) == len(FILES) + 2, "one digest file for each disk"
    assert len(rig.leftovers(store)) >= len(keys(store))
    assert not [one for one in rig.leftovers(store) if one.endswith(".part")]
    again = clean_up(store, max_count=2, merge=True, orphans=True)
    assert (again["changed"], again["merged"], again["deleted"]) == (False, [], [])


@in_a_folder
def test_a_base_that_stays_is_what_the_merged_one_stands_on(store: Store, chain: Load) -> None:
    made = chain(store)
    full, first, second, third, last = made.ids
    store.put(f"{HOME}/{full}/{PINNED}", b"audit")
    clean_up(store, max_count=1, merge=True)
    assert parents(store) == {full: "", last: full}
    assert assert_whole(store, made, tools=True) == [full, last]
    clean_up(store, max_count=1, merge=True)
    store.delete(f"{HOME}/{full}/{PINNED}")
    clean_up(store, max_count=1, merge=True)
    assert parents(store) == {last: ""}
    assert assert_whole(store, made) == [last]
    del first, second, third


@in_a_folder
def test_each_of_two_children_takes_over_what_both_stand_on(store: Store, two_children: Load) -> None:
    made = two_children(store)
    *_unused, second, third, last, other = made.ids
    store.put(f"{HOME}/{third}/{PINNED}", b"")
    store.put(f"{HOME}/{other}/{PINNED}", b"")
    result = clean_up(store, max_count=1, merge=True)
    assert parents(store) == {third: "", last: third, other: ""}
    assert {one["id"] for one in result["merged"]} == {third, other}
    assert second in result["deleted"]
    assert_whole(store, made)


@each_rig
def test_an_increment_goes_on_from_what_was_merged(rig: StoreRig, store: Store, chain: Load, tmp_path: Path) -> None:
    made = chain(store)
    clean_up(store, max_count=1, merge=True)
    guest = Guest()
    guest.disks = {name: bytearray(data) for name, data in made.held[made.ids[-1]].items()}
    guest.write_some()
    settings = rig.server.settings if hasattr(rig, "server") else {}
    done = export(StoreSpec(store.url, settings), guest, tmp_path, mode="incremental")["export"]
    made.add(done["id"], guest.now)
    assert done["structure"] == [made.ids[-2], done["id"]]
    assert len(assert_whole(store, made)) == 2
    clean_up(store, max_count=1, merge=True)
    assert assert_whole(store, made) == [done["id"]]


@pytest.mark.parametrize("how", ["retention", "legal hold"])
def test_what_an_object_lock_holds_is_not_replaced(s3: S3Rig, chain: Load, how: str) -> None:
    bucket = f"locked-{token_hex(4)}"
    s3.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    store = open_store(f"s3://{bucket}/exports", s3.server.settings)
    made = chain(store)
    image = {"Bucket": bucket, "Key": f"exports/{HOME}/{made.ids[4]}/disk-0.qcow2"}
    if how == "retention":
        until = datetime.now(timezone.utc) + timedelta(days=1)
        s3.client.put_object_retention(**image, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until})
    else:
        s3.client.put_object_legal_hold(**image, LegalHold={"Status": "ON"})
    before = keys(store)
    for check_mode in (True, False):
        with pytest.raises(VmferryError) as caught:
            clean_up(store, check_mode=check_mode, max_count=1, merge=True)
        assert (caught.value.kind, caught.value.retryable) == ("unsupported", False)
        assert "disk-0.qcow2 is locked" in caught.value.message
        assert keys(store) == before


@in_a_folder
def test_a_deep_chain_becomes_one_export(store: Store, tmp_path: Path) -> None:
    made, guest = Chain(), Guest("deep")
    for _unused in range(6):
        made.add(export(StoreSpec(store.url), guest, tmp_path)["export"]["id"], guest.now)
        guest.write_some()
    result = clean_up(store, max_count=1, merge=True)
    assert len(result["merged"][0]["exports"]) == 5
    assert assert_whole(store, made) == [made.ids[-1]]
