# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports by a task of VM Import/Export: what is in them, what is refused before, and that nothing of a task stays."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import (
    snapshot_set,
    vendor_checks,
    vendor_export,
    vendor_task,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.native_files import native_files
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.staged_image import StagedPlace
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import VendorTask
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from rigs.aws import AwsServer
from rigs.aws.blocks import GIB

from .dying import die_at
from .exports import Exports, disk

BUCKET = "staging-of-tests"


WITHOUT_ROLE = {"ec2:CreateInstanceExportTask", "ec2:DescribeExportTasks", "s3:GetBucketAcl"}


class Staging:
    def __init__(self, aws: AwsServer) -> None:
        self.s3 = aws.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)

    def let_aws_write(self, *permissions: str) -> None:
        """By its ACL."""
        told = self.s3.get_bucket_acl(Bucket=BUCKET)
        aws = {"Type": "CanonicalUser", "ID": "c4d8eabf8db69dbe46bfe0e517100c554f01200b104d59cd408e777ba442a322"}
        grants = [*told["Grants"], *({"Grantee": aws, "Permission": one} for one in permissions)]
        policy = {"Owner": told["Owner"], "Grants": grants}
        self.s3.put_bucket_acl(Bucket=BUCKET, AccessControlPolicy=policy)

    def keys(self) -> list[str]:
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def close(self) -> None:
        for key in self.keys():
            self.s3.delete_object(Bucket=BUCKET, Key=key)
        self.s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def exports(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.02)
    monkeypatch.setattr(vendor_task, "LOOK_EVERY", 0.02)
    aws.export_tasks(polls=1)
    return Exports(aws, tmp_path)


@pytest.fixture
def staging(aws: AwsServer) -> Iterator[Staging]:
    made = Staging(aws)
    yield made
    made.close()


def by_task(**options: Any) -> dict[str, Any]:
    task = VendorTask(**{"staging": f"s3://{BUCKET}/vms", "poll_interval": 0.02, "timeout": 60.0, **options})
    return {"method": "vendor_task", "vendor_task": task}


def images(aws: AwsServer, vm: str) -> list[str]:
    ours = [{"Name": "tag:vmferry:vm", "Values": [vm]}]
    return [one["Name"] for one in aws.ec2.describe_images(Owners=["self"], Filters=ours)["Images"]]


def assert_nothing_stays(aws: AwsServer, exports: Exports, vm: str, staging: Staging) -> None:
    assert (staging.keys(), images(aws, vm), exports.snapshots(vm)) == ([], [], [])
    assert not {"active", "deleting"} & set(aws.export_tasks().values())


def described(aws: AwsServer, vm: str) -> VmSpec:
    return AwsProvider(aws.settings()).describe(vm)


def refused(work: Any, kind: str, words: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        work()
    assert caught.value.kind == kind, caught.value
    assert words in str(caught.value)
    return caught.value


def documented(page: str) -> set[str]:
    text = (Path(__file__).resolve().parents[3] / "docs" / page).read_text()
    return set(re.findall(r"\b(?:ec2|s3|iam):\w+", text))


def test_the_image_that_aws_writes_is_read_into_the_export_and_nothing_of_it_stays(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    data = disk(1, 0, 2, 3) + bytes(100 << 20) + disk(7)
    vm = aws.make_instance("web", [data])
    made = exports.make(vm, **by_task())["export"]
    exports.assert_content(made, [data])
    assert (made["mode"], made["consistency"], made["change_token"]) == ("full", "crash_consistent", "")
    besides = aws.permissions() - documented("aws_exports.md") - {"sts:GetCallerIdentity"}
    of_image = documented("aws_export_tasks.md") - WITHOUT_ROLE
    assert besides == of_image - {"ec2:CancelExportTask"}, "which is for those that fail"
    assert not [call for call in aws.calls() if call.startswith("ebs:")]
    assert_nothing_stays(aws, exports, vm, staging)


def test_the_disk_that_is_asked_for_is_exported_powered_off_and_in_another_format(
    aws: AwsServer, exports: Exports, staging: Staging, tmp_path: Path
) -> None:
    vm, expected = aws.make_instance("off", [disk(4), disk(5)], running=False), tmp_path / "expected"
    options = {"disks": ("disk-0",), "consistency": "powered_off", "format": "vhdx"}
    made = exports.make(vm, **options, **by_task(staging=f"s3://{BUCKET}"))["export"]
    expected.write_bytes(disk(4))
    os.truncate(expected, GIB)
    image = made["disks"][0]["url"].removeprefix("file://")
    subprocess.run(["qemu-img", "compare", "-f", "vhdx", "-F", "raw", image, str(expected)], check=True)
    assert made["consistency"] == "powered_off"
    assert_nothing_stays(aws, exports, vm, staging)


def test_the_image_stays_in_the_bucket_where_that_is_asked_and_its_place_is_told(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm = aws.make_instance("left", [disk(1)])
    told = exports.make(vm, **by_task(cleanup=False))
    (key,) = staging.keys()
    assert key.startswith("vms/vmferry-")
    assert any(f"s3://{BUCKET}/{key.rpartition('/')[0]}/" in one for one in told["warnings"])
    assert (images(aws, vm), exports.snapshots(vm)) == ([], [])


def test_an_increment_behind_one_by_ebs_direct_falls_back_and_says_why(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm = aws.make_instance("both", [disk(1, 2)])
    exports.make(vm)
    aws.write(exports.volumes(vm)[0], 0, b"new")
    made = exports.make(vm, **by_task())["export"]
    assert made["mode"] == "full"
    assert "does not tell what changed" in made["fell_back"]
    exports.assert_content(made, [b"new" + disk(1, 2)[3:]])


def test_questions_that_are_not_answered_do_not_end_the_wait(
    aws: AwsServer, exports: Exports, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, sleep = aws.make_instance("patient", [disk(1)]), Flow.sleep
    slept: list[float] = []
    monkeypatch.setattr(Flow, "sleep", lambda self, seconds: (slept.append(seconds), sleep(self, seconds))[1])
    aws.export_tasks(polls=3)
    aws.fault("DescribeExportImageTasks", "refuse", skip=2, times=1, code="InvalidExportTaskID.NotFound")
    aws.fault("DescribeExportImageTasks", "reset", skip=2, times=2)
    made = exports.make(vm, **by_task(poll_interval=0.037))["export"]
    exports.assert_content(made, [disk(1)])
    assert slept.count(0.037) >= 4, "three looks at a task that runs, and one that was not answered"


def test_a_task_and_an_ami_whose_answers_are_lost_are_made_once(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm, before = aws.make_instance("once", [disk(1)]), len(aws.export_tasks())
    aws.fault("RegisterImage", "lose_answer")
    aws.fault("ExportImage", "lose_answer", skip=1)  # behind the dry run
    exports.make(vm, **by_task())
    assert len(aws.export_tasks()) == before + 1
    assert_nothing_stays(aws, exports, vm, staging)


def test_why_aws_ended_a_task_is_told_and_nothing_stays(aws: AwsServer, exports: Exports, staging: Staging) -> None:
    vm = aws.make_instance("failing", [disk(1)])
    aws.export_tasks(ends="failed", message="ClientError: Unsupported kernel version.")
    refused(lambda: exports.make(vm, **by_task()), "conflict", "failing: ClientError: Unsupported kernel version.")
    assert_nothing_stays(aws, exports, vm, staging)


def test_a_task_that_takes_too_long_is_cancelled(aws: AwsServer, exports: Exports, staging: Staging) -> None:
    vm = aws.make_instance("slow", [disk(1)])
    aws.export_tasks(ends="never")
    refused(lambda: exports.make(vm, **by_task(timeout=0.3)), "timeout", "was not done within 0.3 s")
    assert aws.calls("CancelExportTask")
    assert_nothing_stays(aws, exports, vm, staging)


def test_a_task_that_ends_while_it_is_cancelled_leaves_no_image(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm = aws.make_instance("racing", [disk(1)])
    aws.export_tasks(polls=1)
    aws.fault("DescribeExportImageTasks", "denied", skip=2)
    aws.fault("CancelExportTask", "refuse", code="IncorrectState")
    refused(lambda: exports.make(vm, **by_task()), "permission_denied", "Waiting for the task")
    assert_nothing_stays(aws, exports, vm, staging)


def test_ranges_that_do_not_arrive_are_asked_for_again(aws: AwsServer, exports: Exports, staging: Staging) -> None:
    vm = aws.make_instance("cut", [disk(1, 2, 3)])
    aws.fault("GET", "truncate", match=".vmdk", skip=2, times=2)
    exports.assert_content(exports.make(vm, **by_task())["export"], [disk(1, 2, 3)])


def test_an_image_that_is_of_another_disk_or_none_is_refused(
    aws: AwsServer, exports: Exports, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = aws.make_instance("forged", [disk(1)])
    wait = vendor_task.wait_until_completed
    forged: list[bytes] = [b'# Disk DescriptorFile\nRW 2097152 FLAT "/etc/shadow" 0\n', b"\0" * 70000]

    def forge(*arguments: Any) -> None:
        wait(*arguments)
        (key,) = staging.keys()
        staging.s3.put_object(Bucket=BUCKET, Key=key, Body=forged.pop())

    monkeypatch.setattr(vendor_export, "wait_until_completed", forge)
    for _unused in range(2):
        refused(lambda: exports.make(vm, **by_task()), "invalid_config", "is not opened")
        assert_nothing_stays(aws, exports, vm, staging)


def test_what_a_killed_run_left_is_removed_by_the_next(aws: AwsServer, exports: Exports, staging: Staging) -> None:
    vm = aws.make_instance("killed", [disk(1, 2)])
    die_at("vendor_task_completed", exports.request(vm, **by_task()))
    assert len(staging.keys()) == 1
    made = exports.make(vm, **by_task())["export"]
    exports.assert_content(made, [disk(1, 2)])
    assert_nothing_stays(aws, exports, vm, staging)


@pytest.mark.parametrize("failpoint", ["vendor_image_registered", "vendor_task_started", "vendor_task_ended"])
def test_what_a_killed_run_left_is_removed_when_its_job_is_cancelled(
    aws: AwsServer, exports: Exports, staging: Staging, provider: AwsProvider, failpoint: str
) -> None:
    vm = aws.make_instance(f"undone-{failpoint}", [disk(1)])
    aws.export_tasks(ends="completed" if failpoint == "vendor_task_ended" else "never")
    die_at(failpoint, exports.request(vm, **by_task()))
    (snapshot,) = exports.snapshots(vm)
    (job,) = (tag["Value"] for tag in snapshot["Tags"] if tag["Key"] == "vmferry:job")
    assert [snapshot["SnapshotId"] in said for said in provider.undo(job)] == [True]
    assert_nothing_stays(aws, exports, vm, staging)


def test_what_is_left_of_a_task_goes_before_the_snapshots_that_tell_of_it(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm = aws.make_instance("kept", [disk(1)])
    aws.fault("DELETE", "denied", match=".vmdk", times=-1)
    told = exports.make(vm, **by_task())
    assert any("may not be removed" in one for one in told["warnings"])
    assert (len(staging.keys()), len(images(aws, vm)), len(exports.snapshots(vm))) == (1, 1, 1)
    aws.heal()


def test_a_cancel_is_noticed_while_the_task_runs(
    aws: AwsServer, exports: Exports, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, wait = aws.make_instance("unwanted", [disk(1)]), vendor_task.wait_until_completed
    aws.export_tasks(ends="never")

    def cancelled(session: Session, flow: Flow, *more: Any) -> None:
        threading.Timer(0.2, flow.request_cancel, ["the test wants it"]).start()
        wait(session, flow, *more)

    monkeypatch.setattr(vendor_export, "wait_until_completed", cancelled)
    begun = time.monotonic()
    refused(lambda: exports.make(vm, **by_task(poll_interval=3600.0, timeout=7200.0)), "cancelled", "test wants it")
    assert time.monotonic() - begun < 60
    assert_nothing_stays(aws, exports, vm, staging)


def test_what_aws_does_not_export_is_refused_with_a_sentence_before_anything_is_made(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    two = aws.make_instance("two", [disk(1), disk(2)])
    error = refused(lambda: exports.make(two, **by_task()), "unsupported", "the boot disk of a VM, and that alone")
    assert "disks: [disk-0]" in error.hint
    refused(lambda: exports.make(two, disks=("disk-1",), **by_task()), "unsupported", "not /dev/sdb of two")
    secret = aws.make_instance("secret", [b""], encrypted=True)
    refused(lambda: exports.make(secret, **by_task()), "unsupported", "no encrypted volumes")
    large = aws.make_instance("large", [b""], sizes=[1025])
    refused(lambda: exports.make(large, **by_task()), "unsupported", "up to 1 TiB")
    spec, task = described(aws, two), by_task()["vendor_task"]
    session = Session(AwsSettings.from_options(aws.settings()))
    for changed, words in (
        ({"guest_os": "Windows with SQL Server Standard"}, "no Windows or SQL Server"),
        ({"details": {**spec.details, "product_codes": ["6njl1pau431dv1qxipg63mvah"]}}, "Marketplace"),
    ):
        told = vendor_checks.vendor_findings(session, replace(spec, **changed), spec.disks[:1], task)
        assert [one.severity for one in told if words in one.message] == ["error"]
    assert exports.snapshots(two) == []


def test_buckets_that_aws_cannot_write_to_are_refused(aws: AwsServer, exports: Exports, staging: Staging) -> None:
    vm = aws.make_instance("where", [disk(1)])
    refused(lambda: exports.make(vm, **by_task(staging="s3://no-such-bucket")), "not_found", "no-such-bucket")
    refused(lambda: exports.make(vm, **by_task(staging="/srv/staging")), "invalid_config", "no bucket of S3")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    staging.s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
    refused(lambda: exports.make(vm, **by_task()), "unsupported", "encrypted by KMS")
    staging.s3.delete_bucket_encryption(Bucket=BUCKET)
    far = aws.client("s3")
    far.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    refused(lambda: exports.make(vm, **by_task(staging="s3://far-away")), "invalid_config", "is in eu-central-1")
    far.delete_bucket(Bucket="far-away")
    assert exports.snapshots(vm) == []


def test_check_mode_tells_of_the_account_and_the_bucket_and_makes_nothing(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm, before = aws.make_instance("planned", [disk(1)]), len(aws.export_tasks())
    staging.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    aws.fault("ExportImage", "denied")
    told = [one["message"] for one in exports.make(vm, check_mode=True, **by_task())["findings"]]
    assert any("older version" in one for one in told)
    assert any("Starting a task to export planned" in one for one in told)
    assert not any("GetSnapshotBlock" in one for one in told)
    assert len(aws.export_tasks()) == before
    assert_nothing_stays(aws, exports, vm, staging)
    staging.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})


def test_the_role_is_the_one_that_is_asked_for(aws: AwsServer, exports: Exports, staging: Staging) -> None:
    vm = aws.make_instance("role", [disk(1)])
    aws.fault("ExportImage", "denied", match="RoleName=exporter", skip=1)
    refused(lambda: exports.make(vm, **by_task(role="exporter")), "permission_denied", "Starting the task")
    assert_nothing_stays(aws, exports, vm, staging)


@pytest.mark.parametrize("method", ["direct", "vendor_task"])
def test_other_providers_have_no_choice_of_a_method(tmp_path: Path, method: str) -> None:
    spec = ProviderSpec("image", {"url": tmp_path.as_uri()})
    task = by_task()["vendor_task"] if method == "vendor_task" else None
    request = ExportRequest(
        spec, StoreSpec((tmp_path / "store").as_uri()), "web.img", method=method, vendor_task=task,
        transfer=TransferOptions(state_dir=str(tmp_path / "state")),
    )  # fmt: skip
    error = refused(lambda: export_vm(request, False), "unsupported", f"The method {method} is one of provider aws")
    assert error.hint == "Leave method out."


def test_a_tag_that_names_another_place_removes_nothing_there() -> None:
    place = "s3://bucket/x/vmferry-job-0123abcd/"
    own = {"vmferry:attempt": "0123abcd", "vmferry:staging": place}
    assert StagedPlace.of_tags(own) == StagedPlace("bucket", "x/vmferry-job-0123abcd/")
    for other in ("s3://bucket/", "s3://bucket/x/", place.replace("0123", "9999"), f"{place}../", "bucket", ""):
        assert StagedPlace.of_tags({**own, "vmferry:staging": other}) is None


def test_without_a_role_aws_writes_the_instance_itself_and_nothing_of_it_stays(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    staging.let_aws_write("WRITE", "READ_ACP")
    data = disk(1, 0, 2) + bytes(100 << 20) + disk(7)
    vm, before = aws.make_instance("bare", [data], running=False), set(aws.export_tasks())
    made = exports.make(vm, **by_task(role=""))["export"]
    exports.assert_content(made, [data])
    (task,) = set(aws.export_tasks()) - before
    assert task.startswith("export-i-")
    assert not {"RegisterImage", "ExportImage"} & {call.partition(":")[2] for call in aws.calls()}
    besides = aws.permissions() - documented("aws_exports.md") - {"sts:GetCallerIdentity"}
    assert WITHOUT_ROLE <= besides <= documented("aws_export_tasks.md")
    assert_nothing_stays(aws, exports, vm, staging)


def test_an_instance_that_is_off_stays_off_until_it_is_written(
    aws: AwsServer, exports: Exports, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.let_aws_write("WRITE", "READ_ACP")
    vm, wait = aws.make_instance("started", [disk(3)], running=False), vendor_task.wait_until_completed
    options = {"consistency": "powered_off", **by_task(role="", cleanup=False)}
    assert exports.make(vm, **options)["export"]["consistency"] == "powered_off"
    assert len(staging.keys()) == 1

    def started(*arguments: Any) -> None:
        wait(*arguments)
        aws.ec2.start_instances(InstanceIds=[vm])

    monkeypatch.setattr(vendor_export, "wait_until_completed", started)
    refused(lambda: exports.make(vm, mode="full", **options), "conflict", "started was started meanwhile")
    assert len(staging.keys()) == 1


def test_an_instance_that_runs_is_not_given_to_a_task_that_may_reboot_it(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    staging.let_aws_write("WRITE", "READ_ACP")
    vm, before = aws.make_instance("runs-on", [disk(1)]), len(aws.export_tasks())
    refused(lambda: exports.make(vm, **by_task(role="")), "conflict", "AWS may reboot runs-on")
    assert len(aws.export_tasks()) == before
    assert_nothing_stays(aws, exports, vm, staging)


def test_an_instance_that_was_started_before_its_task_begins_is_not_exported(
    aws: AwsServer, exports: Exports, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.let_aws_write("WRITE", "READ_ACP")
    vm, before = aws.make_instance("early", [disk(1)], running=False), len(aws.export_tasks())
    insist = vendor_checks.insist_on_one_disk

    def started(*arguments: Any) -> Any:
        aws.ec2.start_instances(InstanceIds=[vm])
        return insist(*arguments)

    monkeypatch.setattr(vendor_export, "insist_on_one_disk", started)
    refused(lambda: exports.make(vm, **by_task(role="")), "conflict", "AWS may reboot early")
    assert len(aws.export_tasks()) == before
    assert_nothing_stays(aws, exports, vm, staging)


def test_a_task_of_an_instance_that_fails_or_takes_too_long_leaves_nothing(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    staging.let_aws_write("WRITE", "READ_ACP")
    vm, before = aws.make_instance("trouble", [disk(1)], running=False), len(aws.export_tasks())
    aws.export_tasks(ends="failed", message="ClientError: Unsupported kernel version.")
    refused(lambda: exports.make(vm, **by_task(role="")), "conflict", "trouble: ClientError: Unsupported kernel")
    aws.export_tasks(ends="never")
    aws.fault("CreateInstanceExportTask", "lose_answer", times=8)
    refused(lambda: exports.make(vm, **by_task(role="", timeout=0.3)), "conflict", "AWS began 8 tasks")
    aws.heal()
    refused(lambda: exports.make(vm, **by_task(role="", timeout=0.3)), "timeout", "was not done within 0.3 s")
    assert len(aws.export_tasks()) == before + 10
    assert_nothing_stays(aws, exports, vm, staging)


def test_a_killed_run_that_had_a_task_of_an_instance_is_undone(
    aws: AwsServer, exports: Exports, staging: Staging, provider: AwsProvider
) -> None:
    staging.let_aws_write("WRITE", "READ_ACP")
    vm = aws.make_instance("undone-bare", [disk(1)], running=False)
    aws.export_tasks(ends="never")
    die_at("vendor_task_started", exports.request(vm, **by_task(role="")))
    assert "active" in aws.export_tasks().values()
    (snapshot,) = exports.snapshots(vm)
    (job,) = (tag["Value"] for tag in snapshot["Tags"] if tag["Key"] == "vmferry:job")
    assert [snapshot["SnapshotId"] in said for said in provider.undo(job)] == [True]
    assert_nothing_stays(aws, exports, vm, staging)


def test_what_aws_does_not_export_of_an_instance_is_refused_with_a_sentence(
    aws: AwsServer, exports: Exports, staging: Staging
) -> None:
    vm = aws.make_instance("plain", [disk(1)], running=False)
    refused(lambda: exports.make(vm, **by_task(role="")), "invalid_config", "WRITE and READ_ACP to nobody else")
    staging.let_aws_write("READ_ACP", "READ")
    refused(lambda: exports.make(vm, **by_task(role="")), "invalid_config", "WRITE and READ_ACP to nobody else")
    spec, task = described(aws, vm), by_task(role="")["vendor_task"]
    session = Session(AwsSettings.from_options(aws.settings()))
    two_disks = (*spec.disks, replace(spec.disks[0], id="disk-1", boot=False))
    for changed, severity, words in (
        ({"disks": two_disks}, "error", "instances of one disk, and plain has 2"),
        ({"nics": spec.nics * 2}, "error", "one network card, and plain has 2"),
        ({"details": {**spec.details, "instance_store_gb": 75}}, "error", "no instance with an instance store"),
        ({"details": {**spec.details, "image_id": "ami-0123456789abcdef0"}}, "warning", "AMI ami-0123456789abcdef0 of"),
    ):
        told = vendor_checks.vendor_findings(session, replace(spec, **changed), spec.disks, task)
        assert [one.severity for one in told if words in one.message] == [severity], words
    aws.fault("GET", "denied", match="?acl")
    told = vendor_checks.vendor_findings(session, spec, spec.disks, task)
    assert [one.severity for one in told if "Looking who may write" in one.message] == ["warning"]
    assert exports.snapshots(vm) == []


def test_an_instance_that_vanishes_is_told_of(aws: AwsServer) -> None:
    spec = replace(described(aws, aws.make_instance("vanishing")), id="i-0123456789abcdef0")
    session = Session(AwsSettings.from_options(aws.settings()))
    refused(lambda: native_files(session, spec), "not_found", "is gone")
