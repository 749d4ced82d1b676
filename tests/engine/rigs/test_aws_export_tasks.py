# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig's tasks of VM Import/Export do what the API says, and refuse what it does not know."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rigs.aws import AwsServer
from rigs.aws.blocks import GIB


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with AwsServer() as started:
        started.client("s3").create_bucket(Bucket="exported")
        yield started


@pytest.fixture(scope="module")
def image(aws: AwsServer) -> str:
    volume = aws.volumes(aws.make_instance("exported", [b"boot" * 1000]))["/dev/sda1"]
    snapshot = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    aws.ec2.describe_snapshots(SnapshotIds=[snapshot])
    mapped = [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}]
    made: str = aws.ec2.register_image(Name="exported", RootDeviceName="/dev/sda1", BlockDeviceMappings=mapped)[
        "ImageId"
    ]
    return made


def begin(aws: AwsServer, image: str, **changed: Any) -> str:
    asked = {
        "DiskImageFormat": "VMDK",
        "ImageId": image,
        "S3ExportLocation": {"S3Bucket": "exported", "S3Prefix": "a/"},
    }
    return str(aws.ec2.export_image(**{**asked, **changed})["ExportImageTaskId"])


def look(aws: AwsServer, task: str) -> dict[str, Any]:
    (told,) = aws.ec2.describe_export_image_tasks(ExportImageTaskIds=[task])["ExportImageTasks"]
    return dict(told)


def refused(work: Any, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        work()
    assert caught.value.response["Error"]["Code"] == code


def test_a_task_takes_its_polls_and_writes_what_the_snapshot_has(aws: AwsServer, image: str, tmp_path: Path) -> None:
    aws.export_tasks(polls=2)
    tags = [{"ResourceType": "export-image-task", "Tags": [{"Key": "vmferry:job", "Value": "1"}]}]
    task = begin(aws, image, TagSpecifications=tags)
    told = [look(aws, task) for _unused in range(3)]
    assert [one["Status"] for one in told] == ["active", "active", "completed"]
    assert told[0]["Progress"] == "30"
    assert told[0]["Tags"] == tags[0]["Tags"]
    image_file, disk = tmp_path / "image", tmp_path / "disk"
    image_file.write_bytes(aws.client("s3").get_object(Bucket="exported", Key=f"a/{task}.vmdk")["Body"].read())
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(image_file), str(disk)], check=True)
    with disk.open("rb") as file:
        assert file.read(5000) == b"boot" * 1000 + bytes(1000)
    assert disk.stat().st_size == GIB
    refused(lambda: aws.ec2.cancel_export_task(ExportTaskId=task), "IncorrectState")


def test_a_task_can_fail_and_be_cancelled_and_its_token_makes_it_one(aws: AwsServer, image: str) -> None:
    aws.export_tasks(ends="failed", message="ClientError: Unsupported kernel", polls=0)
    told = look(aws, begin(aws, image))
    assert (told["Status"], told["StatusMessage"]) == ("deleted", "ClientError: Unsupported kernel")
    aws.export_tasks(ends="never")
    task = begin(aws, image, ClientToken="one")
    assert begin(aws, image, ClientToken="one") == task
    assert look(aws, task)["Status"] == "active"
    aws.ec2.cancel_export_task(ExportTaskId=task)
    assert look(aws, task)["Status"] == "deleted"


def test_what_the_api_does_not_know_is_refused(aws: AwsServer, image: str) -> None:
    refused(lambda: begin(aws, "ami-0123456789abcdef0"), "InvalidAMIID.NotFound")
    refused(lambda: begin(aws, image, DiskImageFormat="QCOW2"), "InvalidParameterValue")
    refused(lambda: begin(aws, image, S3ExportLocation={"S3Bucket": "elsewhere"}), "InvalidParameter")
    refused(lambda: begin(aws, image, DryRun=True), "DryRunOperation")
    refused(lambda: look(aws, "export-ami-0123456789abcdef0"), "InvalidExportTaskID.NotFound")


def test_a_task_writes_the_instance_as_it_was_when_it_began(aws: AwsServer, tmp_path: Path) -> None:
    aws.export_tasks(polls=1)
    vm = aws.make_instance("itself", [b"boot" * 1000])
    place = {"DiskImageFormat": "VMDK", "S3Bucket": "exported", "S3Prefix": "b/"}

    def start() -> str:
        made = aws.ec2.create_instance_export_task(InstanceId=vm, TargetEnvironment="vmware", ExportToS3Task=place)
        return str(made["ExportTask"]["ExportTaskId"])

    refused(start, "AuthFailure")
    s3 = aws.client("s3")
    acl = s3.get_bucket_acl(Bucket="exported")
    grants = [{"Grantee": {"Type": "CanonicalUser", "ID": "aws"}, "Permission": one} for one in ("WRITE", "READ_ACP")]
    policy = {"Owner": acl["Owner"], "Grants": [*acl["Grants"], *grants]}
    s3.put_bucket_acl(Bucket="exported", AccessControlPolicy=policy)
    task = start()
    aws.write(aws.volumes(vm)["/dev/sda1"], 0, b"late")
    told = [aws.ec2.describe_export_tasks(ExportTaskIds=[task])["ExportTasks"][0] for _unused in range(2)]
    assert [one["State"] for one in told] == ["active", "completed"]
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(s3.get_object(Bucket="exported", Key=told[1]["ExportToS3Task"]["S3Key"])["Body"].read())
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(image), str(disk)], check=True)
    with disk.open("rb") as file:
        assert file.read(4000) == b"boot" * 1000
    refused(lambda: aws.ec2.cancel_export_task(ExportTaskId=task), "IncorrectState")
    aws.export_tasks(ends="never")
    task = start()
    aws.ec2.cancel_export_task(ExportTaskId=task)
    assert aws.ec2.describe_export_tasks(ExportTaskIds=[task])["ExportTasks"][0]["State"] == "cancelled"
    refused(
        lambda: aws.ec2.cancel_export_task(ExportTaskId="export-i-0123456789abcdef0"), "InvalidExportTaskID.NotFound"
    )
    two = aws.make_instance("two", [b"", b""])
    asked = {"TargetEnvironment": "vmware", "ExportToS3Task": place}
    refused(lambda: aws.ec2.create_instance_export_task(InstanceId=two, **asked), "UnsupportedOperation")
