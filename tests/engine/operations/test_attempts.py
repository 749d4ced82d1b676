# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs and one attempt: what is committed is never removed, and nothing commits that was removed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import (
    CANCEL,
    INTENT,
    LEASE,
    Intent,
    read_intent,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt import AttemptFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.dead_attempts import (
    claim_dead_attempt,
    remove_dead_attempt,
    remove_intent,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store, StoreCapabilities
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner

EXPORT = "20261121T063000Z-1a2b3c4d"
FOLDER = f"web01-1f0c9a2b/{EXPORT}"
VM = "1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77"
ELSEWHERE = {"hostname": "another host", "boot_id": "another boot", "pid": 7}
DATA = f"{FOLDER}/disk-0.qcow2"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_filesystem(str(tmp_path / "store"), {})


def without_conditions(found: StoreCapabilities) -> StoreCapabilities:
    return replace(found, conditional_put=False, conditional_replace=False)


def as_found(found: StoreCapabilities) -> StoreCapabilities:
    return found


def attempt(
    store: Store, owner: Mapping[str, Any] | None = None, lease: float = -100.0, know: Callable[..., Any] = as_found
) -> AttemptFolder:
    """One whose lease is over, as that of a host that was paused."""
    job = RunningJob("a" * 32, TransferOptions(), None, {})
    job.capabilities = know(store.probe("probe"))
    now = time.time()
    return AttemptFolder(
        store, FOLDER, Intent(EXPORT, job.id, VM, "web01", now - 400, now + lease, owner or ELSEWHERE), job
    )


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list("")]


def remove(store: Store) -> bool:
    return remove_dead_attempt(store, FOLDER, store.probe("probe"), print)


def test_a_committed_export_has_no_intent_that_a_wrong_answer_about_its_manifest_could_bring_to_bear(
    store: Store,
) -> None:
    with attempt(store) as claimed:
        store.put(DATA, b"data")
        claimed.commit(b"{}")
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]
    store.delete(f"{FOLDER}/{MANIFEST}")  # as a replica that lags behind would tell it
    assert list(Catalog(store).unfinished(VM)) == []
    assert not remove(store)
    assert keys(store) == [DATA]


def test_an_export_that_commits_while_another_run_looks_at_it_stays(store: Store) -> None:
    with attempt(store) as claimed:
        store.put(DATA, b"data")
        listed = list(Catalog(store).unfinished(VM))
        claimed.commit(b"{}")
    assert [folder for folder, _intent in listed] == [FOLDER]
    assert not remove(store)
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


def test_an_export_killed_right_after_its_manifest_stays_and_loses_its_intent(store: Store) -> None:
    with attempt(store) as claimed:
        intent = store.get(claimed.key(INTENT))
        store.put(DATA, b"data")
        claimed.commit(b"{}")
    store.put(claimed.key(INTENT), intent)
    assert not remove(store)
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


@pytest.mark.parametrize("know", [as_found, without_conditions])
def test_an_export_that_another_run_removed_does_not_commit(store: Store, know: Callable[..., Any]) -> None:
    def export() -> None:
        with attempt(store, know=know) as claimed:
            store.put(DATA, b"data")
            assert remove(store)
            claimed.commit(b"{}")

    with pytest.raises(VmferryError) as caught:
        export()
    assert (caught.value.kind, caught.value.retryable) == ("conflict", True)
    assert keys(store) == []


def test_an_export_that_another_run_claims_between_its_last_look_and_its_manifest_does_not_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, folder = store.put, attempt(store)

    def late(key: str, *words: Any, **options: Any) -> Any:
        if key.endswith(MANIFEST):
            expired = replace(folder._intent, lease_until=0.0)
            put(folder.key(INTENT), expired.to_json())
            assert remove(store)
        return put(key, *words, **options)

    def export() -> None:
        with folder as claimed:
            store.put(DATA, b"data")
            monkeypatch.setattr(store, "put", late)
            claimed.commit(b"{}")

    with pytest.raises(VmferryError) as caught:
        export()
    assert caught.value.kind == "conflict"
    assert keys(store) == []


@pytest.mark.parametrize("know", [as_found, without_conditions])
@pytest.mark.parametrize("committed", [False, True])
def test_what_another_run_goes_on_with_is_not_removed_by_the_one_that_was_taken_for_dead(
    store: Store, committed: bool, know: Callable[..., Any]
) -> None:
    def export() -> None:
        with attempt(store, know=know) as claimed:
            store.put(DATA, b"data")
            heir = claim_dead_attempt(store, FOLDER, know(store.probe("probe")), "b" * 32)
            assert heir is not None
            if committed:
                store.put(f"{FOLDER}/{MANIFEST}", b'{"by": "the heir"}')
                remove_intent(store, FOLDER)
            claimed.commit(b"{}")

    with pytest.raises(VmferryError, match="for dead, and goes on with it") as caught:
        export()
    assert caught.value.kind == "conflict"
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST if committed else INTENT}"]


def test_an_export_that_others_saw_committed_is_not_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paused for longer than a lease right after its manifest: others pass over it, and remove its intent."""
    folder, put = attempt(store), store.put

    def paused(key: str, *words: Any, **options: Any) -> Any:
        made = put(key, *words, **options)
        if key.endswith(MANIFEST):
            put(folder.key(INTENT), replace(folder._intent, lease_until=0.0).to_json())
            assert claim_dead_attempt(store, FOLDER, store.probe("probe"), "b" * 32) is None
        return made

    with folder as claimed:
        store.put(DATA, b"data")
        monkeypatch.setattr(store, "put", paused)
        claimed.commit(b"{}")
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


def test_a_manifest_that_comes_after_another_run_claimed_the_attempt_is_taken_back_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, put = attempt(store), store.put

    def late(key: str, *words: Any, **options: Any) -> Any:
        if key.endswith(MANIFEST):
            put(folder.key(INTENT), replace(folder._intent, lease_until=0.0).to_json())
            assert claim_dead_attempt(store, FOLDER, store.probe("probe"), "b" * 32) is not None
        return put(key, *words, **options)

    def export() -> None:
        with folder as claimed:
            store.put(DATA, b"data")
            monkeypatch.setattr(store, "put", late)
            claimed.commit(b"{}")

    with pytest.raises(VmferryError, match="for dead"):
        export()
    assert keys(store) == [DATA, f"{FOLDER}/{INTENT}"]


def test_what_another_run_passed_over_for_a_manifest_that_is_taken_back_then_is_removed_by_its_owner(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, delete = attempt(store), store.delete

    def late(key: str, **options: Any) -> None:
        if key == folder.key(MANIFEST):
            monkeypatch.undo()
            assert claim_dead_attempt(store, FOLDER, store.probe("probe"), "b" * 32) is None
        delete(key, **options)

    def export() -> None:
        with folder as claimed:
            store.put(DATA, b"data")
            store.put(claimed.key(MANIFEST), b"{}")
            claimed._manifest = b"{}"
            monkeypatch.setattr(store, "delete", late)
            raise claimed._taken_over()

    with pytest.raises(VmferryError, match="for dead"):
        export()
    assert keys(store) == []


def test_what_another_run_passed_over_for_a_manifest_that_was_taken_back_before_is_removed_by_that_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, delete = attempt(store), store.delete
    store.put(folder.key(INTENT), folder._intent.to_json())
    store.put(DATA, b"data")
    store.put(folder.key(MANIFEST), b"{}")

    def late(key: str, **options: Any) -> None:
        if key == folder.key(INTENT):
            delete(folder.key(MANIFEST))
        delete(key, **options)

    monkeypatch.setattr(store, "delete", late)
    assert claim_dead_attempt(store, FOLDER, store.probe("probe"), "b" * 32) is None
    assert keys(store) == []


def test_the_lease_is_lost_at_the_next_beat_and_stops_the_job(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptFolder, "beat", 0.05)
    folder = attempt(store, lease=LEASE)
    with folder as claimed:
        time.sleep(0.2)
        store.put(claimed.key(INTENT), replace(claimed._intent, job_id="b" * 32).to_json())
        deadline = time.monotonic() + 5
        while folder._job.flow.error is None and time.monotonic() < deadline:
            time.sleep(0.02)
        error = folder._job.flow.error
        assert isinstance(error, VmferryError)
        assert error.kind == "conflict"


def test_what_a_living_job_does_is_left_alone(store: Store) -> None:
    with attempt(store, owner=current_owner()):
        with pytest.raises(VmferryError) as caught:
            remove(store)
        assert caught.value.kind == "busy"
        assert keys(store) == [f"{FOLDER}/{INTENT}"]


def test_an_intent_whose_answer_was_lost_is_undone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put, told = store.put, []

    def lost(key: str, *words: Any, **options: Any) -> Any:
        put(key, *words, **options)
        told.append(key)
        raise VmferryError("network", "The answer was lost.")

    folder = attempt(store)
    monkeypatch.setattr(store, "put", lost)
    with pytest.raises(VmferryError), folder:
        raise AssertionError("it was entered")
    assert told == [f"{FOLDER}/{INTENT}"]
    assert keys(store) == []


def test_conditions_are_not_sent_to_a_store_that_does_not_know_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.put

    def refusing(key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None, **rest: Any) -> Any:
        if if_absent or if_match is not None:
            raise VmferryError("unsupported", "501 Not Implemented")
        return put(key, data, **rest)

    folder = attempt(store, know=without_conditions)
    monkeypatch.setattr(store, "put", refusing)
    with folder as claimed:
        claimed.commit(b"{}")
    assert keys(store) == [f"{FOLDER}/{MANIFEST}"]


def test_a_stop_after_the_manifest_leaves_a_committed_export_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, delete = attempt(store), store.delete

    def stopped(key: str, **options: Any) -> None:
        if not key.endswith(INTENT):
            folder._job.flow.stop(VmferryError("cancelled", "Late."))
            folder._job.flow.sleep(0.01)  # as a repetition would
        delete(key, **options)

    monkeypatch.setattr(store, "delete", stopped)
    with folder as claimed:
        store.put(DATA, b"data")
        claimed.commit(b"{}")
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


def kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[AttemptFolder, threading.Event]:
    """Whose keeper waits, after a failure of the store, for its next try in an hour."""
    folder, waiting = attempt(store, lease=LEASE), threading.Event()
    put, keeper = store.put, folder._keeper

    def failing(key: str, *words: Any, **options: Any) -> Any:
        if threading.current_thread() is keeper:
            waiting.set()
            folder._job.flow.sleep(3600)
        return put(key, *words, **options)

    monkeypatch.setattr(AttemptFolder, "beat", 0.05)
    monkeypatch.setattr(store, "put", failing)
    return folder, waiting


def test_leaving_does_not_wait_for_a_lease_that_is_tried_again_and_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, waiting = kept(store, monkeypatch)
    started = time.monotonic()
    with folder as claimed:
        store.put(DATA, b"data")
        assert waiting.wait(10)
        claimed.commit(b"{}")
    assert time.monotonic() - started < 10
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_is_stopped_ends_its_lease_without_a_word(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, waiting = kept(store, monkeypatch)

    def export() -> None:
        with folder:
            assert waiting.wait(10)
            folder._job.flow.stop(VmferryError("cancelled", "Enough."))
            raise Stopped

    with pytest.raises(Stopped):
        export()
    assert not folder._keeper.is_alive()
    assert keys(store) == []


def test_a_renewal_whose_answer_was_lost_is_not_taken_for_another_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, put, lost = attempt(store, lease=LEASE), store.put, threading.Event()

    def losing(key: str, *words: Any, **options: Any) -> Any:
        made = put(key, *words, **options)
        if threading.current_thread() is folder._keeper:
            lost.set()
            raise VmferryError("network", "The answer was lost.")
        return made

    monkeypatch.setattr(AttemptFolder, "beat", 0.05)
    with folder as claimed:
        store.put(DATA, b"data")
        monkeypatch.setattr(store, "put", losing)
        assert lost.wait(10)
        claimed.commit(b"{}")
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


def test_a_manifest_that_arrives_after_another_run_went_on_gives_way_to_that_ones(store: Store) -> None:
    """The last request of the run that died was on the way when it was killed, and tells of the same data."""
    with attempt(store) as claimed:
        store.put(DATA, b"data")
        store.put(f"{FOLDER}/{MANIFEST}", b'{"of": "the dead run"}')
        claimed.commit(b'{"of": "this run"}')
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]
    assert store.get(f"{FOLDER}/{MANIFEST}") == b'{"of": "this run"}'


@pytest.mark.parametrize("keeping", [False, True])
def test_no_data_is_removed_beside_a_manifest_that_arrived_late(store: Store, keeping: bool) -> None:
    def heir() -> None:
        folder = attempt(store)
        folder._job.keeping.is_at_stake("made" if keeping else "nothing")
        with folder:
            store.put(DATA, b"data")
            store.put(f"{FOLDER}/{MANIFEST}", b'{"of": "the dead run"}')
            raise VmferryError("network", "It went away.")

    with pytest.raises(VmferryError):
        heir()
    assert set(keys(store)) - {f"{FOLDER}/{INTENT}"} == {DATA, f"{FOLDER}/{MANIFEST}"}
    assert not remove(store)
    assert keys(store) == [DATA, f"{FOLDER}/{MANIFEST}"]


def test_a_manifest_that_arrives_while_its_data_is_removed_goes_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = store.delete
    store.put(f"{FOLDER}/{INTENT}", attempt(store)._intent.to_json())
    store.put(DATA, b"data")

    def late(key: str, **options: Any) -> None:
        delete(key, **options)
        if key == DATA:
            store.put(f"{FOLDER}/{MANIFEST}", b"{}")

    monkeypatch.setattr(store, "delete", late)
    assert remove(store)
    assert keys(store) == []


def test_what_is_gone_on_with_is_held_for_the_window_from_then_on(store: Store) -> None:
    """A run that is killed within its first beat leaves the intent as its claim wrote it."""
    window = 3600.0
    left = replace(attempt(store)._intent, window=window).left(time.time() - window + 10)
    store.put(f"{FOLDER}/{INTENT}", left.to_json())
    assert claim_dead_attempt(store, FOLDER, store.probe("probe"), "b" * 32) is not None
    found = read_intent(store.get(f"{FOLDER}/{INTENT}"), "")
    assert found.held_until > time.time() + window - 60


def test_an_order_to_cancel_the_run_that_died_does_not_cancel_the_one_that_goes_on_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given through the store, to a run that was killed before its next beat."""
    store.put(f"{FOLDER}/{INTENT}", attempt(store)._intent.to_json())
    store.put(f"{FOLDER}/{CANCEL}", b"the module job")
    store.put(DATA, b"data")
    claimed = claim_dead_attempt(store, FOLDER, store.probe("probe"), "a" * 32)
    assert claimed is not None
    monkeypatch.setattr(AttemptFolder, "beat", 0.05)
    job = RunningJob("a" * 32, TransferOptions(), None, {})
    job.capabilities = store.probe("probe")
    job.keeping.is_at_stake("made")
    with AttemptFolder(store, FOLDER, claimed.intent, job, claimed.written) as heir:
        time.sleep(0.5)
        assert job.flow.cancel_reason == ""
        store.put(heir.key(CANCEL), b"the module job")  # which is meant for this one
        deadline = time.monotonic() + 5
        while not job.flow.cancel_reason and time.monotonic() < deadline:
            time.sleep(0.02)
    assert job.flow.cancel_ordered


@pytest.mark.parametrize("wrong", ["the owner's, which is behind", "this host's, which is ahead"])
def test_nobody_takes_over_what_lives_by_the_clock_of_the_store(
    store: Store, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    began = now - 7200.0 if "behind" in wrong else now
    store.put(f"{FOLDER}/{INTENT}", attempt(store)._intent.renewed(began, {}).to_json())
    if "ahead" in wrong:
        monkeypatch.setattr(time, "time", lambda: now + 7200.0)
    with pytest.raises(VmferryError) as caught:
        remove(store)
    assert caught.value.kind == "busy"
    assert keys(store) == [f"{FOLDER}/{INTENT}"]
