# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves that is killed right behind its commit, where the next one finds the export and needs no other."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    SnapshotOptions,
    StoreSpec,
)
from rigs.domain import Guest

from .exports import Bench
from .snapshots import SnapshotBench
from .test_resume import kill


def test_the_backup_job_of_a_named_export_is_ended(bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(bench, monkeypatch, "committed", vm="small", name="monthly")
    assert not bench.export("small", name="monthly")["changed"]
    bench.assert_nothing_left("small")


def test_the_work_folder_of_a_vm_that_is_off_is_removed(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "committed", vm=off, name="monthly")
    assert not bench.export(off, name="monthly")["changed"]
    bench.assert_nothing_left(off, runs=False)


def test_the_work_folder_of_an_export_of_a_snapshot_is_removed(
    bench: Bench, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = SnapshotBench(bench, off)
    snapshots.task(name="then")
    try:
        kill(bench, monkeypatch, "committed", vm=off, snapshot={"source": "then"})
        assert not bench.export(off, snapshot=SnapshotOptions(source="then"))["changed"]
        bench.assert_nothing_left(off, runs=False)
    finally:
        snapshots.task("absent", name="then")


def test_an_orphan_cleanup_ends_the_backup_job(bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(bench, monkeypatch, "committed", vm="small")
    clean_up_exports(CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider), False)
    bench.assert_nothing_left("small")


def test_nobody_is_told_that_it_was_given_up_where_another_export_is_made(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "committed", vm="small")
    made = bench.export("small", mode="full")
    assert not [warning for warning in made["warnings"] if "given up" in warning], made["warnings"]
    assert len(bench.tokens()) == 2
    bench.assert_nothing_left("small")


def test_what_is_held_for_an_unfinished_export_stays(
    bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.export("small", name="monthly")
    kill(bench, monkeypatch, "part-sent", vm="small", mode="full")
    assert not bench.export("small", name="monthly")["changed"]
    resumed = bench.export("small", mode="full")["resumed"]
    assert resumed["reason"] == ""


@pytest.mark.parametrize("failpoint", ["committed", "copies_owed"])
def test_the_copy_that_was_not_begun_is_made_up_for_by_the_next_export(
    failpoint: str, bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = StoreSpec(f"file://{bench.folder / 'further'}")
    kill(bench, monkeypatch, failpoint, vm="small", copies_to=[{"url": further.url}])
    made = bench.export("small", mode="full", copies_to=(further,))
    (copies,) = made["copies"]
    assert len(copies["exports"]) == 2
    assert copies["exports"][0] == made["export"]["id"]
    assert len(list((bench.folder / "further").glob("*/*/manifest.json"))) == 2
    bench.assert_nothing_left("small")
