# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of snapshots of a guest that runs and goes on writing: bytes of then, and no chain is misled."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import SnapshotOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider
from rigs.domain import Guest

from .exports import MIB, SLOW, Bench, meanwhile
from .snapshots import SnapshotBench, content, dropped_caches
from .test_tracked_increments import restored

ONLY = ("vdb",)


@pytest.fixture
def guest(lively: Guest) -> Guest:
    return lively


@pytest.fixture
def vm(bench: Bench, guest: Guest) -> Iterator[SnapshotBench]:
    shots = SnapshotBench(bench, "lively")
    own = shots.images()
    yield shots
    for name in reversed(shots.names()):
        shots.task("absent", name=name)
    assert shots.images() == own
    shots.assert_nothing_left()
    for checkpoint in guest.domain.listAllCheckpoints():
        checkpoint.delete()


def fill(guest: Guest, letter: str, megabyte: int, count: int = 1) -> None:
    guest.console.run(
        f"yes {letter * 63} | dd of=/dev/vdb bs=1M seek={megabyte} count={count} iflag=fullblock conv=notrunc,fsync"
    )


def digest(guest: Guest) -> str:
    return dropped_caches(guest, "sha256sum /dev/vdb").split()[0]


def export(bench: Bench, **options: Any) -> dict[str, Any]:
    snapshot = {key: options.pop(key) for key in ("name", "source", "memory", "keep") if key in options}
    return bench.export("lively", disks=ONLY, snapshot=SnapshotOptions(**snapshot), **options)


def exported(bench: Bench, result: dict[str, Any]) -> str:
    """The digest of the disk as qemu-img finds it in the export."""
    return content(bench.stored(result))


def created(vm: SnapshotBench, name: str) -> str:
    listed = vm.task("absent", name="no such snapshot")["snapshots"]
    return str(next(one["created"] for one in listed if one["name"] == name))


def test_the_snapshot_of_another_program_is_exported_as_it_was_and_stays(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "a", 1)
    before = digest(guest)
    guest.snapshot_external("theirs")
    fill(guest, "b", 1)
    made = export(bench, source="theirs")
    assert exported(bench, made) == before != digest(guest)
    told = made["export"]
    assert (told["snapshot"], told["taken_at"]) == ("theirs", created(vm, "theirs"))
    assert (told["mode"], told["change_token"], told["consistency"]) == ("full", "", "crash_consistent")
    assert vm.names() == ["theirs"]
    assert restored(bench, made, "lively-then") == before
    again = export(bench, source="theirs")
    assert (again["changed"], again["export"]["id"]) == (False, told["id"])
    assert export(bench, source="theirs", tags=("monthly",))["changed"], "it will be looked for by that"
    bench.refused_export(
        "lively", "conflict", "quiesced", snapshot=SnapshotOptions(source="theirs"), disks=ONLY, consistency="quiesced"
    )
    bench.refused_export("lively", "not_found", "nobody's", snapshot=SnapshotOptions(source="nobody's"))
    bench.assert_nothing_left("lively")


def test_increments_go_on_as_if_no_snapshot_had_been_exported_between_them(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "a", 1)
    first = bench.export("lively", disks=ONLY)
    fill(guest, "b", 2)
    vm.task(name="between", quiesce="never")
    then = digest(guest)
    fill(guest, "c", 3)
    time.sleep(1.1)  # an increment of the snapshot looks back by whole seconds
    shot = export(bench, source="between")
    assert (shot["export"]["mode"], shot["export"]["parent"]) == ("incremental", first["export"]["id"])
    assert shot["export"]["disks"][0]["bytes_changed"] == MIB
    assert exported(bench, shot) == then
    token = first["export"]["change_token"]
    assert [one.getName() for one in guest.domain.listAllCheckpoints()] == [token]
    with closing(open_provider("libvirt", bench.provider.settings)) as provider:
        assert list(provider.tokens(provider.describe("lively"))) == [token]
    clean_up(bench)
    assert [one.getName() for one in guest.domain.listAllCheckpoints()] == [token], "an increment will ask for it"
    later = bench.export("lively", disks=ONLY, mode="incremental")["export"]
    assert (later["parent"], later["disks"][0]["bytes_changed"]) == (first["export"]["id"], 2 * MIB)
    assert later["disks"][0]["bytes_read"] < 5 * MIB, "its changes were tracked"
    assert exported(bench, {"export": later}) == digest(guest)
    again = export(bench, source="between", tags=("kept",))["export"]
    assert again["parent"] == shot["export"]["id"], "what is of that moment or older, not what is newer"
    assert again["disks"][0]["bytes_changed"] == 0
    assert exported(bench, {"export": again}) == then


def clean_up(bench: Bench) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import CleanupRequest

    asked = CleanupRequest(bench.store, Limits(), Protections(), orphans=True, provider=bench.provider)
    clean_up_exports(asked, False)


def test_a_snapshot_with_memory_is_read_inside_the_image_that_the_guest_writes_to(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "d", 0, 8)
    before = digest(guest)
    vm.task(name="alive", memory=True)
    slow = {"bandwidth_limit": SLOW}
    with meanwhile(lambda: overwrite(guest)) as written:
        made = export(bench, source="alive", transfer=slow)
    written()
    assert exported(bench, made) == before != digest(guest)
    assert made["export"]["consistency"] == "crash_consistent"
    bench.assert_nothing_left("lively")


def overwrite(guest: Guest) -> None:
    for letter in "efgh":
        fill(guest, letter, 0, 8)


@pytest.mark.parametrize("anew", [False, True])
def test_a_snapshot_that_is_removed_while_it_is_read_makes_no_export(
    bench: Bench, vm: SnapshotBench, guest: Guest, anew: bool
) -> None:
    """Nor does one of the same name that takes its place, and its clusters."""
    fill(guest, "t", 0, 6)
    shaky = "<domainsnapshot><name>shaky</name></domainsnapshot>"
    guest.domain.snapshotCreateXML(shaky)

    def remove() -> None:
        deadline = time.monotonic() + 30
        while "/attempt.json" not in "".join(bench.keys()):  # the first read comes next
            assert time.monotonic() < deadline
            time.sleep(0.02)
        guest.domain.snapshotLookupByName("shaky").delete()
        if anew:
            guest.domain.snapshotCreateXML(shaky)

    with meanwhile(remove):
        bench.refused_export(
            "lively",
            "conflict",
            "shaky",
            snapshot=SnapshotOptions(source="shaky"),
            disks=ONLY,
            transfer={"bandwidth_limit": SLOW},
        )
    bench.assert_nothing_left("lively")


def test_what_the_export_made_for_itself_goes_and_what_is_to_be_kept_is_kept(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "i", 2)
    before = digest(guest)
    vm.task(name="upgrade")
    made = export(bench, name="export-{job}")
    assert made["export"]["snapshot"] == f"export-{made['job']['id']}"
    assert (made["export"]["consistency"], made["warnings"]) == ("quiesced", [])
    assert exported(bench, made) == before
    assert vm.names() == ["upgrade"]
    own = json.loads(bench.read(f"{made['export']['url'].removeprefix(bench.store.url + '/')}/manifest.json"))
    told = (made["export"]["snapshot"], "", made["export"]["taken_at"])
    assert tuple(own["x_vmferry"][key] for key in ("snapshot", "change_token", "taken_at")) == told
    for number in range(3):
        fill(guest, "jkl"[number], number)
        made = export(bench, name=f"nightly-{number}", keep=2, consistency="crash_consistent")
        assert exported(bench, made) == digest(guest)
        assert made["export"]["mode"] == "incremental"
    assert vm.names() == ["nightly-1", "nightly-2"]
    bench.refused_export("lively", "conflict", "nightly-2", snapshot=SnapshotOptions(name="nightly-2"))
    bench.assert_nothing_left("lively")


def test_with_memory_the_export_is_of_the_disks_at_that_very_moment(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "m", 4)
    before = digest(guest)
    made = export(bench, memory=True)
    assert exported(bench, made) == before
    assert vm.names() == []
    bench.refused_export(
        "lively", "invalid_config", "memory", snapshot=SnapshotOptions(memory=True), disks=ONLY, consistency="quiesced"
    )


@pytest.mark.parametrize("failpoint", ["snapshot_for_export", "resumable", "snapshot_to_remove"])
def test_the_next_run_removes_the_snapshot_of_an_export_that_was_killed(
    bench: Bench, vm: SnapshotBench, guest: Guest, failpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(guest, "n", 5)
    killed(bench, failpoint, {"name": "mine"}, monkeypatch)
    assert vm.names() == ["mine"]
    result = bench.export("lively", disks=ONLY)
    assert vm.names() == []
    assert "resumed" not in result or result["resumed"]["export"] == ""
    assert exported(bench, result) == digest(guest)
    bench.assert_nothing_left("lively")


def test_an_export_of_a_snapshot_that_was_killed_goes_on_with_that_snapshot_only(
    bench: Bench, vm: SnapshotBench, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(guest, "o", 6)
    then = digest(guest)
    vm.task(name="fixed")
    killed(bench, "resumable", {"source": "fixed"}, monkeypatch)
    fill(guest, "p", 6)
    made = export(bench, source="fixed")
    assert made["resumed"]["export"] == made["export"]["id"]
    assert exported(bench, made) == then
    assert vm.names() == ["fixed"]
    bench.assert_nothing_left("lively")


def killed(bench: Bench, failpoint: str, snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = bench.module_arguments(vm="lively", disks=list(ONLY), snapshot=snapshot)
    with monkeypatch.context() as patched:
        patched.setenv("VMFERRY_FAILPOINT", failpoint)
        with bench.running_module("vm_export", arguments) as run:
            run.process.communicate(timeout=60)
            assert run.process.returncode == -signal.SIGKILL


def test_an_image_that_was_merged_by_hand_is_not_taken_for_the_snapshot(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "q", 7)
    overlays = guest.snapshot_external("fooled")
    fill(guest, "r", 7)
    for target in ("vda", "vdb"):
        merge_by_hand(guest, target)
    error = bench.refused_export("lively", "conflict", "writes to it", snapshot=SnapshotOptions(source="fooled"))
    assert "fooled" in str(error)
    guest.domain.snapshotLookupByName("fooled").delete(2)  # metadata only
    for overlay in overlays.values():
        Path(overlay).unlink()


def merge_by_hand(guest: Guest, target: str) -> None:
    import libvirt

    guest.domain.blockCommit(target, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    deadline = time.monotonic() + 30
    while ((job := guest.domain.blockJobInfo(target)) and job["cur"] != job["end"]) or not job.get("end"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    guest.domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def test_check_mode_tells_what_an_export_of_a_snapshot_would_take(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    planned = export(bench, name="later", check_mode=True)
    assert (planned["changed"], planned["findings"]) == (True, [])
    assert vm.names() == []
    missing = export(bench, source="nobody's", check_mode=True)
    assert [finding["kind"] for finding in missing["findings"]] == ["not_found"]
    guest.domain.suspend()
    try:
        weak = export(bench, name="later", check_mode=True)["findings"]
        assert ["crash consistent" in finding["message"] for finding in weak] == [True]
    finally:
        guest.domain.resume()


def test_a_failed_export_takes_its_snapshot_along_whatever_was_to_be_kept(
    bench: Bench, vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "s", 0, 8)
    asked = {"snapshot": SnapshotOptions(keep=3), "disks": ONLY, "on_failure": "keep"}
    slow = {"bandwidth_limit": SLOW, "max_duration": 1.5}
    error = bench.refused_export("lively", "timeout", "max_duration", transfer=slow, **asked)
    assert "kept" not in error.done
    assert vm.names() == []
    bench.assert_nothing_left("lively")
