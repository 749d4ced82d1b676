# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup looks at, what it does when something goes wrong in the middle, and what it tells of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from engine.exports.samples import UUID
from engine.exports.shelves import begin, clean_up, commit, folder_of, keys, rules, whole

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import ObjectInfo
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import LEASE
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.marks import PINNED
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention import DAY
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import open_filesystem

OTHER = "99999999-3c4d-4e5f-8a9b-0c1d2e3f4a5b"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_filesystem(str(tmp_path / "store"), {})


@pytest.mark.parametrize(
    ("wanted", "looked_at"),
    [
        ({"vm": ("web01",)}, [0, 1]),
        ({"vm": (OTHER,)}, [2]),
        ({"vm": ("web01", "db01")}, [0, 1, 2]),
        ({"tags": ("daily",)}, [0, 2]),
        ({"tags": ("daily", "gold")}, [2]),
        ({"purpose": "backup"}, [0, 1]),
        ({"vm": ("web01",), "tags": ("daily",), "purpose": "backup"}, [0]),
    ],
)
def test_only_what_is_asked_for_is_looked_at(store: Store, wanted: dict[str, Any], looked_at: list[int]) -> None:
    made = [
        commit(store, 40, number=0, tags=("daily",), purpose="backup"),
        commit(store, 40, number=1, tags=(), purpose="backup"),
        commit(store, 40, number=2, tags=("gold", "daily"), purpose="move", vm="db01", uuid=OTHER),
    ]
    result = clean_up(store, max_age=DAY, **wanted)
    assert sorted(result["deleted"]) == [made[number] for number in looked_at]
    assert len(result["exports"]) == len(looked_at)


def test_a_child_outside_the_filter_keeps_its_base(store: Store) -> None:
    base = commit(store, 40, tags=("weekly",))
    commit(store, 1, tags=("daily",), parent=base, number=1)
    assert rules(clean_up(store, max_age=DAY, tags=("weekly",))) == {base: "child"}


def test_the_url_may_be_one_vm_and_not_one_export(store: Store, tmp_path: Path) -> None:
    base = commit(store, 40)
    commit(store, 0.5, parent=base, number=1)
    old = commit(store, 41, number=2)
    home = tmp_path / "store" / folder_of(old).partition("/")[0]
    assert sorted(rules(clean_up(open_filesystem(str(home), {}), max_age=DAY)).values()) == [
        "child",
        "max_age",
        "within_limits",
    ]
    with pytest.raises(VmferryError) as caught:
        clean_up(open_filesystem(str(home / base), {}), max_age=DAY)
    assert (caught.value.kind, "is one export" in str(caught.value)) == ("invalid_config", True)


def test_nothing_beside_a_manifest_that_cannot_be_read_goes(store: Store) -> None:
    old = commit(store, 40)
    other = commit(store, 40, vm="db01", uuid=OTHER)
    broken = commit(store, 39, number=1)
    store.put(f"{folder_of(broken)}/{MANIFEST}", b'{"x_vmferry": {"schema": 2}}')
    result = clean_up(store, max_age=DAY)
    assert rules(result) == {other: "max_age", old: "in_use"}
    assert [one["url"] for one in result["broken"]] == [store.object_url(folder_of(broken))]


def test_a_store_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(VmferryError) as caught:
        clean_up(open_filesystem(str(tmp_path / "typo"), {}), max_age=DAY)
    assert caught.value.kind == "not_found"


@pytest.mark.parametrize("behind", [30.0, 2 * LEASE])
def test_the_earlier_clock_counts(store: Store, monkeypatch: pytest.MonkeyPatch, behind: float) -> None:
    made = commit(store, 1)
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + behind)
    result = clean_up(store, max_age=DAY + behind / 2)
    assert rules(result) == {made: "within_limits"}
    assert [("differ by" in warning) for warning in result["warnings"]] == ([True] if behind > LEASE else [])


def refusing(store: Store, monkeypatch: pytest.MonkeyPatch, part: str, error: VmferryError) -> None:
    delete = store.delete

    def refuse(key: str, **options: Any) -> None:
        if part in key:
            raise error
        delete(key, **options)

    monkeypatch.setattr(store, "delete", refuse)


def test_what_cannot_be_deleted_fails_the_task_and_all_else_is_done_and_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, stuck, last = commit(store, 40), commit(store, 39, number=1), commit(store, 38, number=2)
    with monkeypatch.context() as patch:
        refusing(store, patch, f"{stuck}/disk-0.qcow2", VmferryError("permission_denied", "Immutable.", "Ask."))
        with pytest.raises(VmferryError) as caught:
            clean_up(store, max_age=DAY)
    done = caught.value.done
    assert (caught.value.kind, caught.value.hint) == ("permission_denied", "Ask.")
    assert done["deleted"] == [first, last]
    assert done["failures"] == [
        {"where": store.object_url(folder_of(stuck)), "msg": "Immutable.", "kind": "permission_denied"}
    ]
    assert done["diff"]["after"] == {"exports": [stuck]}
    assert not [key for key in keys(store) if key.endswith(MANIFEST)], "it is no export any more"
    assert [one["reason"] for one in clean_up(store, max_age=DAY)["orphans"]] == ["Its deletion was finished."]
    assert keys(store) == []


def test_the_base_of_what_cannot_be_deleted_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    base = commit(store, 40)
    child = commit(store, 39, parent=base, number=1)
    refusing(store, monkeypatch, child, VmferryError("permission_denied", "Immutable."))
    with pytest.raises(VmferryError) as caught:
        clean_up(store, max_age=DAY)
    assert caught.value.done["deleted"] == []
    assert keys(store) == sorted(
        [*whole(base, child), *(key for key in keys(store) if key.endswith("deleting.json"))]
    ), "its manifest was not deleted, so it is as it was"


def test_a_store_that_went_away_is_not_asked_for_each_export_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [commit(store, 40 - number, number=number) for number in range(3)]
    tried: list[str] = []
    put = store.put

    def away(key: str, *words: Any, **options: Any) -> ObjectInfo:
        if "deleting" in key:
            tried.append(key)
            raise VmferryError("network", "No route.")
        return put(key, *words, **options)

    monkeypatch.setattr(store, "put", away)
    with pytest.raises(VmferryError) as caught:
        clean_up(store, max_age=DAY)
    assert (caught.value.kind, caught.value.retryable) == ("network", True)
    assert len(tried) == 1
    assert len(caught.value.done["failures"]) == 3
    assert keys(store) == whole(*made)


def test_what_comes_back_after_it_was_deleted_is_not_counted_as_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, delete = commit(store, 40), store.delete
    monkeypatch.setattr(store, "delete", lambda key, **options: None if "qcow2" in key else delete(key, **options))
    with pytest.raises(VmferryError) as caught:
        clean_up(store, max_age=DAY)
    assert caught.value.done["deleted"] == []
    assert f"{folder_of(made)}/disk-0.qcow2" in keys(store)


def test_an_export_that_another_run_deletes_meanwhile_is_not_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = commit(store, 40)
    get = store.get
    calls: list[str] = []

    def gone(key: str, *words: Any) -> bytes:
        if key.endswith(MANIFEST) and key in calls:
            for one in keys(store):
                store.delete(one)
        calls.append(key)
        return get(key, *words)

    monkeypatch.setattr(store, "get", gone)
    result = clean_up(store, max_age=DAY)
    assert calls.count(f"{folder_of(made)}/{MANIFEST}") == 2
    assert (result["deleted"], result["exports"], result["changed"]) == ([], [], False)


def test_an_export_that_is_pinned_meanwhile_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit(store, 40)
    key = f"{folder_of(made)}/{PINNED}"
    get = store.get
    looks: list[str] = []

    def pinning(asked: str, *words: Any) -> bytes:
        if asked == key and looks:
            store.put(key, b"")
        looks.append(asked)
        return get(asked, *words)

    monkeypatch.setattr(store, "get", pinning)
    assert rules(clean_up(store, max_age=DAY)) == {made: "pinned"}
    assert keys(store) == sorted([*whole(made), key])


def test_a_limit_that_protections_keep_from_being_met_is_told(store: Store) -> None:
    commit(store, 1)
    (warning,) = clean_up(store, max_total_size=1, keep_last=1)["warnings"]
    assert "max_total_size is 1" in warning


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"", ""), (b"for the\nauditors \x07", "for the auditors"), (b"x" * 300, "x" * 256), (b"x" * 70_000, "")],
)
def test_a_pin_and_its_reason_are_listed(store: Store, text: bytes, reason: str) -> None:
    made = commit(store, 1)
    commit(store, 2, number=1)
    store.put(f"{folder_of(made)}/{PINNED}", text)
    listed = list_exports(StoreSpec(store.url), "", "", (), "", False)["exports"]
    assert [(one["id"] == made, one["pin_reason"]) for one in listed if one["pinned"]] == [(True, reason)]
    assert rules(clean_up(store, max_age=1.0, vm=(UUID,)))[made] == "pinned"


def test_an_orphan_that_is_not_this_vms_is_left_where_a_vm_is_named(store: Store) -> None:
    commit(store, 1, vm="db01", uuid=OTHER)
    begin(store, lease=-1.0, number=1)
    assert clean_up(store, orphans=True, vm=("db01",))["orphans"] == []
    told = clean_up(store, orphans=True, vm=("web01",))["orphans"]
    assert [one["kind"] for one in told] == ["attempt"]


def test_dead_attempts_stay_where_nobody_asks_for_orphans(store: Store) -> None:
    begin(store, lease=-1.0, number=1)
    before = keys(store)
    assert clean_up(store, max_age=DAY)["changed"] is False
    assert keys(store) == before
