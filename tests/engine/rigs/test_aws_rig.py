# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig of AWS does what the provider's tests rely on, seen with the SDK; and it is the API that the SDK knows."""

from __future__ import annotations

import hashlib
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.session import get_session

from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK, GIB
from rigs.aws.keys import ACCESS_KEY, SECRET_KEY
from rigs.aws.rest_api import ApiError, RestApi

pytestmark = pytest.mark.slow

RIG = Path(__file__).resolve().parents[2] / "rigs/aws"


@pytest.fixture(scope="module")
def server() -> Iterator[AwsServer]:
    with AwsServer() as server:
        yield server


@pytest.fixture
def aws(server: AwsServer) -> Iterator[AwsServer]:
    yield server
    server.heal()
    server.change(polls=1, page=10_000)


def client(aws: AwsServer, service: str, key: str = ACCESS_KEY, **config: Any) -> Any:
    """As a task's, but it asks once."""
    made: Any = boto3.client
    return made(
        service,
        endpoint_url=aws.endpoint_url,
        aws_access_key_id=key,
        aws_secret_access_key=SECRET_KEY,
        region_name=aws.region,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def refused(work: Callable[..., Any], *given: Any, **options: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        work(*given, **options)
    response: Any = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response.get("Reason", "")


def invalid(reason: str) -> tuple[str, int, str]:
    return "ValidationException", 400, reason


def block(seed: int) -> bytes:
    return bytes([seed]) * BLOCK


def digest(data: bytes) -> str:
    return b64encode(hashlib.sha256(data).digest()).decode()


def snapshot_of(aws: AwsServer, volume: str) -> str:
    """Completed."""
    made = str(aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
    while aws.ec2.describe_snapshots(SnapshotIds=[made])["Snapshots"][0]["State"] != "completed":
        pass
    return made


def volume_of(aws: AwsServer, data: bytes, **options: Any) -> str:
    return next(iter(aws.volumes(aws.make_instance("a machine", [data], **options)).values()))


def put(ebs: Any, snapshot: str, index: int, data: bytes, **changes: Any) -> Any:
    given = {"DataLength": len(data), "Checksum": digest(data), "ChecksumAlgorithm": "SHA256", **changes}
    return ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, **given)


def indexes(listed: Any) -> list[int]:
    return [one["BlockIndex"] for one in listed["Blocks"]]


def test_only_what_was_written_is_listed_and_read_with_its_checksum(aws: AwsServer) -> None:
    ebs = client(aws, "ebs")
    volume = volume_of(aws, block(1) + bytes(3 * BLOCK) + block(2) + b"x")
    aws.write(volume, 9 * BLOCK - 2, b"over")
    aws.write(volume, GIB - 2 * BLOCK, bytes(BLOCK))
    snapshot = snapshot_of(aws, volume)
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)
    assert indexes(listed) == [0, 4, 5, 8, 9, GIB // BLOCK - 2]
    assert (listed["BlockSize"], listed["VolumeSize"], "NextToken" in listed) == (BLOCK, 1, False)
    read = b""
    for one in listed["Blocks"]:
        got = ebs.get_snapshot_block(SnapshotId=snapshot, **one)
        data = got["BlockData"].read()
        assert (got["DataLength"], got["Checksum"], got["ChecksumAlgorithm"]) == (BLOCK, digest(data), "SHA256")
        read += data
    tail = b"x".ljust(BLOCK, b"\0") + b"ov".rjust(BLOCK, b"\0") + b"er".ljust(BLOCK, b"\0") + bytes(BLOCK)
    assert read == block(1) + block(2) + tail
    assert aws.snapshot_bytes(snapshot, 5 * BLOCK) == block(1) + bytes(3 * BLOCK) + block(2)
    assert aws.blocks(snapshot) == aws.blocks(volume)


def test_pages_are_in_order_and_tokens_are_of_what_they_were_given_for(aws: AwsServer) -> None:
    ebs = client(aws, "ebs")
    volume = volume_of(aws, b"".join(block(1) for _unused in range(7)))
    first, second = snapshot_of(aws, volume), snapshot_of(aws, volume)
    aws.change(page=3)
    listed = ebs.list_snapshot_blocks(SnapshotId=first, StartingBlockIndex=1)
    rest = ebs.list_snapshot_blocks(SnapshotId=first, StartingBlockIndex=5, NextToken=listed["NextToken"])
    assert (indexes(listed), indexes(rest)) == ([1, 2, 3], [4, 5, 6])
    other = ebs.list_snapshot_blocks(SnapshotId=second)
    assert refused(ebs.list_snapshot_blocks, SnapshotId=first, NextToken=other["NextToken"]) == invalid(
        "INVALID_PAGE_TOKEN"
    )
    told = listed["Blocks"][0]
    for wrong in ({"BlockIndex": 2}, {"SnapshotId": second}, {"BlockToken": "AAAA"}):
        asked = {"SnapshotId": first, **told, **wrong}
        assert refused(ebs.get_snapshot_block, **asked) == invalid("INVALID_BLOCK_TOKEN")
    ebs.get_snapshot_block(SnapshotId=first, **told)
    aws.expire_tokens()
    assert refused(ebs.get_snapshot_block, SnapshotId=first, **told) == invalid("INVALID_BLOCK_TOKEN")
    assert refused(ebs.list_snapshot_blocks, SnapshotId=second, NextToken=other["NextToken"]) == invalid(
        "INVALID_PAGE_TOKEN"
    )


def test_a_set_of_snapshots_is_of_one_moment_and_pending_at_first(aws: AwsServer) -> None:
    ebs = client(aws, "ebs")
    instance = aws.make_instance("two disks", [block(1), block(2), block(3)], sizes=(1, 2, 1), running=False)
    volumes = list(aws.volumes(instance).values())
    aws.change(polls=2)
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "vmferry:job", "Value": "one"}]}]
    given = {"InstanceId": instance, "ExcludeDataVolumeIds": volumes[2:]}
    made = aws.ec2.create_snapshots(InstanceSpecification=given, TagSpecifications=tags)["Snapshots"]
    for volume in volumes:
        aws.write(volume, 0, b"afterwards")
    names = [one["SnapshotId"] for one in made]
    assert [(one["VolumeId"], one["State"], one["Tags"]) for one in made] == [
        (volume, "pending", tags[0]["Tags"]) for volume in volumes[:2]
    ]
    assert refused(ebs.list_snapshot_blocks, SnapshotId=names[0])[0] == "ValidationException"
    told = [aws.ec2.describe_snapshots(SnapshotIds=names)["Snapshots"] for _unused in range(2)]
    assert [[one["State"] for one in snapshots] for snapshots in told] == [["pending"] * 2, ["completed"] * 2]
    assert [aws.snapshot_bytes(name) for name in names] == [block(1), block(2)]
    aws.ec2.modify_volume(VolumeId=volumes[0], Size=5)
    assert [one["VolumeSize"] for one in aws.ec2.describe_snapshots(SnapshotIds=names)["Snapshots"]] == [1, 2]
    assert set(aws.leftovers().snapshots) == set(names)
    for name in names:
        aws.ec2.delete_snapshot(SnapshotId=name)
    assert not aws.leftovers()
    assert refused(ebs.list_snapshot_blocks, SnapshotId=names[0]) == (
        "ResourceNotFoundException",
        404,
        "SNAPSHOT_NOT_FOUND",
    )


def test_what_was_written_between_two_snapshots_is_told_in_both_directions(aws: AwsServer) -> None:
    ebs = client(aws, "ebs")
    volume = volume_of(aws, b"".join(block(1) for _unused in range(4)))
    first = snapshot_of(aws, volume)
    aws.write(volume, 0, b"\1")  # the same bytes
    aws.write(volume, 6 * BLOCK, b"new")
    aws.discard(volume, BLOCK + 5, 2 * BLOCK)  # the end of one, a whole one, and the beginning of one
    second = snapshot_of(aws, volume)

    def changed(one: str, other: str) -> dict[int, tuple[bool, bool]]:
        listed = ebs.list_changed_blocks(FirstSnapshotId=one, SecondSnapshotId=other)["ChangedBlocks"]
        return {each["BlockIndex"]: ("FirstBlockToken" in each, "SecondBlockToken" in each) for each in listed}

    both, gone, fresh = (True, True), (True, False), (False, True)
    assert changed(first, second) == {0: both, 1: both, 2: gone, 3: both, 6: fresh}
    assert changed(second, first) == {0: both, 1: both, 2: fresh, 3: both, 6: gone}
    assert changed(first, first) == {}
    assert aws.snapshot_bytes(second, 4 * BLOCK)[BLOCK : 3 * BLOCK + 5] == b"\1" * 5 + bytes(2 * BLOCK)
    listed = ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)["ChangedBlocks"]
    got = [
        ebs.get_snapshot_block(SnapshotId=name, BlockIndex=3, BlockToken=listed[3][key])["BlockData"].read()
        for name, key in ((first, "FirstBlockToken"), (second, "SecondBlockToken"))
    ]
    assert got == [block(1), bytes(5) + block(1)[5:]]
    other = snapshot_of(aws, volume_of(aws, b""))
    restored = aws.ec2.create_volume(SnapshotId=first, AvailabilityZone=f"{aws.region}a")["VolumeId"]
    for stranger in (other, snapshot_of(aws, restored)):
        assert refused(changed, first, stranger) == invalid("UNRELATED_SNAPSHOTS")
    assert refused(ebs.list_changed_blocks, SecondSnapshotId=second) == invalid("INVALID_PARAMETER_VALUE")


def test_a_snapshot_is_written_to_sealed_and_the_parent_of_another(aws: AwsServer) -> None:
    ebs = client(aws, "ebs")
    started = ebs.start_snapshot(VolumeSize=2, ClientToken="one", Tags=[{"Key": "vmferry:job", "Value": "two"}])
    name = started["SnapshotId"]
    assert (started["Status"], started["VolumeSize"], started["BlockSize"]) == ("pending", 2, BLOCK)
    again = ebs.start_snapshot(VolumeSize=2, ClientToken="one", Tags=[{"Key": "vmferry:job", "Value": "two"}])
    assert again["SnapshotId"] == name
    assert refused(ebs.start_snapshot, VolumeSize=3, ClientToken="one")[:2] == ("ConflictException", 409)
    for index, data in ((0, block(1)), (2, block(2)), (2 * GIB // BLOCK - 1, block(3)), (2, block(4))):
        assert put(ebs, name, index, data)["Checksum"] == digest(data)
    wrong: list[tuple[int, bytes, dict[str, Any]]] = [
        (1, block(1), {"Checksum": digest(block(2))}),
        (1, block(1)[1:], {}),
        (1, block(1), {"DataLength": 512}),
        (2 * GIB // BLOCK, block(1), {}),
    ]
    for index, data, changes in wrong:
        assert refused(put, ebs, name, index, data, **changes)[0] == "ValidationException"
    assert refused(ebs.list_snapshot_blocks, SnapshotId=name)[0] == "ValidationException"
    sums = b"".join(hashlib.sha256(data).digest() for data in (block(1), block(4), block(3)))
    how = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    total = {"Checksum": digest(sums), **how}
    for given in (
        {"ChangedBlocksCount": 4},
        {"ChangedBlocksCount": 3, "Checksum": digest(b""), **how},
        {"ChangedBlocksCount": 3, "Checksum": digest(sums)},
    ):
        found = refused(ebs.complete_snapshot, SnapshotId=name, **given)
        assert found == invalid("INVALID_PARAMETER_VALUE")
    assert ebs.complete_snapshot(SnapshotId=name, ChangedBlocksCount=3, **total)["Status"] == "pending"
    assert refused(put, ebs, name, 1, block(1))[0] == "ValidationException"
    (told,) = aws.ec2.describe_snapshots(SnapshotIds=[name])["Snapshots"]
    assert (told["State"], told["VolumeSize"], told["Tags"]) == ("completed", 2, started["Tags"])

    child = ebs.start_snapshot(VolumeSize=2, ParentSnapshotId=name)["SnapshotId"]
    put(ebs, child, 1, block(5))
    aws.change(polls=0)
    assert ebs.complete_snapshot(SnapshotId=child, ChangedBlocksCount=1)["Status"] == "pending", "as it was started"
    aws.ec2.describe_snapshots(SnapshotIds=[child])
    assert aws.snapshot_bytes(child, 3 * BLOCK) == block(1) + block(5) + block(4)
    changed = ebs.list_changed_blocks(FirstSnapshotId=name, SecondSnapshotId=child)["ChangedBlocks"]
    assert [(one["BlockIndex"], "FirstBlockToken" in one) for one in changed] == [(1, False)]
    for given in ({"VolumeSize": 1}, {"VolumeSize": 2, "Encrypted": True}):
        assert refused(ebs.start_snapshot, ParentSnapshotId=name, **given)[0] == ("ValidationException")
    for snapshot in (child, name):
        aws.ec2.delete_snapshot(SnapshotId=snapshot)


def image_of(aws: AwsServer, name: str, *snapshots: str, **changes: Any) -> str:
    mapped = [
        {"DeviceName": device, "Ebs": {"SnapshotId": snapshot, "DeleteOnTermination": True}}
        for device, snapshot in zip(("/dev/xvda", "/dev/sdf"), snapshots)
    ]
    given = {
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "BootMode": "uefi",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": mapped,
        **changes,
    }
    return str(aws.ec2.register_image(Name=name, **given)["ImageId"])


def run(aws: AwsServer, image: str, kind: str = "t3.micro", **options: Any) -> Any:
    answer = aws.ec2.run_instances(ImageId=image, InstanceType=kind, MinCount=1, MaxCount=1, **options)
    return answer["Instances"][0]


def test_an_image_is_what_was_registered_and_an_instance_of_it_has_its_disks(aws: AwsServer) -> None:
    volumes = aws.volumes(aws.make_instance("source", [block(1), block(2)]))
    snapshots = [snapshot_of(aws, volume) for volume in volumes.values()]
    image = image_of(aws, "both", *snapshots)
    (told,) = aws.ec2.describe_images(ImageIds=[image])["Images"]
    assert [told[key] for key in ("Architecture", "BootMode", "EnaSupport", "RootDeviceName", "State")] == [
        "x86_64",
        "uefi",
        True,
        "/dev/xvda",
        "available",
    ]
    assert [one["Ebs"]["SnapshotId"] for one in told["BlockDeviceMappings"]] == snapshots
    larger = [
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}},
        {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 4}},
    ]
    tags = [{"ResourceType": kind, "Tags": [{"Key": "vmferry:vm", "Value": "x"}]} for kind in ("instance", "volume")]
    made = run(aws, image, BlockDeviceMappings=larger, TagSpecifications=tags, ClientToken="once")
    assert (
        run(aws, image, BlockDeviceMappings=larger, TagSpecifications=tags, ClientToken="once")["InstanceId"]
        == (made["InstanceId"])
    )
    (found,) = aws.ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"]
    assert (found["BootMode"], found["EnaSupport"], found["RootDeviceName"]) == ("uefi", True, "/dev/xvda")
    own = aws.volumes(made["InstanceId"])
    assert {device: aws.volume_bytes(volume) for device, volume in own.items()} == {
        "/dev/xvda": block(1),
        "/dev/sdf": block(2),
        "/dev/sdg": b"",
    }
    sizes = {one["VolumeId"]: one["Size"] for one in aws.ec2.describe_volumes(VolumeIds=list(own.values()))["Volumes"]}
    assert [sizes[volume] for volume in own.values()] == [1, 3, 4]
    left = aws.leftovers()
    assert (set(left.instances), set(left.volumes)) == ({made["InstanceId"]}, set(own.values()))
    for snapshot in snapshots:
        assert refused(aws.ec2.delete_snapshot, SnapshotId=snapshot)[0] == ("InvalidSnapshot.InUse")
    aws.ec2.deregister_image(ImageId=image)
    aws.ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    for volume in list(aws.leftovers().volumes):  # which the request added
        aws.ec2.delete_volume(VolumeId=volume)
    for snapshot in snapshots:
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
    assert not aws.leftovers()


def test_images_and_types_that_do_not_go_together_are_refused_as_by_aws(aws: AwsServer) -> None:
    snapshot = snapshot_of(aws, volume_of(aws, block(1)))
    small: list[dict[str, Any]] = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeSize": 1}}]
    image_of(aws, "twice", snapshot)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"name": "twice"}, "InvalidAMIName.Duplicate"),
        ({"BootMode": "bios"}, "InvalidParameterValue"),
        ({"RootDeviceName": "/dev/sda1"}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{**small[0], "Ebs": {"SnapshotId": "snap-0"}}]}, "InvalidSnapshot.NotFound"),
        ({"BlockDeviceMappings": [{**small[0], "Ebs": {**small[0]["Ebs"], "Encrypted": True}}]}, "InvalidBlock"),
    )
    for changes, code in wrong:
        given: dict[str, Any] = {"name": "another", **changes}
        assert refused(image_of, aws, given.pop("name"), snapshot, **given)[0].startswith(code)
    kinds: tuple[tuple[dict[str, Any], str, str], ...] = (
        ({"EnaSupport": False}, "t3.micro", "InvalidParameterCombination"),
        ({"VirtualizationType": "paravirtual"}, "t3.micro", "InvalidParameterCombination"),
        ({"Architecture": "arm64"}, "t3.micro", "InvalidParameterValue"),
        ({"BootMode": "uefi"}, "t2.micro", "InvalidParameterCombination"),
        ({}, "t9.micro", "InvalidParameterValue"),
    )
    for number, (changes, kind, code) in enumerate(kinds):
        image = image_of(aws, f"wrong-{number}", snapshot, **changes)
        assert refused(run, aws, image, kind)[0] == code
    assert refused(run, aws, "ami-0")[0] == "InvalidAMIID.NotFound"
    assert refused(aws.ec2.create_volume, SnapshotId="snap-0", AvailabilityZone="us-east-1a")[0] == (
        "InvalidSnapshot.NotFound"
    )


def test_what_is_made_of_what_is_encrypted_is_encrypted_with_its_key(aws: AwsServer) -> None:
    volume = volume_of(aws, block(1), encrypted=True)
    snapshot = snapshot_of(aws, volume)
    (told,) = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    key = told["KmsKeyId"]
    assert (told["Encrypted"], ":key/" in key) == (True, True)
    restored = aws.ec2.create_volume(SnapshotId=snapshot, AvailabilityZone=f"{aws.region}a")
    assert (restored["Encrypted"], restored["KmsKeyId"]) == (True, key)
    assert aws.volume_bytes(restored["VolumeId"]) == block(1)
    started = client(aws, "ebs").start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)
    assert started["KmsKeyArn"] == key
    child = client(aws, "ebs").start_snapshot(VolumeSize=1, ParentSnapshotId=snapshot)
    (told,) = aws.ec2.describe_snapshots(SnapshotIds=[child["SnapshotId"]])["Snapshots"]
    assert (told["Encrypted"], told["KmsKeyId"], told["State"]) == (True, key, "pending")


BLOCKS = (
    ("throttle", "RequestThrottledException", 400, "ACCOUNT_THROTTLED"),
    ("error", "InternalServerException", 500, ""),
    ("denied", "AccessDeniedException", 403, "UNAUTHORIZED_ACCOUNT"),
    ("expired", "ExpiredTokenException", 403, ""),
    ("quota", "ServiceQuotaExceededException", 402, "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"),
    ("tokens", "ValidationException", 400, "INVALID_BLOCK_TOKEN"),
)
QUERIES = (
    ("throttle", "RequestLimitExceeded", 503),
    ("error", "InternalError", 500),
    ("denied", "UnauthorizedOperation", 403),
    ("expired", "RequestExpired", 400),
)


def test_calls_fail_as_they_are_told_to_and_no_others(aws: AwsServer) -> None:
    ebs, ec2 = client(aws, "ebs"), client(aws, "ec2")
    snapshot = snapshot_of(aws, volume_of(aws, block(1) + block(2)))
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]

    def get(number: int = 0) -> bytes:
        found: bytes = ebs.get_snapshot_block(SnapshotId=snapshot, **listed[number])["BlockData"].read()
        return found

    for kind, *expected in BLOCKS:
        aws.fault("GetSnapshotBlock", kind, skip=1)
        assert get() == block(1)
        assert refused(get) == tuple(expected)
        assert get() == block(1)
    for kind, code, status in QUERIES:
        aws.fault("DescribeSnapshots", kind, times=2)
        for _unused in range(2):
            assert refused(ec2.describe_snapshots)[:2] == (code, status)
        assert aws.ec2.describe_snapshots()["Snapshots"], "the administrator's calls meet none"
    aws.fault("RunInstances", "refuse", code="InsufficientInstanceCapacity", status=500)
    asked = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1}
    assert refused(ec2.run_instances, **asked)[:2] == ("InsufficientInstanceCapacity", 500)
    aws.fault("GetSnapshotBlock", "corrupt", match="blocks/1")
    assert (get(0), get(1) == block(2), get(1) == block(2)) == (block(1), False, True)
    aws.fault("GetSnapshotBlock", "truncate")
    with pytest.raises(HTTPClientError):
        get()
    aws.fault("GetSnapshotBlock", "reset", times=-1)
    for _unused in range(2):
        with pytest.raises(HTTPClientError):
            get()
    aws.heal()
    before = time.monotonic()
    aws.fault("GetSnapshotBlock", "slow", seconds=0.3)
    assert get() == block(1)
    assert time.monotonic() - before >= 0.3
    aws.fault("GetSnapshotBlock", "hang")
    with pytest.raises(HTTPClientError):
        client(aws, "ebs", read_timeout=0.3).get_snapshot_block(SnapshotId=snapshot, **listed[0])
    with pytest.raises(RuntimeError, match="there is no catastrophe"):
        aws.fault("GetSnapshotBlock", "catastrophe")


def test_a_page_may_be_empty_and_an_answer_may_be_lost(aws: AwsServer) -> None:
    ebs, ec2 = client(aws, "ebs"), client(aws, "ec2")
    volume = volume_of(aws, block(1) + block(2))
    first, second = snapshot_of(aws, volume), snapshot_of(aws, volume)
    aws.fault("ListSnapshotBlocks", "empty")
    page = ebs.list_snapshot_blocks(SnapshotId=first, StartingBlockIndex=1)
    assert page["Blocks"] == []
    assert indexes(ebs.list_snapshot_blocks(SnapshotId=first, NextToken=page["NextToken"])) == [1]
    aws.fault("ListChangedBlocks", "empty")
    assert ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)["NextToken"]
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": "vmferry:job", "Value": "lost"}]}]
    aws.fault("CreateSnapshot", "lose_answer")
    with pytest.raises(HTTPClientError):
        ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags)
    aws.fault("StartSnapshot", "lose_answer")
    with pytest.raises(HTTPClientError):
        ebs.start_snapshot(VolumeSize=1, Tags=tags[0]["Tags"])
    lost = aws.leftovers().snapshots
    assert len(lost) == 2
    for name in lost:
        aws.ec2.delete_snapshot(SnapshotId=name)


def test_calls_are_told_by_the_names_that_policies_have_and_strangers_are_turned_away(aws: AwsServer) -> None:
    aws.forget_calls()
    client(aws, "sts").get_caller_identity()
    client(aws, "ec2").describe_instances()
    snapshot = snapshot_of(aws, volume_of(aws, block(1)))
    client(aws, "ebs").list_snapshot_blocks(SnapshotId=snapshot)
    assert aws.calls() == ["sts:GetCallerIdentity", "ec2:DescribeInstances", "ebs:ListSnapshotBlocks"]
    assert aws.calls("ListSnapshotBlocks") == ["ebs:ListSnapshotBlocks"]
    stranger = "AKIANOBODY0000000001"
    assert refused(client(aws, "ec2", stranger).describe_instances)[0] == "AuthFailure"
    asked = client(aws, "ebs", stranger).list_snapshot_blocks
    assert refused(asked, SnapshotId=snapshot)[0] == "UnrecognizedClientException"
    role = {"RoleArn": f"arn:aws:iam::{aws.account}:role/r", "RoleSessionName": "session"}
    key = client(aws, "sts").assume_role(**role)["Credentials"]["AccessKeyId"]
    assert client(aws, "ec2", key).describe_instances()["Reservations"]


def test_a_large_disk_with_little_on_it_costs_little(aws: AwsServer, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for offset in (0, 5 * GIB, 64 * GIB - 1):
            file.seek(offset)
            file.write(b"x")
    (volume,) = aws.volumes(aws.make_instance("large", [path])).values()
    assert aws.blocks(volume) == [0, 5 * GIB // BLOCK, 64 * GIB // BLOCK - 1]
    assert aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 64


def test_what_the_sdk_does_not_know_is_neither_read_nor_answered() -> None:
    """The SDK's model is AWS's own; it checks requests, and drops of answers what it does not know."""
    api = RestApi("ebs")
    assert set(api.model.operation_names) == set(
        re.findall(r'"([A-Z]\w+)": self\._[a-z_]+,', (RIG / "ebs.py").read_text())
    )
    listed = api.model.operation_model("ListSnapshotBlocks")
    unknown: tuple[dict[str, Any], ...] = ({"Block": []}, {"Blocks": [{"Index": 1}]})
    for wrong in unknown:
        with pytest.raises(KeyError):
            api.answer(listed, wrong)
    for wrong in ({"VolumeSize": "1"}, {"NextToken": "a-b"}, {"NextToken": "a" * 300}):
        with pytest.raises(AssertionError):
            api.answer(listed, wrong)
    for error in (
        ApiError("ValidationException", "", "INVALID_SNAPSHOT_STATE"),
        ApiError("AccessDeniedException", ""),
    ):
        with pytest.raises(AssertionError):
            api.error(listed, error)
    with pytest.raises(KeyError):
        api.error(listed, ApiError("ConflictException", ""))
    with pytest.raises(AssertionError, match="knows no"):
        api.read(listed, {"snapshotId": "snap-0"}, {"QUERY_STRING": "maxResult=100"}, b"")
    with pytest.raises(ApiError):
        api.read(listed, {"snapshotId": "snap-0"}, {"QUERY_STRING": "maxResults=99"}, b"")
    known: Any = get_session().get_service_model("ec2")
    operations = ("RegisterImage", "RunInstances", "CreateSnapshots")
    shapes: list[Any] = [known.operation_model(name).input_shape for name in operations]
    for name in ("InstanceSpecification", "BlockDeviceMappings"):
        shapes += [shape.members[name] for shape in list(shapes) if name in shape.members]
    members = {member for shape in shapes for member in getattr(shape, "members", {})}
    sources = "".join((RIG / f"ec2_{name}.py").read_text() for name in ("disks", "images"))
    read = set(re.findall(r'(?:asked|given)(?:\.get\(|\[)"(\w+)"|_get_param\("(\w+)"', sources))
    assert len(read) > 10
    started: Any = api.model.operation_model("StartSnapshot").input_shape
    assert {one or other for one, other in read} <= members | set(started.members) | {"DeviceName", "Ebs"}
