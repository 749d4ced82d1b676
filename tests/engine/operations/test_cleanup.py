# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cleanup looks at, what it does when something goes wrong in the middle, and what it tells of it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine.exports.samples import UUID, disk
from engine.exports.shelves import begin, clean_up, commit, folder_of, identity, keys, rules, whole

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import ObjectInfo
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.deletion import DELETION
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, LEASE, read_intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.marks import CHECKED, PINNED
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import parse_iso_time
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import DAY
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.verifications import VERIFIED, Verifications
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts import attempt_life
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.dead_attempts import (
    remove_unreadable_attempt,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.jobs_in_store import jobs_in_store
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning import orphans
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

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


@pytest.mark.parametrize("behind", [-7200.0, -120.0, 0.0])
def test_an_export_that_is_named_goes_whatever_the_clocks_say_and_no_other_one_does(
    store: Store, monkeypatch: pytest.MonkeyPatch, behind: float
) -> None:
    """A migration deletes what it has just taken, from a store whose clock it does not know."""
    old, new = commit(store, 40, number=1), commit(store, 1 / DAY, number=2)
    put = store.put

    def late(*words: Any, **options: Any) -> ObjectInfo:
        info = put(*words, **options)
        return replace(info, modified=info.modified + behind)

    monkeypatch.setattr(store, "put", late)
    result = clean_up(store, exports=(new,), max_age=DAY, keep_last=3)
    assert (result["deleted"], rules(result)) == ([new], {new: "export"})
    assert keys(store) == whole(old)
    again = clean_up(store, exports=(new,))
    assert (again["changed"], again["exports"], again["failures"]) == (False, [], [])


def test_an_export_that_is_named_and_stays_fails_the_task(store: Store) -> None:
    full = commit(store, 3, number=1)
    child = commit(store, 2, number=2, parent=full)
    parent = commit(store, 2, number=3)
    begin(store, parent=parent, number=4)
    store.put(f"{folder_of(child)}/{PINNED}", b"audit")
    for check_mode in (True, False):
        with pytest.raises(VmferryError) as caught:
            clean_up(store, check_mode=check_mode, exports=(full, child, parent))
        failures = {one["where"].rpartition("/")[2]: (one["kind"], one["msg"]) for one in caught.value.done["failures"]}
        assert caught.value.done["deleted"] == []
        assert failures[full] == ("conflict", f"{full} stays. {child} stands on it.")
        assert failures[child] == ("conflict", f"{child} stays. It is pinned: audit")
        assert failures[parent][0] == "busy"


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


@pytest.mark.parametrize("mark", [INTENT, DELETION])
@pytest.mark.parametrize("text", [b"", b"{}", b"x" * (3 << 20)])
def test_a_mark_that_cannot_be_read_keeps_the_exports_beside_it_and_no_others(
    store: Store, mark: str, text: bytes
) -> None:
    beside, other = commit(store, 40), commit(store, 40, vm="db01", uuid=OTHER, number=1)
    store.put(f"{folder_of(identity(0, 9))}/{mark}", text)
    for check_mode in (True, False):
        told = clean_up(store, max_age=DAY, check_mode=check_mode)
        assert (told["deleted"], rules(told)[beside]) == ([other], "in_use")
        assert f"{mark} " in told["warnings"][0]


@pytest.mark.parametrize("text", [b"", b"{}"])
def test_an_attempt_whose_intent_cannot_be_read_is_an_orphan_once_nobody_has_written_it_for_a_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    left = begin(store)
    store.put(f"{folder_of(left)}/{INTENT}", text)
    assert clean_up(store, orphans=True)["orphans"] == []
    monkeypatch.setattr(orphans, "LEASE", -60.0)
    assert [one["kind"] for one in clean_up(store, orphans=True)["orphans"]] == ["attempt"]
    assert keys(store) == []


def test_an_export_that_was_committed_beside_an_intent_that_cannot_be_read_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = begin(store)
    key = f"{folder_of(left)}/{INTENT}"
    store.put(key, b"")
    seen = store.stat(key)
    assert seen is not None
    commit(store, 0, export=left)
    assert not remove_unreadable_attempt(store, folder_of(left), store.probe("probe"), seen, print)
    assert keys(store) == whole(left)


@pytest.mark.parametrize("note", [CHECKED, VERIFIED])
def test_a_note_about_an_export_that_was_deleted_meanwhile_is_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    store.put(f"{folder_of(identity(1))}/{note}", b"{}")
    monkeypatch.setattr(orphans, "LEASE", -60.0)
    assert [one["kind"] for one in clean_up(store, orphans=True)["orphans"]] == ["mark"]
    assert keys(store) == []


def test_what_is_held_for_another_run_stays_and_so_does_what_it_stands_on(store: Store) -> None:
    base = commit(store, 40)
    left = begin(store, parent=base, lease=-1.0, held=60.0, number=1)
    told = clean_up(store, orphans=True, max_age=DAY)
    assert (told["orphans"], rules(told)) == ([], {base: "in_use"})
    assert "held for the next run" in told["exports"][0]["reason"]
    (held,) = told["held"]
    assert (held["export"], held["vm"], held["url"]) == (left, "web01", store.object_url(folder_of(left)))
    assert 50 < parse_iso_time(held["until"]) - time.time() <= 60
    assert clean_up(store, orphans=False, max_age=DAY)["held"] == []
    assert f"{folder_of(left)}/disk-0.digests" in keys(store)


def test_what_was_held_for_another_run_that_never_came_is_removed(store: Store) -> None:
    begin(store, lease=-1.0, held=-1.0, number=1)
    told = clean_up(store, orphans=True)
    assert ([one["kind"] for one in told["orphans"]], told["held"]) == (["attempt"], [])
    assert keys(store) == []


def test_what_is_held_stays_where_this_hosts_clock_is_ahead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = begin(store, lease=-1.0, held=60.0, parent=commit(store, 2))
    ahead = SimpleNamespace(time=lambda: time.time() + 7200.0)
    for module in (attempt_life, clean_up_exports):
        monkeypatch.setattr(module, "time", ahead)
    told = clean_up(store, max_age=DAY, orphans=True)
    assert "The earlier one counts." in told["warnings"][0]
    assert (told["orphans"], told["deleted"]) == ([], [])
    assert f"{folder_of(made)}/{INTENT}" in keys(store)


def test_what_a_host_holds_whose_clock_was_a_year_ahead_goes_when_the_store_says_so(store: Store) -> None:
    base = commit(store, 2)
    made = begin(store, lease=-1.0, parent=base)
    key = f"{folder_of(made)}/{INTENT}"
    intent = replace(read_intent(store.get(key), key), window=600.0).left(time.time() + 365 * DAY)
    store.put(key, intent.to_json())
    assert rules(clean_up(store, max_age=DAY, orphans=True)) == {base: "in_use"}
    path = Path(store.url.removeprefix("file://")) / key
    os.utime(path, (time.time() - 601, time.time() - 601))
    told = clean_up(store, max_age=DAY, orphans=True)
    assert (told["deleted"], [one["kind"] for one in told["orphans"]]) == ([base], ["attempt"])


@pytest.mark.parametrize("whole_vm", [True, False])
def test_the_last_export_of_a_disk_goes_once_an_export_of_the_whole_vm_has_no_such_disk(
    store: Store, whole_vm: bool
) -> None:
    before = commit(store, 3, disks=(disk(0), disk(1)), all_disks=True)
    after = commit(store, 1, number=1, disks=(disk(0),), all_disks=whole_vm)
    last = "max_age" if whole_vm else "keep_last"
    assert rules(clean_up(store, max_age=DAY / 2, keep_last=1)) == {before: last, after: "keep_last"}


@pytest.mark.parametrize("state", ["kept", "alive"])
def test_what_a_host_holds_whose_clock_is_two_hours_behind_is_left_alone(store: Store, state: str) -> None:
    base, behind = commit(store, 40), time.time() - 7200.0
    made = begin(store, parent=base)
    key = f"{folder_of(made)}/{INTENT}"
    intent = replace(read_intent(store.get(key), key), window=3600.0)
    store.put(key, (intent.left(behind) if state == "kept" else intent.renewed(behind, {})).to_json())
    told = clean_up(store, orphans=True, max_age=DAY)
    assert (told["orphans"], rules(told)) == ([], {base: "in_use"})
    assert [parse_iso_time(one["until"]) > time.time() + 3500 for one in told["held"]] == [True] * (state == "kept")
    (job,) = (one.record for one in jobs_in_store(store) if one.record["phase"] == "pending")
    assert (job["alive"], job["kept"] is not None) == (state == "alive", state == "kept")


def test_what_a_bucket_cannot_tell_is_refused_before_anything_is_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store, lease=-1.0)
    before = keys(store)
    monkeypatch.setattr(store, "free_space", lambda: None)
    with pytest.raises(VmferryError, match="min_free"):
        clean_up(store, orphans=True, min_free=1)
    assert keys(store) == before


def test_what_was_removed_is_told_although_the_store_goes_away_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store, lease=-1.0)
    asked = store.free_space()
    answers = iter([asked])

    def away() -> int | None:
        try:
            return next(answers)
        except StopIteration:
            raise VmferryError("network", "No route.") from None

    monkeypatch.setattr(store, "free_space", away)
    with pytest.raises(VmferryError) as caught:
        clean_up(store, orphans=True, min_free=1)
    assert [one["kind"] for one in caught.value.done["orphans"]] == ["attempt"]
    assert keys(store) == []


def test_a_damaged_export_is_not_kept_in_place_of_a_sound_one(store: Store) -> None:
    older, sound = commit(store, 40, number=1), commit(store, 30, number=2)
    bad = commit(store, 20, number=3)
    newest = commit(store, 10, number=4, parent=bad)
    failed = Verifications().with_failure("content", time.time(), "a" * 32, 1)
    store.put(f"{folder_of(bad)}/{VERIFIED}", failed.to_json())
    foreseen = clean_up(store, check_mode=True, max_age=DAY, keep_last=1)
    assert sorted(foreseen["deleted"]) == [older]
    assert not foreseen["warnings"]
    assert rules(clean_up(store, max_count=1)) == {
        older: "max_count",
        sound: "within_limits",
        bad: "within_limits",
        newest: "within_limits",
    }
    assert clean_up(store, exports=(sound,))["deleted"] == [sound], "what is named goes all the same"
    (told,) = clean_up(store, vm=("web01",))["warnings"]
    assert "only exports left of web01 are known to be damaged" in told
