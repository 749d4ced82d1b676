# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports from AWS of snapshots that are there already: whose data they hold, what stays, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    SnapshotOptions,
    SnapshotRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import snapshot_set
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import VendorTask
from rigs.aws import AwsServer

from .dying import die_at
from .exports import Exports, disk


@pytest.fixture
def exports(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.02)
    return Exports(aws, tmp_path)


def snapshot(exports: Exports, vm: str, name: str) -> None:
    """As disk_snapshot makes it."""
    whole = {"quiesce": "auto", "memory": False, "method": "auto", "keep": None, "timeout": 60.0}
    provider = exports.request(vm).provider
    manage_snapshots(SnapshotRequest(provider=provider, vm=vm, state="present", name=name, **whole), False)


def foreign(exports: Exports, vm: str, number: int) -> str:
    """That somebody else made of one volume."""
    return str(exports.aws.ec2.create_snapshot(VolumeId=exports.volumes(vm)[number])["SnapshotId"])


def source(name: str) -> dict[str, Any]:
    return {"snapshot": SnapshotOptions(source=name)}


def refused(work: Any, kind: str, words: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        work()
    assert caught.value.kind == kind, caught.value
    assert words in str(caught.value)
    return caught.value


def test_a_set_of_snapshots_is_exported_as_it_was_and_stays_as_it_is(aws: AwsServer, exports: Exports) -> None:
    then = [disk(1, 0, 2), disk(0, 4)]
    vm = aws.make_instance("of-a-set", then)
    snapshot(exports, vm, "before-upgrade")
    aws.write(exports.volumes(vm)[0], 0, disk(9))
    before = exports.snapshots(vm)
    aws.forget_calls()
    made = exports.make(vm, **source("before-upgrade"))["export"]
    assert (made["snapshot"], made["consistency"], made["change_token"]) == ("before-upgrade", "crash_consistent", "")
    exports.assert_content(made, then)
    assert exports.snapshots(vm) == before
    assert not {"ec2:CreateSnapshots", "ec2:CreateTags", "ec2:DeleteSnapshot"} & set(aws.calls())
    assert not exports.make(vm, **source("before-upgrade"))["changed"], "it is exported already"


def test_exports_of_a_snapshot_do_not_disturb_the_chain_of_the_instance(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("chained", [disk(1, 2, 3)])
    (volume,) = exports.volumes(vm)
    first = exports.make(vm)["export"]
    aws.write(volume, 0, disk(4))
    snapshot(exports, vm, "between")
    aws.write(volume, len(disk(1)), disk(5))
    between = exports.make(vm, **source("between"))["export"]
    assert (between["mode"], between["parent"]) == ("incremental", first["id"])
    exports.assert_content(between, [disk(4, 2, 3)])
    later = exports.make(vm, mode="incremental")["export"]
    assert (later["mode"], later["parent"]) == ("incremental", first["id"])
    exports.assert_content(later, [disk(4, 5, 3)])


def test_a_snapshot_of_somebody_else_is_exported_by_its_id(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("of-others", [disk(1), disk(2)])
    theirs = foreign(exports, vm, 1)
    aws.write(exports.volumes(vm)[1], 0, disk(8))
    made = exports.make(vm, disks=[exports.volumes(vm)[1]], **source(theirs))["export"]
    exports.assert_content(made, [disk(2)])
    assert made["disks"][0]["id"] == "disk-1"
    error = refused(lambda: exports.make(vm, **source(theirs)), "conflict", f"{theirs} of of-others has no /dev/sda1")
    assert "disks" in error.hint


def test_a_volume_that_grew_is_exported_as_large_as_the_snapshot_has_it(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("grew", [disk(1)])
    theirs = foreign(exports, vm, 0)
    aws.ec2.modify_volume(VolumeId=exports.volumes(vm)[0], Size=2)
    exports.assert_content(exports.make(vm, **source(theirs))["export"], [disk(1)])


def test_a_snapshot_that_is_still_copied_is_waited_for(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("copied", [disk(1)])
    aws.change(polls=5)
    theirs = foreign(exports, vm, 0)
    exports.assert_content(exports.make(vm, **source(theirs))["export"], [disk(1)])


def test_a_new_snapshot_is_made_and_exported_and_the_older_ones_pruned(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("kept-ones", [disk(1)])
    for number in (1, 2):
        aws.write(exports.volumes(vm)[0], 0, disk(number))
        asked = SnapshotOptions(name=f"kept-{number}", keep=1)
        exports.assert_content(exports.make(vm, snapshot=asked)["export"], [disk(number)])
    (left,) = exports.snapshots(vm)
    assert {"Key": "vmferry:snapshot", "Value": "kept-2"} in left["Tags"]
    error = refused(lambda: exports.make(vm, snapshot=SnapshotOptions(name="passing")), "unsupported", "No snapshot")
    assert "snapshot.keep" in error.hint


def test_what_cannot_be_exported_of_a_snapshot_is_found_before(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("refused-ones", [disk(1), disk(2)])
    refused(lambda: exports.make(vm, **source("none")), "not_found", "no snapshot none")
    snapshot(exports, vm, "set")
    members = [one["SnapshotId"] for one in exports.snapshots(vm)]
    error = refused(lambda: exports.make(vm, **source(members[0])), "not_found", members[0])
    assert "the snapshot set: name that" in error.hint
    refused(lambda: exports.make(vm, consistency="powered_off", **source("set")), "conflict", "is crash_consistent")
    task = VendorTask("s3://bucket/x")
    asked = {"method": "vendor_task", "vendor_task": task, **source("set")}
    refused(lambda: exports.make(vm, **asked), "unsupported", "as it is now, and not its snapshot set")
    aws.ec2.delete_snapshot(SnapshotId=members[0])
    refused(lambda: exports.make(vm, **source("set")), "conflict", "refused-ones")
    assert not [path for path in (exports.folder / "store").rglob("*") if path.is_file()]


def test_a_snapshot_of_an_instance_that_was_off_is_powered_off(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("was-off", [disk(1)], running=False)
    snapshot(exports, vm, "off")
    assert exports.make(vm, consistency="powered_off", **source("off"))["export"]["consistency"] == "powered_off"


def test_an_export_that_is_killed_leaves_nothing_and_the_next_run_goes_on_with_it(
    aws: AwsServer, exports: Exports
) -> None:
    vm = aws.make_instance("resumed", [disk(1, 2, 3)])
    snapshot(exports, vm, "point")
    before = exports.snapshots(vm)
    die_at("resumable", exports.request(vm, **source("point")))
    assert exports.snapshots(vm) == before
    aws.write(exports.volumes(vm)[0], 0, disk(9))
    made = exports.make(vm, **source("point"))
    assert made["resumed"]["export"] == made["export"]["id"], made["resumed"]
    exports.assert_content(made["export"], [disk(1, 2, 3)])
    assert exports.snapshots(vm) == before


def test_a_killed_export_does_not_go_on_with_another_snapshot_of_the_same_name(
    aws: AwsServer, exports: Exports
) -> None:
    vm = aws.make_instance("replaced", [disk(1)])
    snapshot(exports, vm, "point")
    die_at("resumable", exports.request(vm, **source("point")))
    (old,) = exports.snapshots(vm)
    aws.ec2.delete_snapshot(SnapshotId=old["SnapshotId"])
    aws.write(exports.volumes(vm)[0], 0, disk(9))
    snapshot(exports, vm, "point")
    made = exports.make(vm, **source("point"))
    assert made["resumed"]["export"] == "", made["resumed"]
    exports.assert_content(made["export"], [disk(9)])


def test_a_volume_is_no_vm_and_who_names_one_learns_how_it_is_exported(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("of-volumes", [disk(1), disk(2)])
    volume = exports.volumes(vm)[1]
    error = refused(lambda: exports.make(volume), "not_found", f"{volume} is a volume, and no instance")
    assert f"disks: [{volume}]" in error.hint
    exports.assert_content(exports.make(vm, disks=[volume])["export"], [disk(2)])
