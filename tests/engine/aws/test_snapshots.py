# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots as `disk_snapshot` manages them: of all volumes at one moment, and only ours pruned."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    SnapshotRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_snapshots import list_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import (
    asking,
    session,
    snapshot_set,
    snapshots,
    taking,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.snapshot_owner import TEMPORARY
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.tags import CHAIN, JOB, STATE, VM
from rigs.aws import AwsServer

pytestmark = pytest.mark.slow


class Bench:
    """One instance with two volumes, and the tasks on it."""

    def __init__(self, aws: AwsServer, settings: dict[str, Any], name: str, running: bool) -> None:
        self.aws, self.name = aws, name
        self.spec = ProviderSpec("aws", settings)
        self.id = aws.make_instance(name, [b"root before", b"data before"], running=running)
        self.volumes = aws.volumes(self.id)

    def task(self, state: str = "present", check_mode: bool = False, **wishes: Any) -> dict[str, Any]:
        whole = {"name": "", "quiesce": "auto", "memory": False, "method": "auto", "keep": None, "timeout": 60.0}
        request = SnapshotRequest(provider=self.spec, vm=self.name, state=state, **{**whole, **wishes})
        return manage_snapshots(request, check_mode)

    def listed(self, name: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list_snapshots(self.spec, self.name, name)["snapshots"]
        return found

    def names(self) -> list[str]:
        return [one["name"] for one in self.listed()]

    def foreign(self, tags: dict[str, str] | None = None) -> str:
        """One that somebody else made of the data disk."""
        made = self.aws.ec2.create_snapshot(VolumeId=self.volumes["/dev/sdb"], Description="theirs")
        if tags:
            given = [{"Key": key, "Value": value} for key, value in tags.items()]
            self.aws.ec2.create_tags(Resources=[made["SnapshotId"]], Tags=given)
        return str(made["SnapshotId"])

    def in_aws(self) -> set[str]:
        """Ids of all snapshots of its volumes."""
        volumes = {"Name": "volume-id", "Values": list(self.volumes.values())}
        return {one["SnapshotId"] for one in self.aws.ec2.describe_snapshots(Filters=[volumes])["Snapshots"]}

    def changed(self) -> list[str]:
        return [call.partition(":")[2] for call in self.aws.calls() if not call.startswith("ec2:Describe")]


_NUMBERS = itertools.count()


@pytest.fixture
def bench(aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(taking, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.01)
    return Bench(aws, settings, f"snapshots-{next(_NUMBERS)}", running=True)


def test_all_volumes_are_kept_as_they_were_at_one_moment(bench: Bench) -> None:
    done = bench.task(name="before")
    bench.aws.write(bench.volumes["/dev/sdb"], 0, b"data after!")
    made = done["snapshot"]
    assert (done["changed"], done["warnings"]) == (True, [])
    assert (made["name"], made["ours"], made["whole"], made["method"]) == ("before", True, True, "ebs")
    assert (made["power_state"], made["consistency"], made["memory"]) == ("powered_on", "crash_consistent", False)
    assert made["job"] == done["job"]["id"]
    kept = {disk["name"]: bench.aws.snapshot_bytes(disk["image"], 11) for disk in made["disks"]}
    assert kept == {"/dev/sda1": b"root before", "/dev/sdb": b"data before"}
    assert bench.aws.calls("CreateSnapshots") == ["ec2:CreateSnapshots"] * 2, "the first asks whether it is allowed"
    again = bench.task(name="before")
    assert (again["changed"], again["snapshot"]["disks"]) == (False, made["disks"])


def test_it_carries_whose_it_is_from_its_creation_on(bench: Bench) -> None:
    bench.task(name="tagged")
    assert "ec2:CreateTags" not in bench.aws.calls()
    mine = [tags for tags in bench.aws.leftovers().snapshots.values() if tags.get(VM) == bench.id]
    assert len(mine) == 2
    assert {tags["Name"] for tags in mine} == {"tagged"}
    assert all(tags["vmferry:job"] and tags["vmferry:attempt"] for tags in mine)


def test_one_of_an_instance_that_is_off_is_consistent_by_that(aws: AwsServer, settings: dict[str, Any]) -> None:
    bench = Bench(aws, settings, "snapshots-off", running=False)
    assert bench.task(name="off", quiesce="required")["snapshot"]["consistency"] == "powered_off"


def test_only_ours_are_pruned(bench: Bench) -> None:
    theirs = bench.foreign()
    for number in range(3):
        bench.task(name=f"daily-{number}")
    done = bench.task(name="daily-3", keep=2)
    assert done["removed"] == ["daily-1", "daily-0"]
    assert sorted(bench.names()) == sorted([theirs, "daily-2", "daily-3"])
    assert bench.task("absent", keep=1)["removed"] == ["daily-2"]
    assert bench.task("absent")["removed"] == ["daily-3"]
    assert bench.in_aws() == {theirs}


def test_one_of_others_is_called_by_its_id_and_removed_only_so(bench: Bench) -> None:
    theirs = bench.foreign()
    (listed,) = bench.listed()
    assert (listed["name"], listed["ours"], listed["description"]) == (theirs, False, "theirs")
    assert [disk["name"] for disk in listed["disks"]] == ["/dev/sdb"]
    assert bench.task("absent", name=theirs)["removed"] == [theirs]
    assert bench.in_aws() == set()


def test_one_that_an_export_needs_is_not_removed(bench: Bench) -> None:
    needed = bench.foreign({CHAIN: "0a1b2c3d", VM: bench.id})
    with pytest.raises(VmferryError, match="tells the next export of the chain 0a1b2c3d") as refused:
        bench.task("absent", name=needed)
    assert refused.value.kind == "conflict"
    assert bench.in_aws() == {needed}
    assert bench.task("absent")["removed"] == []


def test_one_that_an_export_reads_is_not_removed(bench: Bench) -> None:
    read = bench.foreign({JOB: "6f1d2c0e43a5", CHAIN: "0a1b2c3d", STATE: TEMPORARY, VM: bench.id})
    with pytest.raises(VmferryError, match="was made by the job 6f1d2c0e43a5") as refused:
        bench.task("absent", name=read)
    assert (refused.value.kind, "orphans: true" in refused.value.hint) == ("conflict", True)
    assert bench.in_aws() == {read}


def test_one_that_cannot_be_removed_does_not_keep_the_others(bench: Bench) -> None:
    bench.task(name="stuck")
    stuck = [disk["image"] for disk in bench.listed("stuck")[0]["disks"]]
    bench.aws.fault("DeleteSnapshot", "refuse", code="InvalidSnapshot.InUse", match=stuck[0], skip=1)  # the dry run
    with pytest.raises(VmferryError, match="an AMI is made of it"):
        bench.task("absent", name="stuck")
    assert bench.in_aws() == {stuck[0]}


def test_one_of_which_nobody_heard_is_removed_once_it_comes_to_light(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_ATTEMPTS", 1)
    looks = []
    every = asking.every

    def late(*given: Any, **named: Any) -> list[Any]:
        looks.append(given)
        return [] if len(looks) < 3 else every(*given, **named)

    monkeypatch.setattr(taking, "every", late)
    bench.aws.fault("CreateSnapshots", "lose_answer", skip=1)
    with pytest.raises(VmferryError, match="the connection broke"):
        bench.task(name="unheard")
    assert len(looks) == 3
    assert bench.in_aws() == set()


def test_one_that_an_image_is_made_of_stays_whole(bench: Bench) -> None:
    bench.task(name="base")
    (made,) = bench.listed("base")
    snapshot = made["disks"][0]["image"]
    root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}
    named = {"Name": f"image of {bench.name}", "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [root]}
    bench.aws.ec2.register_image(VirtualizationType="hvm", **named)
    with pytest.raises(VmferryError, match=r"The AMI ami-.* is made of the snapshot base") as refused:
        bench.task("absent", name="base")
    assert refused.value.kind == "conflict"
    assert len(bench.in_aws()) == 2


def test_check_mode_plans_and_changes_nothing(bench: Bench) -> None:
    bench.task(name="old")
    bench.aws.forget_calls()
    planned = bench.task(name="new", keep=1, check_mode=True)
    assert planned["changed"] is True
    assert (planned["plan"]["create"], planned["plan"]["method"], planned["plan"]["remove"]) == ("new", "ebs", ["old"])
    assert bench.names() == ["old"]
    assert bench.changed() == ["DeleteSnapshot", "CreateSnapshots"], "both with DryRun"


@pytest.mark.parametrize(("operation", "state"), [("CreateSnapshots", "present"), ("DeleteSnapshot", "absent")])
def test_a_policy_that_forbids_it_is_found_before_anything_is_done(bench: Bench, operation: str, state: str) -> None:
    bench.task(name="old")
    bench.aws.fault(operation, "denied")
    name = "old" if state == "absent" else "new"
    planned = bench.task(state, name=name, check_mode=True)
    errors = [one for one in planned["findings"] if one["severity"] == "error"]
    assert [(one["kind"], operation in one["hint"]) for one in errors] == [("permission_denied", True)]
    assert planned["changed"] is False


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"memory": True}, "hold no memory"),
        ({"method": "external"}, "neither internal nor external"),
        ({"quiesce": "required"}, "cannot freeze"),
    ],
)
def test_what_ebs_has_not_is_unsupported(bench: Bench, wish: dict[str, Any], words: str) -> None:
    with pytest.raises(VmferryError, match=words) as refused:
        bench.task(name="wish", **wish)
    assert (refused.value.kind, bench.in_aws()) == ("unsupported", set())


def test_nothing_is_gone_back_to_or_merged(bench: Bench) -> None:
    bench.task(name="old")
    for state, name in (("reverted", "old"), ("consolidated", "")):
        with pytest.raises(VmferryError) as refused:
            bench.task(state, name=name)
        assert (refused.value.kind, bool(refused.value.hint)) == ("unsupported", True)
    assert bench.names() == ["old"]


def test_one_is_waited_for(bench: Bench) -> None:
    bench.aws.change(polls=4)
    bench.task(name="slow")
    states = {one["State"] for one in bench.aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert states == {"completed"}


def test_one_that_takes_too_long_is_removed_and_told(bench: Bench) -> None:
    bench.aws.change(polls=10**6)
    with pytest.raises(VmferryError, match="were not completed within 1 s") as late:
        bench.task(name="late", timeout=1.0)
    assert (late.value.kind, "more time" in late.value.hint) == ("timeout", True)
    assert bench.in_aws() == set()


def test_one_that_aws_cannot_make_is_removed_and_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(bench.aws.fail_snapshot, monkeypatch)
    with pytest.raises(VmferryError, match="became error") as failed:
        bench.task(name="failing")
    assert (failed.value.kind, "KMS" in failed.value.hint) == ("conflict", True)
    assert bench.in_aws() == set()


def test_one_that_somebody_removes_is_not_waited_for_until_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_set, "GONE_AFTER", 0.1)
    meanwhile(lambda snapshot: bench.aws.ec2.delete_snapshot(SnapshotId=snapshot), monkeypatch)
    with pytest.raises(VmferryError, match="was removed before it was completed") as robbed:
        bench.task(name="robbed")
    assert robbed.value.kind == "conflict"
    assert bench.in_aws() == set()


def meanwhile(act: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first snapshot of a set that is waited for."""
    wait = snapshot_set.wait_until_completed

    def acted(session: Any, sleep: Any, ids: Any, *more: Any) -> Any:
        act(ids[0])
        return wait(session, sleep, ids, *more)

    monkeypatch.setattr(snapshots, "wait_until_completed", acted)


def test_a_request_whose_answer_was_lost_leaves_one_set(bench: Bench) -> None:
    bench.aws.fault("CreateSnapshots", "lose_answer", skip=1)  # after the one that asks whether it is allowed
    done = bench.task(name="lost")
    assert bench.aws.calls("CreateSnapshots") == ["ec2:CreateSnapshots"] * 3
    assert bench.in_aws() == {disk["image"] for disk in done["snapshot"]["disks"]}
    assert len(done["snapshot"]["disks"]) == 2


def test_a_set_of_which_one_is_gone_is_not_whole_and_can_be_removed(bench: Bench) -> None:
    bench.task(name="torn")
    (made,) = bench.listed("torn")
    bench.aws.ec2.delete_snapshot(SnapshotId=made["disks"][0]["image"])
    assert bench.listed("torn")[0]["whole"] is False
    with pytest.raises(VmferryError, match="is not whole"):
        bench.task(name="torn")
    assert bench.task("absent", name="torn")["removed"] == ["torn"]
    assert bench.in_aws() == set()


def test_vm_info_tells_ours(bench: Bench) -> None:
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms

    bench.foreign()
    bench.task(name="shown")
    (vm,) = describe_vms(bench.spec, [bench.id], {})["vms"]
    assert [snapshot["name"] for snapshot in vm["snapshots"]] == ["shown"]


def test_flags_of_fast_restore_are_left_alone(bench: Bench) -> None:
    bench.task(name="old")
    bench.task("absent")
    assert not [call for call in bench.aws.calls() if "FastSnapshotRestore" in call]
