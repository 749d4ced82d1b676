# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole exports from AWS: what is in them, what they say before and behind, and what stays in the account."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import (
    export_session,
    session,
    snapshot_set,
)
from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK, GIB

from .exports import Exports, block, disk


@pytest.fixture
def exports(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.02)
    return Exports(aws, tmp_path)


def refused(work: Any, kind: str, words: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        work()
    assert caught.value.kind == kind, caught.value
    assert words in str(caught.value)
    return caught.value


def test_a_running_instance_is_exported_as_it_was_at_one_moment_and_its_snapshots_stay_for_the_next(
    aws: AwsServer, exports: Exports
) -> None:
    data = [disk(1, 0, 2, 3), disk(0, 4)]
    vm = aws.make_instance("exported-web", data)
    aws.change(polls=3)
    made = exports.make("exported-web")["export"]
    assert (made["mode"], made["consistency"]) == ("full", "crash_consistent")
    exports.assert_content(made, data)
    assert exports.states(vm) == ["token", "token"]
    assert sorted(one["VolumeId"] for one in exports.snapshots(vm)) == sorted(exports.volumes(vm))
    native = json.loads((Path(made["url"].removeprefix("file://")) / "native/instance.json").read_text())
    assert native["InstanceId"] == vm
    assert not {"State", "LaunchTime", "PublicIpAddress"} & set(native)
    assert not [call for call in aws.calls() if "Attribute" in call], "nobody reads user data"


def test_an_instance_that_is_stopped_is_powered_off_and_a_disk_that_is_left_out_is_not_even_snapshotted(
    aws: AwsServer, exports: Exports
) -> None:
    vm = aws.make_instance("exported-off", [disk(1), disk(2), disk(3)], running=False)
    made = exports.make(vm, disks=["disk-1"], consistency="powered_off", track_changes=False)["export"]
    assert made["consistency"] == "powered_off"
    exports.assert_content(made, [disk(2)])
    assert exports.snapshots(vm) == []
    assert len(aws.calls("DeleteSnapshot")) == 1
    assert made["change_token"] == ""


def test_what_cannot_be_is_refused_before_anything_is_made(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("busy", [disk(1)])
    refused(lambda: exports.make(vm, consistency="powered_off"), "conflict", "not powered_off")
    refused(lambda: exports.make(vm, consistency="quiesced"), "unsupported", "cannot freeze")
    aws.fault("CreateSnapshots", "denied")
    refused(lambda: exports.make(vm), "permission_denied", "Making snapshots of busy")
    assert exports.snapshots(vm) == []


def test_check_mode_tells_what_reading_takes_and_changes_nothing(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("planned", [disk(1)], sizes=[2])
    told = exports.make(vm, check_mode=True)
    (cost,) = [one["message"] for one in told["findings"] if "GetSnapshotBlock" in one["message"]]
    assert f"up to {2 * GIB // BLOCK} GetSnapshotBlock" in cost
    assert "newest snapshots" not in cost
    assert not [call for call in aws.calls() if call.startswith("ebs:")]
    assert exports.snapshots(vm) == []
    exports.make(vm)
    aws.write(exports.volumes(vm)[0], BLOCK, b"later")
    aws.ec2.create_snapshot(VolumeId=exports.volumes(vm)[0])  # whoever makes it
    aws.ec2.describe_snapshots(OwnerIds=["self"])  # which lets it complete
    told = exports.make(vm, check_mode=True)
    assert (told["plan"]["mode"], told["plan"]["bytes_to_read"]) == ("incremental", 2 * GIB)
    (cost,) = [one["message"] for one in told["findings"] if "GetSnapshotBlock" in one["message"]]
    assert "The newest snapshots of its volumes hold 2 blocks." in cost
    assert "its new snapshots alone tell" in cost


def test_check_mode_knows_that_nothing_changed_where_nobody_can_have_written_to_it(
    aws: AwsServer, exports: Exports
) -> None:
    vm = aws.make_instance("at-rest", [disk(1), disk(2)], running=False)
    time.sleep(1.1)  # EC2 tells whole seconds
    exports.make(vm)

    def told() -> list[int]:
        found = exports.make(vm, check_mode=True)
        assert found["plan"]["mode"] == "incremental"
        return [one["bytes_to_read"] for one in found["plan"]["disks"]]

    assert told() == [0, 0]
    data = exports.volumes(vm)[1]
    aws.ec2.detach_volume(VolumeId=data, InstanceId=vm)
    time.sleep(1.1)
    aws.ec2.attach_volume(VolumeId=data, InstanceId=vm, Device="/dev/sdb")
    assert told() == [0, GIB], "another may have had it meanwhile"
    aws.ec2.start_instances(InstanceIds=[vm])
    assert told() == [GIB, GIB]
    aws.ec2.stop_instances(InstanceIds=[vm])
    assert told() == [GIB, GIB]


def test_increments_are_exact_under_random_writes_and_discards_and_read_what_changed_alone(
    aws: AwsServer, exports: Exports
) -> None:
    chance = random.Random(7)
    held = [bytearray(disk(*range(1, 21))), bytearray(disk(0, 1))]
    vm = aws.make_instance("chain", [bytes(one) for one in held])
    volumes = exports.volumes(vm)
    tokens = [exports.make(vm)["export"]["change_token"]]
    for _round in range(3):
        changed = set()
        for _unused in range(4):
            at = chance.randrange(0, 20 * BLOCK - 3000)
            data = chance.randbytes(3000) if chance.random() < 0.7 else bytes(3000)
            aws.write(volumes[0], at, data)
            held[0][at : at + 3000] = data
            changed |= {at // BLOCK, (at + 2999) // BLOCK}
        gone = chance.randrange(20)
        aws.discard(volumes[0], gone * BLOCK, BLOCK)
        held[0][gone * BLOCK : (gone + 1) * BLOCK] = bytes(BLOCK)
        changed.discard(gone)
        aws.forget_calls()
        made = exports.make(vm, mode="incremental", spot_check=0)["export"]
        assert made["mode"] == "incremental"
        exports.assert_content(made, [bytes(one) for one in held])
        # Besides what changed, the spot check reads the ends of both disks.
        assert len(aws.calls("GetSnapshotBlock")) <= len(changed) + 4
        assert len(aws.calls("ListChangedBlocks")) == 2
        tokens.append(made["change_token"])
        assert exports.states(vm) == ["token", "token"], "the ones before are gone"
    assert len(set(tokens)) == 4
    assert not exports.make(vm)["changed"], "nothing did since"
    assert exports.states(vm) == ["token", "token"]


def test_what_is_said_to_be_unchanged_is_looked_at_in_few_blocks(
    aws: AwsServer, exports: Exports, tmp_path: Path
) -> None:
    """Each of them is a request, which AWS bills: eight besides the two at either end, of a disk with data all over."""
    image = tmp_path / "sparse"
    with image.open("wb") as file:
        for place in range(32):
            file.seek(place * 64 * BLOCK)
            file.write(block(place + 1))
        file.truncate(GIB)
    vm = aws.make_instance("checked", [image])
    exports.make(vm)
    aws.write(exports.volumes(vm)[0], 30 * BLOCK, b"new")
    aws.forget_calls()
    assert exports.make(vm, mode="incremental")["export"]["mode"] == "incremental"
    assert 1 + 8 <= len(aws.calls("GetSnapshotBlock")) <= 1 + 8 + 4


def test_where_nobody_can_tell_what_changed_the_export_is_full_and_says_why(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("lost", [disk(1, 2)])
    first = exports.make(vm)["export"]
    for one in exports.snapshots(vm):
        aws.ec2.delete_snapshot(SnapshotId=one["SnapshotId"])
    second = exports.make(vm)
    assert second["export"]["mode"] == "full"
    assert any(f"token {first['change_token']} of lost are gone" in one for one in second["warnings"])
    for one in exports.snapshots(vm):
        aws.ec2.delete_snapshot(SnapshotId=one["SnapshotId"])
    refused(lambda: exports.make(vm, mode="incremental"), "conflict", "are gone")
    assert exports.snapshots(vm) == []


def test_a_volume_in_the_place_of_another_is_exported_in_full(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("swapped", [disk(1), disk(2)], running=False)
    exports.make(vm)
    old = aws.volumes(vm)["/dev/sdb"]
    zone = aws.ec2.describe_volumes(VolumeIds=[old])["Volumes"][0]["AvailabilityZone"]
    aws.ec2.detach_volume(VolumeId=old, InstanceId=vm)
    new = aws.ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    aws.load(new, disk(7))
    aws.ec2.attach_volume(VolumeId=new, InstanceId=vm, Device="/dev/sdb")
    made = exports.make(vm)
    assert made["export"]["mode"] == "full"
    assert any("/dev/sdb of swapped is another volume" in one for one in made["warnings"])
    exports.assert_content(made["export"], [disk(1), disk(7)])


def test_a_volume_that_grew_is_exported_in_full(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("grown", [disk(1)])
    exports.make(vm)
    aws.ec2.modify_volume(VolumeId=exports.volumes(vm)[0], Size=2)
    made = exports.make(vm)
    assert (made["export"]["mode"], made["export"]["disks"][0]["size"]) == ("full", 2 * GIB)
    exports.assert_content(made["export"], [disk(1)], [2 * GIB])


def test_an_encrypted_volume_is_exported_as_any_other(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("sealed", [disk(1, 2)], encrypted=True)
    exports.assert_content(exports.make(vm)["export"], [disk(1, 2)])


def test_a_set_of_snapshots_that_was_made_twice_is_there_once(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost, and the SDK asked again."""
    vm = aws.make_instance("twice", [disk(1), disk(2)])
    aws.fault("CreateSnapshots", "lose_answer", skip=1)  # behind the dry run
    made = exports.make(vm)["export"]
    assert len(aws.calls("CreateSnapshots")) == 3
    assert exports.states(vm) == ["token", "token"]
    aws.write(exports.volumes(vm)[0], 0, b"later")
    again = exports.make(vm, mode="incremental")["export"]
    assert again["parent"] == made["id"]
    exports.assert_content(again, [b"later" + disk(1)[5:], disk(2)])


def test_a_set_that_was_made_before_aws_refused_to_answer_is_removed(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("unheard", [disk(1)])
    monkeypatch.setattr(session, "_ATTEMPTS", 2)
    aws.fault("CreateSnapshots", "lose_answer", skip=1)  # behind the dry run
    aws.fault("CreateSnapshots", "throttle", skip=1)
    monkeypatch.setattr(export_session, "TURNS", 1)
    refused(lambda: exports.make(vm), "rate_limited", "Making the snapshots of unheard")
    assert len(aws.calls("CreateSnapshots")) == 3
    assert exports.snapshots(vm) == []


def test_a_snapshot_that_somebody_removes_is_not_waited_for(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("robbed", [disk(1), disk(2)])
    aws.change(polls=10_000)
    monkeypatch.setattr(snapshot_set, "GONE_AFTER", 0.1)
    wait = snapshot_set.wait_until_completed

    def rob(session: Any, sleep: Any, ids: Any, name: str) -> Any:
        aws.ec2.delete_snapshot(SnapshotId=ids[0])
        return wait(session, sleep, ids, name)

    monkeypatch.setattr(export_session, "wait_until_completed", rob)
    refused(lambda: exports.make(vm), "conflict", "was removed before it was completed")
    assert exports.snapshots(vm) == []


@pytest.mark.parametrize(
    ("operation", "kind", "expected"),
    [
        ("GetSnapshotBlock", "denied", "permission_denied"),
        ("ListSnapshotBlocks", "denied", "permission_denied"),
        ("CreateTags", "denied", "permission_denied"),
        ("GetSnapshotBlock", "quota", "quota"),
    ],
)
def test_an_export_that_fails_leaves_nothing(
    aws: AwsServer, exports: Exports, operation: str, kind: str, expected: str
) -> None:
    vm = aws.make_instance("failing", [disk(1)])
    aws.fault(operation, kind, times=-1)
    refused(lambda: exports.make(vm), expected, "failing")
    assert exports.snapshots(vm) == []
    assert not [path for path in (exports.folder / "store").rglob("*") if path.is_file()]


def test_a_snapshot_that_aws_cannot_make_fails_the_export_and_leaves_nothing(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("broken", [disk(1)])
    wait = snapshot_set.wait_until_completed

    def fail(session: Any, sleep: Any, ids: Any, name: str) -> Any:
        aws.fail_snapshot(ids[0])
        return wait(session, sleep, ids, name)

    monkeypatch.setattr(export_session, "wait_until_completed", fail)
    refused(lambda: exports.make(vm), "conflict", "became error")
    assert exports.snapshots(vm) == []


def test_snapshots_that_stand_still_are_not_waited_for_for_ever(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("slow", [disk(1)])
    aws.change(polls=10_000)
    monkeypatch.setattr(snapshot_set, "STANDSTILL", 0.1)
    refused(lambda: exports.make(vm), "timeout", "made no progress")
    assert exports.snapshots(vm) == []


def test_a_snapshot_that_comes_too_soon_behind_another_is_tried_again(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("soon", [disk(1)])
    monkeypatch.setattr(export_session, "TURN", 0.01)
    monkeypatch.setattr(export_session, "APPEARING", 0.1)  # none was made that nobody was told of
    code = "SnapshotCreationPerVolumeRateExceeded"
    aws.fault("CreateSnapshots", "refuse", code=code, skip=1, times=export_session.TURNS - 1)
    assert exports.make(vm)["changed"]
    aws.fault("CreateSnapshots", "refuse", code=code, skip=1, times=export_session.TURNS)
    aws.write(exports.volumes(vm)[0], 0, b"new")
    refused(lambda: exports.make(vm), "rate_limited", "Making the snapshots of soon")


def test_a_job_that_is_stopped_waits_for_no_snapshot(
    aws: AwsServer, exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("stopped", [disk(1)])
    aws.change(polls=10_000)
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 600.0)
    asked = TransferOptions(state_dir=str(exports.folder / "state"), max_duration=2.0)
    refused(lambda: exports.make(vm, transfer=asked), "timeout", "max_duration")
    assert exports.snapshots(vm) == []


def test_throttling_slows_an_export_and_does_not_fail_it(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("throttled", [disk(1, 2, 3)])
    aws.fault("CreateSnapshots", "throttle", skip=1)
    aws.fault("GetSnapshotBlock", "throttle")
    exports.assert_content(exports.make(vm)["export"], [disk(1, 2, 3)])


def test_the_permissions_that_exports_need_are_the_documented_ones(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("allowed", [disk(1), disk(2)])
    exports.make(vm)
    aws.write(exports.volumes(vm)[0], 0, b"new")
    exports.make(vm, mode="incremental")
    page = (Path(__file__).resolve().parents[3] / "docs/aws_exports.md").read_text()
    policy = page.partition("<!-- permissions of vm_export -->")[2].partition("<!-- end -->")[0]
    documented = {word for word in policy.replace('"', " ").split() if word.startswith(("ec2:", "ebs:", "sts:"))}
    assert documented == aws.permissions()


def test_an_export_that_stops_an_instance_tells_what_goes_with_its_power(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("grouped", [disk(1)], tags={"aws:autoscaling:groupName": "fleet"}, type="m5d.large")

    def told(**asked: Any) -> list[str]:
        return [one["message"] for one in exports.make(vm, check_mode=True, **asked)["findings"]]

    asked: dict[str, Any] = {"consistency": "powered_off", "shutdown_timeout": 60.0}
    said = " ".join(told(**asked))
    assert "the Auto Scaling group fleet, which may terminate" in said
    assert "What is in the instance store of grouped is lost" in said
    assert "Auto Scaling" not in " ".join(told())


@pytest.mark.parametrize("operation", ["StopInstances", "StartInstances"])
def test_an_instance_that_may_not_be_stopped_and_started_is_found_before(
    aws: AwsServer, exports: Exports, operation: str
) -> None:
    vm = aws.make_instance("kept", [disk(1)])
    aws.fault(operation, "refuse", times=-1, code="UnauthorizedOperation", status=403)
    asked: dict[str, Any] = {"consistency": "powered_off", "shutdown_timeout": 60.0}
    found = exports.make(vm, check_mode=True, **asked)["findings"]
    assert [one["kind"] for one in found if one["severity"] == "error"] == ["permission_denied"]
    error = refused(lambda: exports.make(vm, **asked), "permission_denied", "kept")
    assert operation in error.hint
    (reservation,) = aws.ec2.describe_instances(InstanceIds=[vm])["Reservations"]
    assert reservation["Instances"][0]["State"]["Name"] == "running"
    aws.heal()
    exports.make(vm, **asked)
    assert {"ec2:StopInstances", "ec2:StartInstances"} <= set(aws.calls())
