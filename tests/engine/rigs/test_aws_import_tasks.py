# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig's tasks that import snapshots do what the API says, and refuse what it does not know."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rigs.aws import AwsServer

BUCKET, DATA = "imported", b"boot" * 1000


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with AwsServer() as started:
        started.client("s3").create_bucket(Bucket=BUCKET)
        yield started


@pytest.fixture(scope="module")
def image(aws: AwsServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("image")
    raw, packed = folder / "raw", folder / "packed"
    raw.write_bytes(DATA.ljust(1 << 20, b"\0"))
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, packed]
    subprocess.run(command, check=True)
    aws.client("s3").put_object(Bucket=BUCKET, Key="disk.vmdk", Body=Path(packed).read_bytes())
    return "disk.vmdk"


def begin(aws: AwsServer, image: str, kind: str = "VMDK", bucket: str = BUCKET, **changed: Any) -> str:
    container = {"Format": kind, "UserBucket": {"S3Bucket": bucket, "S3Key": image}}
    return str(aws.ec2.import_snapshot(DiskContainer=container, **changed)["ImportTaskId"])


def look(aws: AwsServer, task: str) -> dict[str, Any]:
    (told,) = aws.ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"]
    return dict(told)


def refused(work: Any, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        work()
    assert caught.value.response["Error"]["Code"] == code


def test_a_task_takes_its_polls_and_makes_a_snapshot_without_tags_of_what_the_image_has(
    aws: AwsServer, image: str
) -> None:
    aws.import_tasks(polls=2)
    tags = [{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "vmferry:job", "Value": "1"}]}]
    task = begin(aws, image, TagSpecifications=tags, Encrypted=True)
    told = [look(aws, task)["SnapshotTaskDetail"] for _unused in range(3)]
    assert [one["Status"] for one in told] == ["active", "active", "completed"]
    assert told[0]["Progress"] == "30"
    assert (told[2]["DiskImageSize"], told[2]["Format"]) == (1.0, "VMDK")
    (snapshot,) = aws.ec2.describe_snapshots(SnapshotIds=[told[2]["SnapshotId"]])["Snapshots"]
    assert (snapshot["VolumeSize"], snapshot["Encrypted"], snapshot.get("Tags", [])) == (1, True, [])
    assert task in snapshot["Description"]
    assert aws.snapshot_bytes(snapshot["SnapshotId"], 5000) == DATA + bytes(1000)
    refused(lambda: aws.ec2.cancel_import_task(ImportTaskId=task), "IncorrectState")


def test_tags_of_a_task_are_added_and_taken(aws: AwsServer, image: str) -> None:
    task = begin(aws, image)
    aws.ec2.create_tags(Resources=[task], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    aws.ec2.delete_tags(Resources=[task], Tags=[{"Key": "a"}, {"Key": "b", "Value": "3"}])
    assert look(aws, task)["Tags"] == [{"Key": "b", "Value": "2"}]


def test_a_task_can_fail_and_be_cancelled_and_its_token_makes_it_one(aws: AwsServer, image: str) -> None:
    aws.import_tasks(ends="failed", message="ClientError: Disk validation failed", polls=0)
    told = look(aws, begin(aws, image))["SnapshotTaskDetail"]
    assert (told["Status"], told["StatusMessage"]) == ("deleted", "ClientError: Disk validation failed")
    assert "SnapshotId" not in told
    aws.import_tasks(ends="never")
    task = begin(aws, image, ClientToken="one")
    assert begin(aws, image, ClientToken="one") == task
    assert aws.ec2.cancel_import_task(ImportTaskId=task)["PreviousState"] == "active"
    assert look(aws, task)["SnapshotTaskDetail"]["Status"] == "deleted"


def test_what_the_api_does_not_know_is_refused(aws: AwsServer, image: str) -> None:
    refused(lambda: begin(aws, image, "QCOW2"), "InvalidParameter")
    refused(lambda: begin(aws, "gone.vmdk"), "InvalidParameter")
    refused(lambda: begin(aws, image, bucket="elsewhere"), "InvalidParameter")
    refused(lambda: begin(aws, image, DryRun=True), "DryRunOperation")
    refused(lambda: begin(aws, image, KmsKeyId="key"), "InvalidParameterCombination")
    snapshot = [{"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "1"}]}]
    refused(lambda: begin(aws, image, TagSpecifications=snapshot), "InvalidParameterValue")
    refused(lambda: aws.ec2.cancel_import_task(ImportTaskId="import-snap-0123"), "InvalidConversionTaskId")
