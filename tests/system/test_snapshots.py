# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of a Linux guest that runs, writes, is frozen for a moment, and is set back with its memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import snapshot_room
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.scratch import reserve_of
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider
from rigs.domain import Guest
from rigs.serial import Console

from .exports import MIB, Bench, refused
from .libvirt_provider.harness import new_job
from .snapshots import DISK, SnapshotBench, contents, dropped_caches

TOKEN = "vmferry-0a0b0c0d-1a1b1c1d"


@pytest.fixture
def guest(lively: Guest) -> Guest:
    return lively


@pytest.fixture
def vm(bench: Bench, guest: Guest) -> Iterator[SnapshotBench]:
    lively = SnapshotBench(bench, "lively")
    own = lively.images()
    yield lively
    guest.console.close()
    lively.task("absent")
    assert lively.names() == []
    assert lively.images() == own
    lively.assert_nothing_left()
    with Console(guest.rig.directory / "lively.console") as console:
        dropped_caches(Guest(guest.rig, "lively", console), "touch /mnt/thawed")  # or it would wait for ever


def fill(guest: Guest, letter: str, megabyte: int) -> None:
    guest.console.run(
        f"yes {letter * 63} | dd of=/dev/vdb bs=1M seek={megabyte} count=1 iflag=fullblock conv=notrunc,fsync"
    )


def digest(guest: Guest) -> str:
    """Of the second disk, as the guest reads it."""
    return dropped_caches(guest, "sha256sum /dev/vdb").split()[0]


def test_a_running_vm_is_frozen_for_the_moment_and_keeps_all_it_writes(vm: SnapshotBench, guest: Guest) -> None:
    fill(guest, "a", 1)
    guest.console.run("echo before > /mnt/story; sync")
    before = digest(guest)
    result = vm.task(name="{vm}-{job}", quiesce="required")
    made = result["snapshot"]
    assert made["name"] == f"lively-{result['job']['id']}"
    assert (made["consistency"], made["power_state"], made["job"]) == ("quiesced", "powered_on", result["job"]["id"])
    assert result["warnings"] == []
    fill(guest, "b", 2)
    image = next(Path(disk["image"]) for disk in made["disks"] if disk["name"] == "vdb")
    assert contents({"vdb": image})["vdb"] == before
    after = digest(guest)
    assert after != before
    vm.refused("unsupported", "powered_on", "reverted", name=made["name"])
    assert vm.task("absent", name=made["name"])["removed"] == [made["name"]]
    assert digest(guest) == after
    assert guest.console.run("cat /mnt/story") == "before"


def test_keep_prunes_the_oldest_of_ours_and_nothing_of_others(vm: SnapshotBench, guest: Guest) -> None:
    names = []
    for number in range(4):
        if number == 1:
            guest.snapshot_external("mine")
        fill(guest, "cdef"[number], number)
        result = vm.task(name=f"nightly-{number}", keep=2, quiesce="never")
        assert result["snapshot"]["consistency"] == "crash_consistent"
        names.append(result["snapshot"]["name"])
        assert vm.names() == sorted(["mine", *names[-2:]] if number else names)
        assert result["removed"] == names[-3:-2]
    data = digest(guest)
    owners = {one["name"]: one["ours"] for one in result["snapshots"]}
    assert owners == {"mine": False, "nightly-2": True, "nightly-3": True}
    assert vm.task("absent", keep=1)["removed"] == ["nightly-2"]
    assert vm.task("consolidated")["removed"] == ["nightly-3"]
    assert not vm.task("absent")["changed"]
    assert vm.names() == ["mine"]
    assert vm.task("absent", name="mine")["removed"] == ["mine"]
    assert digest(guest) == data


def test_memory_and_disks_come_back_and_what_exports_knew_of_changes_is_dropped(
    vm: SnapshotBench, guest: Guest
) -> None:
    fill(guest, "g", 3)
    guest.console.run("echo first > /run/story; echo first > /mnt/story; sync")
    before = digest(guest)
    made = vm.task(name="alive", memory=True)["snapshot"]
    assert (made["method"], made["memory"]) == ("internal", True)
    guest.domain.checkpointCreateXML(f"<domaincheckpoint><name>{TOKEN}</name></domaincheckpoint>")
    guest.console.run("echo second > /run/story; echo second > /mnt/story; sync")
    fill(guest, "h", 3)
    assert "foreign" in with_foreign_checkpoint(vm, guest)
    assert guest.console.run("cat /run/story") == "second"
    result = vm.task("reverted", name="alive")
    assert guest.domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    assert guest.domain.listAllCheckpoints() == []
    assert any(TOKEN in warning for warning in result["warnings"])
    with Console(guest.rig.directory / "lively.console") as console:
        set_back = Guest(guest.rig, "lively", console)
        assert console.run("cat /run/story /mnt/story").split() == ["first", "first"]
        assert digest(set_back) == before
        set_back.wait_for_agent()


def with_foreign_checkpoint(vm: SnapshotBench, guest: Guest) -> str:
    """How a revert is refused that another program's backup would not survive, nor the VM."""
    guest.domain.checkpointCreateXML("<domaincheckpoint><name>foreign</name></domaincheckpoint>")
    try:
        return str(vm.refused("conflict", "foreign", "reverted", name="alive"))
    finally:
        guest.domain.checkpointLookupByName("foreign").delete()


def test_snapshots_come_and_go_while_checkpoints_are_there(vm: SnapshotBench, guest: Guest) -> None:
    guest.domain.checkpointCreateXML(f"<domaincheckpoint><name>{TOKEN}</name></domaincheckpoint>")
    for turn in range(2):
        vm.task(name=f"turn-{turn}")
        fill(guest, "ij"[turn], turn)
    data = digest(guest)
    vm.task("consolidated")
    assert digest(guest) == data
    checkpoint = guest.domain.checkpointLookupByName(TOKEN)
    assert checkpoint.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE), "its bitmaps are there"
    sizes = re.findall(r"name='vdb'.*size='(\d+)'", checkpoint.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE))
    assert [int(size) for size in sizes] == [2 * MIB], "what was written is known, over snapshots and merges"
    checkpoint.delete()


def test_check_mode_looks_at_the_agent_at_memory_and_at_space(
    vm: SnapshotBench, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kinds(**options: object) -> list[tuple[str, str]]:
        found = vm.task(check_mode=True, **options)["findings"]
        return [(finding["severity"], finding["kind"]) for finding in found]

    assert kinds() == []
    assert kinds(memory=True) == []
    assert kinds(memory=True, quiesce="required") == [("error", "invalid_config")]
    assert kinds(method="internal") == [("error", "invalid_config")]
    assert kinds(method="external", memory=True) == [("error", "unsupported")]
    guest.domain.suspend()
    try:
        assert kinds(quiesce="required") == [("error", "unsupported")]
        (told,) = vm.task(check_mode=True, quiesce="required")["findings"]
        assert told["message"] == "lively is not running, so it cannot be quiesced."
        assert "qemu-guest-agent" in told["hint"]
        assert kinds() == [("warning", "")]
        assert kinds(quiesce="never") == []
        made = vm.task(name="asleep")
        assert made["snapshot"]["consistency"] == "crash_consistent"
        assert "crash consistent" in made["warnings"][0]
        assert guest.domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    finally:
        guest.domain.resume()
    enough_for_disks = reserve_of(str(guest.rig.directory)) + 100 * MIB
    monkeypatch.setattr(snapshot_room, "free_bytes", lambda _folder: enough_for_disks)
    assert kinds() == []
    assert kinds(memory=True) == [("error", "no_space")]
    monkeypatch.setattr(snapshot_room, "free_bytes", lambda _folder: 0)
    assert kinds() == [("error", "no_space")]
    assert vm.names() == ["asleep"]
    told = vm.task("absent", name="asleep", check_mode=True)["findings"]
    assert [(finding["severity"], finding["kind"]) for finding in told] == [("warning", "no_space")]


@pytest.mark.parametrize("failpoint", ["snapshot_frozen", "snapshot_created"])
def test_a_task_that_is_killed_while_it_makes_a_snapshot_leaves_at_most_that(
    vm: SnapshotBench, guest: Guest, failpoint: str
) -> None:
    vm.killed_at(failpoint, name="half")
    dropped_caches(guest, "touch /mnt/thawed")
    assert vm.names() == ([] if failpoint == "snapshot_frozen" else ["half"])
    result = vm.task(name="half")
    assert result["changed"] is (failpoint == "snapshot_frozen")
    assert (result["snapshot"]["ours"], result["snapshot"]["whole"]) == (True, True)


@pytest.mark.parametrize("failpoint", ["merging", "pivoting"])
def test_a_merge_that_was_killed_under_a_running_vm_goes_on(vm: SnapshotBench, guest: Guest, failpoint: str) -> None:
    vm.task(name="one")
    fill(guest, "k", 4)
    data = digest(guest)
    vm.killed_at(failpoint, name="one", state="absent")
    assert digest(guest) == data
    assert not vm.task("absent", name="no such one")["snapshots"][0]["whole"]
    assert vm.task("absent", keep=1)["removed"] == ["one"], "what is not whole is kept by no number"
    assert digest(guest) == data


def test_a_merge_that_takes_too_long_is_stopped_and_the_vm_goes_on(vm: SnapshotBench, guest: Guest) -> None:
    vm.task(name="one")
    guest.console.run(f"dd if=/dev/urandom of=/dev/vdb bs=1M count={DISK // MIB} conv=notrunc,fsync")
    data = digest(guest)
    with closing(open_provider("libvirt", vm.bench.provider.settings)) as provider:
        snapshots = provider.snapshots(provider.describe(vm.vm))
        error = refused(lambda: snapshots.remove("one", new_job(), -1.0), "timeout", "not merged in time")
    assert error.retryable
    assert digest(guest) == data
    assert not any(guest.domain.blockJobInfo(target) for target in vm.images())
    vm.task("absent", name="one")
    assert digest(guest) == data
