# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup that is killed, and one beside which increments begin: what is listed stays whole, with all below it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine.exports.shelves import ELSEWHERE, FILES, begin, clean_up, commit, folder_of, identity, keys, rules, whole

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.deletion import DELETION, read_deletion
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, LEASE
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import DAY
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning.remove_export import ExportRemover
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.cleaning.vm_folder import VmFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

STEPS = ("deletion", "uncommitted", "deleted", "deleted:2", "deleted:4")
CLEAN_UP = """
import sys
from engine.exports.shelves import clean_up
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem
clean_up(open_filesystem(sys.argv[1], {}), max_age=86400.0)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return open_filesystem(str(root), {})


def killed(root: Path, step: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "VMFERRY_FAILPOINT": step}
    done = subprocess.run([sys.executable, "-c", CLEAN_UP, str(root)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL, "it was not killed, so nothing was tried"


@pytest.mark.parametrize("step", STEPS)
def test_the_next_cleanup_finishes_what_a_killed_one_began(root: Path, store: Store, step: str) -> None:
    commit(store, 40)
    young = commit(store, 0.1, number=1)
    killed(root, step)
    if step != "deletion":
        assert [entry.manifest.export_id for entry in Catalog(store).read()[0]] == [young]
    result = clean_up(store, max_age=DAY)
    told = [one["reason"] for one in result["orphans"]]
    assert told == ([] if step == "deletion" else ["Its deletion was finished."])
    assert keys(store) == whole(young)
    assert sorted(path.name for path in root.iterdir()) == [folder_of(young).partition("/")[0]]


@pytest.mark.parametrize("becomes", ["alive", "committed"])
def test_the_next_cleanup_takes_back_what_an_increment_stands_on(root: Path, store: Store, becomes: str) -> None:
    base = commit(store, 40)
    killed(root, "uncommitted")
    if becomes == "alive":
        begin(store, parent=base, number=1)
    else:
        commit(store, 0.1, parent=base, number=1)
    result = clean_up(store, max_age=DAY)
    assert result["orphans"][0]["reason"].startswith("Its deletion was taken back:")
    assert rules(result)[base] == ("in_use" if becomes == "alive" else "child")
    assert set(whole(base)) < set(keys(store))
    assert not [key for key in keys(store) if key.endswith(DELETION)]


def test_check_mode_tells_of_a_deletion_that_was_not_finished_and_leaves_it(root: Path, store: Store) -> None:
    commit(store, 40)
    killed(root, "deleted")
    before = keys(store)
    told = clean_up(store, check_mode=True, max_age=DAY)["orphans"]
    assert [one["kind"] for one in told] == ["deletion"]
    assert keys(store) == before


def remover(store: Store) -> ExportRemover:
    entries, _broken = Catalog(store).read()
    home = folder_of(identity(0)).partition("/")[0]
    capabilities = store.probe("probe")
    return ExportRemover(store, capabilities, VmFolder(store, capabilities, home, entries, print, time.time()), print)


def claimed_elsewhere(store: Store, export: str, lease: float) -> None:
    """Another host deletes it."""
    key = f"{folder_of(export)}/{DELETION}"
    ours = read_deletion(store.get(key), key)
    claim = replace(ours.claim, job_id="c" * 32, owner=ELSEWHERE, lease_until=time.time() + lease)
    store.put(key, replace(ours, claim=claim).to_json())


@pytest.mark.parametrize(("lease", "left"), [(LEASE, True), (-1.0, False)])
def test_a_deletion_is_one_hosts_until_its_lease_is_over(root: Path, store: Store, lease: float, left: bool) -> None:
    base = commit(store, 40)
    killed(root, "deletion")
    claimed_elsewhere(store, base, lease)
    result = clean_up(store, max_age=DAY)
    assert (rules(result)[base], bool(keys(store))) == (("in_use", True) if left else ("max_age", False))


def test_a_base_stays_while_another_host_deletes_its_child(root: Path, store: Store) -> None:
    base = commit(store, 40)
    child = commit(store, 39, parent=base, number=1)
    killed(root, "uncommitted")
    claimed_elsewhere(store, child, LEASE)
    result = clean_up(store, max_age=DAY)
    assert rules(result) == {base: "in_use"}
    assert set(whole(base)) < set(keys(store))


def test_a_host_that_was_paused_does_not_go_on_with_a_deletion_that_was_taken_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, delete = commit(store, 40), store.delete

    def paused(key: str, **options: object) -> None:
        delete(key)
        if key.endswith(MANIFEST):  # for longer than a lease: another cleanup finds it, and an increment on it
            monkeypatch.setattr(store, "delete", delete)
            claimed_elsewhere(store, base, -1.0)
            child = begin(store, parent=base, number=1)
            assert remover(store).resume(folder_of(base)).startswith("Its deletion was taken back")
            store.delete(f"{folder_of(child)}/{INTENT}")

    monkeypatch.setattr(store, "delete", paused)
    with pytest.raises(VmferryError) as caught:
        remover(store).remove(folder_of(base))
    assert caught.value.kind == "busy"
    assert set(whole(base)) <= set(keys(store))


def test_increments_that_begin_while_a_cleanup_runs_end_with_what_they_stand_on_or_not_at_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one folder, for five seconds, and on a busy machine until each outcome was met.

    An increment does as `vm_export` does: intent, look at the parent, commit.
    """
    chance, began, delete = random.Random(4), time.monotonic(), store.delete

    def slow(key: str, **options: Any) -> None:
        if key.endswith(MANIFEST):  # so that much can happen since the cleanup looked
            time.sleep(chance.random() * 0.03)
        delete(key, **options)

    monkeypatch.setattr(store, "delete", slow)
    failures: list[BaseException] = []
    outcomes = {"committed": 0, "refused": 0, "deleted": 0, "spared": 0}
    numbers = iter(range(1, 10**6))
    taking_numbers = threading.Lock()

    def number() -> int:
        with taking_numbers:
            return next(numbers)

    def enough() -> bool:
        seconds = time.monotonic() - began
        return seconds > 120 or (seconds > 5 and min(outcomes.values()) > 0)

    def noted(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not failures and not enough():
                    work()
            except BaseException as error:  # noqa: BLE001  # of a thread, to be raised by the test
                failures.append(error)

        return run

    def increment() -> None:
        entries, _unused = Catalog(store).read()
        parents = {entry.manifest.parent for entry in entries}
        contested = [one for one in entries if one.manifest.export_id not in parents and one.manifest.mode == "full"]
        if not contested:
            return
        parent = chance.choice(contested).manifest.export_id
        child = begin(store, parent=parent, number=number())
        time.sleep(chance.random() * 0.01)
        if store.stat(f"{folder_of(parent)}/{MANIFEST}") is None:
            for key in (f"{folder_of(child)}/disk-0.digests", f"{folder_of(child)}/{INTENT}"):
                store.delete(key)
            outcomes["refused"] += 1
            return
        time.sleep(chance.random() * 0.01)
        commit(store, 0, parent=parent, export=child)  # too young to go, so that what it lost would be seen
        store.delete(f"{folder_of(child)}/{INTENT}")
        outcomes["committed"] += 1

    def cleanup() -> None:
        result = clean_up(store, max_age=DAY)
        outcomes["deleted"] += len(result["deleted"])
        outcomes["spared"] += sum(one["rule"] == "in_use" for one in result["exports"])

    for _unused in range(5):
        commit(store, 50, number=number())

    def new_base() -> None:
        commit(store, 50, number=number())
        time.sleep(0.02)

    threads = [threading.Thread(target=noted(work)) for work in (increment, increment, cleanup, cleanup, new_base)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert min(outcomes.values()) > 0, f"one of the four was never tried: {outcomes}"
    entries, broken = Catalog(store).read()
    assert broken == []
    there = {entry.manifest.export_id for entry in entries}
    assert [one.manifest.parent for one in entries if one.manifest.parent not in {"", *there}] == []
    everything = set(keys(store))
    for entry in entries:
        assert {entry.key(name) for name in FILES} <= everything


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_increment_that_commits_while_its_folder_is_looked_at_is_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    base = commit(store, 40)
    family = remover(store)._family
    child = begin(store, parent=base, number=1)
    get = store.get
    looks: list[str] = []

    def committing(key: str, *words: Any) -> bytes:
        try:
            return get(key, *words)
        finally:
            looks.append(key)
            if len(looks) == after:
                commit(store, 0, parent=base, export=child)
                store.delete(f"{folder_of(child)}/{INTENT}")

    monkeypatch.setattr(store, "get", committing)
    assert child in family.who_stands_on(base)


def test_a_deletion_whose_mark_was_taken_for_litter_removes_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused for longer than a lease before it deletes the manifest: beside one, an old mark means nothing."""
    old, delete = commit(store, 40), store.delete

    def paused(key: str, **options: Any) -> None:
        if key.endswith(MANIFEST):
            delete(f"{folder_of(old)}/{DELETION}")
        delete(key, **options)

    monkeypatch.setattr(store, "delete", paused)
    assert clean_up(store, max_age=DAY)["deleted"] == [old]
    assert keys(store) == []


def test_a_deletion_that_was_taken_back_meanwhile_goes_no_further(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, delete = commit(store, 40), store.delete
    text = store.get(f"{folder_of(old)}/{MANIFEST}")

    def paused(key: str, **options: Any) -> None:
        delete(key, **options)
        if key.endswith(MANIFEST):
            store.put(key, text)
            delete(f"{folder_of(old)}/{DELETION}")

    monkeypatch.setattr(store, "delete", paused)
    assert clean_up(store, max_age=DAY)["deleted"] == []
    assert keys(store) == whole(old)
