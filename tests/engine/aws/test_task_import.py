# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports by tasks of VM Import/Export: what is on the disks, what is refused, and that nothing of the tasks stays."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ImportRequest,
    JobRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import (
    import_mark,
    import_task,
    task_import,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_hardware import new_disks
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_mark import ImportMark
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_staging import insist_on_image
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.snapshot_owner import OWNER
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement, ReadDisk, VendorTask
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress
from rigs.aws import AwsServer

from .importing import BLOCK, EXPORT, KIB, MIB, Memory, a_vm, in_no_time, killed_run, noise

pytestmark = pytest.mark.slow
BUCKET = "images-of-tests"
ROOT = noise(6, 2 * MIB) + bytes(3 * MIB) + noise(7, 5 * KIB)
DATA = bytes(BLOCK) + noise(8, BLOCK)
GIB = 1 << 30
TIB = 1 << 40


class Runs:
    """Of a disk image, or of an archive of two."""

    def __init__(self, aws: AwsServer, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        self.provider = ProviderSpec("aws", aws.settings())
        self.s3 = aws.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        self.image = folder / "disk.raw"
        self.image.write_bytes(ROOT)

    def request(self, name: str, job_id: str = "", **asked: Any) -> ImportRequest:
        task = {name: asked.pop(name) for name in list(asked) if name in VendorTask.__dataclass_fields__}
        wish = VendorTask(**{"staging": f"s3://{BUCKET}/vms", "poll_interval": 0.02, "timeout": 60.0, **task})
        placement = Placement(**{"name": name, "power_on": True, **asked})
        return ImportRequest(
            self.provider,
            StoreSpec(self.image.as_uri()),
            placement,
            networks=(),
            method="vendor_task",
            vendor_task=wish,
            transfer=TransferOptions(state_dir=str(self.folder / "state"), job_id=job_id),
        )

    def bring(self, name: str, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        return import_vm(self.request(name, **asked), check_mode)

    def clean_up(self) -> None:
        """As the next run does before all else."""
        with closing(AwsProvider(self.aws.settings())) as provider:
            provider.import_by("vendor_task", VendorTask(f"s3://{BUCKET}/vms"))
            provider.clean_up_imports()

    def keys(self) -> list[str]:
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def uploads(self) -> list[str]:
        return [one["Key"] for one in self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def snapshots(self) -> set[str]:
        """All that were not made of volumes of the tests' machines, with tags or without."""
        found = self.aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
        return {one["SnapshotId"] for one in found if one["VolumeId"] == "vol-ffffffff"}

    def close(self) -> None:
        for key in self.keys():
            self.s3.delete_object(Bucket=BUCKET, Key=key)
        self.s3.delete_bucket(Bucket=BUCKET)
        for image in self.aws.leftovers().images:
            self.aws.ec2.deregister_image(ImageId=image)
        for snapshot in self.snapshots():
            self.aws.ec2.delete_snapshot(SnapshotId=snapshot)

    def assert_no_traces(self) -> None:
        """Of tasks and of what they read."""
        assert (self.keys(), self.uploads()) == ([], [])
        told = self.aws.import_tasks().values()
        assert not [one for one in told if one["state"] in ("active", "deleting") or "vmferry:state" in one["tags"]]

    def assert_nothing(self) -> None:
        self.assert_no_traces()
        left = self.aws.leftovers()
        assert (self.snapshots(), left.images, left.instances, left.volumes) == (set(), {}, {}, {})


@pytest.fixture
def runs(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    in_no_time(monkeypatch.setattr)
    aws.import_tasks(polls=1)
    made = Runs(aws, tmp_path)
    yield made
    aws.heal()
    made.close()


def refused(work: Any, kind: str, words: str) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        work()
    assert caught.value.kind == kind, caught.value
    assert words in str(caught.value)
    return caught.value


def documented(page: str) -> set[str]:
    return set(re.findall(r"\b(?:ec2|s3|iam):\w+", (Path(__file__).resolve().parents[3] / "docs" / page).read_text()))


def test_an_image_that_aws_reads_becomes_an_instance_once_and_nothing_of_it_stays(aws: AwsServer, runs: Runs) -> None:
    made = runs.bring("by-task")
    assert (made["changed"], made["vm"]["power_state"]) == (True, "powered_on")
    (volume,) = aws.volumes(made["vm"]["id"]).values()
    assert aws.volume_bytes(volume, len(ROOT) + 10) == ROOT + bytes(10)
    besides = aws.permissions() - documented("aws_imports.md") - {"sts:GetCallerIdentity"}
    of_failures = {"ec2:CancelImportTask", "s3:AbortMultipartUpload"}
    assert besides == documented("aws_import_tasks.md") - documented("aws_imports.md") - of_failures
    assert not [call for call in aws.calls() if call.startswith("ebs:")]
    runs.assert_no_traces()
    assert (runs.snapshots(), aws.leftovers().images) == (set(), {})
    again = runs.bring("by-task")
    assert (again["changed"], again["vm"]["id"]) == (False, made["vm"]["id"])
    runs.assert_no_traces()


def test_every_disk_of_a_vm_is_a_snapshot_of_its_own_where_the_import_stops_there(aws: AwsServer, runs: Runs) -> None:
    disks = (ROOT, DATA, bytes(MIB))
    made = run_session(aws, disks, stop_at="snapshot", power_on=False)
    assert [disk.size for disk in made.disks] == [GIB, GIB, GIB]
    for disk, data in zip(made.disks, disks):
        assert aws.snapshot_bytes(disk.source, len(data) + 10) == data + bytes(10)
    tags = aws.leftovers().snapshots
    assert sorted(tags) == sorted(disk.source for disk in made.disks)
    assert {one["vmferry:export"] for one in tags.values()} == {EXPORT}
    assert not [one for one in tags.values() if "vmferry:state" in one or "vmferry:held-until" in one]
    runs.assert_no_traces()


def run_session(aws: AwsServer, disks: Any, **asked: Any) -> Any:
    provider = AwsProvider(aws.settings())
    provider.import_by("vendor_task", VendorTask(f"s3://{BUCKET}", poll_interval=0.02), open_store)
    assert provider.takes_disks
    placed = Placement(**{"name": "several", "power_on": True, **asked})
    with provider.open_import(a_vm(*disks), {}, placed, EXPORT, Job("0" * 32, "0123abcd")) as session:
        session.take([ReadDisk(Memory(one), DiskProgress()) for one in disks], None, lambda number: None)
        return session.commit()


def test_images_stay_in_the_bucket_where_that_is_asked_and_their_place_is_told(aws: AwsServer, runs: Runs) -> None:
    told = runs.bring("left", cleanup=False, stop_at="image", power_on=False)
    (key,) = runs.keys()
    assert re.fullmatch(r"vms/vmferry-[0-9a-f]+-[0-9a-f]{8}/disk-0\.vmdk", key)
    assert any(f"stay in s3://{BUCKET}/{key.rpartition('/')[0]}/" in one for one in told["warnings"])
    runs.clean_up()
    assert runs.keys() == [key], "it is nobody's leftover"


def test_what_is_asked_of_the_volumes_and_of_the_role_is_asked_of_the_task(aws: AwsServer, runs: Runs) -> None:
    made = runs.bring("secret", encrypted=True, stop_at="snapshot", power_on=False, role="importer")
    (snapshot,) = aws.ec2.describe_snapshots(SnapshotIds=[made["vm"]["disks"][0]["source"]])["Snapshots"]
    assert snapshot["Encrypted"]
    aws.fault("ImportSnapshot", "denied", match="RoleName=importer", skip=1)  # behind the dry run
    refused(lambda: runs.bring("role", role="importer"), "permission_denied", "Starting the task")
    runs.assert_no_traces()


def test_questions_that_are_not_answered_and_answers_that_are_lost_do_no_harm(aws: AwsServer, runs: Runs) -> None:
    before = len(aws.import_tasks())
    aws.import_tasks(polls=3)
    aws.fault("ImportSnapshot", "lose_answer", skip=1)  # behind the dry run
    aws.fault("DescribeImportSnapshotTasks", "error", skip=3, times=2)
    aws.fault("PUT", "error", match="partNumber", times=1)
    made = runs.bring("once", stop_at="image", power_on=False)
    assert aws.snapshot_bytes(made["vm"]["details"]["snapshots"][0], len(ROOT)) == ROOT
    assert len(aws.import_tasks()) == before + 1
    runs.assert_no_traces()


def test_why_aws_ended_a_task_is_told_and_nothing_stays(aws: AwsServer, runs: Runs) -> None:
    aws.import_tasks(ends="failed", message="ClientError: Disk validation failed [Unsupported VMDK File Format].")
    refused(lambda: runs.bring("failing"), "conflict", "failing: ClientError: Disk validation failed")
    runs.assert_nothing()


def test_a_task_that_takes_too_long_is_cancelled(aws: AwsServer, runs: Runs) -> None:
    aws.import_tasks(ends="never")
    error = refused(lambda: runs.bring("slow", timeout=0.3), "timeout", "was not done within 0.3 s")
    assert "task_timeout" in error.hint
    assert aws.calls("CancelImportTask")
    runs.assert_nothing()


def test_a_snapshot_of_another_size_is_no_disk_of_the_vm(
    aws: AwsServer, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_import, "GIB", GIB - 1)
    refused(lambda: runs.bring("short"), "conflict", "AWS made the snapshot")
    runs.assert_nothing()


def test_a_cancel_is_noticed_while_the_tasks_run(aws: AwsServer, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.import_tasks(ends="never")
    wait = import_task.wait_until_completed

    def cancelled(session: Any, flow: Flow, *more: Any) -> None:
        threading.Timer(0.2, flow.request_cancel, ["the test wants it"]).start()
        wait(session, flow, *more)

    monkeypatch.setattr(task_import, "wait_until_completed", cancelled)
    begun = time.monotonic()
    refused(lambda: runs.bring("unwanted", poll_interval=3600.0, timeout=7200.0), "cancelled", "test wants it")
    assert time.monotonic() - begun < 60
    runs.assert_nothing()


@pytest.mark.parametrize(
    ("operation", "match"),
    [("PUT", "import.json"), ("PUT", "partNumber"), ("CreateTags", ""), ("RunInstances", "")],
    ids=["note", "part", "tags", "instance"],
)
def test_whatever_is_denied_leaves_nothing(aws: AwsServer, runs: Runs, operation: str, match: str) -> None:
    aws.fault(operation, "denied", match=match, times=-1)
    with pytest.raises(VmferryError) as caught:
        runs.bring("denied")
    assert caught.value.kind == "permission_denied", caught.value
    aws.heal()
    runs.assert_nothing()


def test_images_that_may_not_be_removed_are_told_of_and_found_by_the_next_run(
    aws: AwsServer, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.fault("DELETE", "denied", match=".vmdk", times=-1)
    told = runs.bring("kept", stop_at="image", power_on=False)
    assert any("left for the next run to remove" in one for one in told["warnings"])
    assert sorted(one.rpartition("/")[2] for one in runs.keys()) == ["disk-0.vmdk", "import.json"]  # noqa: SIM118
    aws.heal()
    monkeypatch.setattr(import_mark, "is_owner_alive", lambda owner: False)  # as that run is a process of its own
    runs.clean_up()
    runs.assert_no_traces()
    assert len(runs.snapshots()) == len(aws.leftovers().images) == 1


@pytest.mark.parametrize(
    ("failpoint", "ends"),
    [
        ("import_noted", "completed"),
        ("import_staged", "completed"),
        ("import_task_started", "never"),
        ("import_task_completed", "completed"),
        ("import_tasks_completed", "completed"),
        ("instance_finished", "completed"),
    ],
)
def test_what_a_killed_run_left_is_removed_when_its_job_is_cancelled(
    aws: AwsServer, runs: Runs, failpoint: str, ends: str
) -> None:
    aws.import_tasks(ends=ends)
    job = f"killed-{failpoint}".replace("_", "-")
    killed_run(failpoint, runs.request("killed", job_id=job))
    assert runs.keys()
    request = JobRequest(job, "cancelled", state_dir=str(runs.folder / "state"), provider=runs.provider)
    end_job(request, False)
    if failpoint == "instance_finished":
        runs.assert_no_traces()
        assert (runs.snapshots(), len(aws.leftovers().instances)) == (set(), 1)
    else:
        runs.assert_nothing()


def test_what_a_killed_run_left_is_removed_by_the_next(aws: AwsServer, runs: Runs) -> None:
    killed_run("import_task_completed", runs.request("again"))
    made = runs.bring("again", stop_at="snapshot", power_on=False)
    assert aws.snapshot_bytes(made["vm"]["disks"][0]["source"], len(ROOT)) == ROOT
    assert runs.snapshots() == {made["vm"]["disks"][0]["source"]}
    runs.assert_no_traces()


def test_a_run_elsewhere_is_left_alone_as_long_as_it_may_live_and_nothing_goes_over_a_forged_note(
    aws: AwsServer, runs: Runs
) -> None:
    place = "vms/vmferry-other-0123abcd/"
    tags = {**ImportMark.of(Job("other", "0123abcd"), EXPORT, "busy").tags(), OWNER: "otherhost 0f3c 1 2 3"}
    tags["vmferry:staging"] = f"s3://{BUCKET}/{place}"
    for key, body in (("import.json", json.dumps(tags).encode()), ("disk-0.vmdk", b"half")):
        runs.s3.put_object(Bucket=BUCKET, Key=place + key, Body=body)
    theirs = sorted(runs.keys())
    refused(lambda: runs.bring("busy"), "busy", "busy is being made by import job other")
    assert sorted(runs.keys()) == theirs
    tags["vmferry:held-until"] = "1"
    forged = {**tags, "vmferry:attempt": "0123abce", "vmferry:staging": f"s3://{BUCKET}/precious/"}
    for folder, said in ((place, tags), ("vms/vmferry-other-0123abce/", forged), ("vms/vmferry-x/", ["no note"])):
        runs.s3.put_object(Bucket=BUCKET, Key=f"{folder}import.json", Body=json.dumps(said).encode())
    runs.s3.put_object(Bucket=BUCKET, Key="precious/disk", Body=b"data")
    before = set(runs.keys())
    runs.clean_up()
    assert before - set(runs.keys()) == set(theirs)


def test_what_aws_does_not_import_is_refused_before_anything_is_made(aws: AwsServer, runs: Runs) -> None:
    refused(lambda: runs.bring("where", staging="s3://no-such-bucket"), "not_found", "no-such-bucket")
    refused(lambda: runs.bring("where", staging="/srv/staging"), "invalid_config", "no bucket of S3")
    far = aws.client("s3")
    far.create_bucket(Bucket="far-images", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    refused(lambda: runs.bring("where", staging="s3://far-images"), "invalid_config", "imports from buckets of")
    far.delete_bucket(Bucket="far-images")
    provider = AwsProvider(aws.settings())
    provider.import_by("vendor_task", VendorTask(f"s3://{BUCKET}"))
    vm = a_vm(b"")
    large = vm.with_disks((vm.disks[0].__class__(**{**vars(vm.disks[0]), "size": 17 * TIB}),))
    found = provider.check_import(large, Placement("large", stop_at="snapshot"), EXPORT)
    assert [one.kind for one in found if "tasks of AWS import at most" in one.message] == ["unsupported"]
    disk = new_disks(large, Placement("large"))[0]
    refused(lambda: insist_on_image(disk, 3 * TIB), "unsupported", "no VMDK has more")
    insist_on_image(disk, GIB)
    runs.assert_nothing()


def test_check_mode_tells_what_is_denied_and_makes_nothing(aws: AwsServer, runs: Runs) -> None:
    runs.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    aws.fault("ImportSnapshot", "denied")
    told = [one["message"] for one in runs.bring("planned", check_mode=True)["findings"]]
    assert any("older version" in one for one in told)
    assert any("Starting a task to import planned" in one for one in told)
    assert not {"PUT", "DELETE"} & {call.partition(":")[2] for call in aws.calls() if call.startswith("s3:")}
    runs.assert_nothing()


def test_imports_by_ebs_direct_do_not_ask_for_tasks(aws: AwsServer, runs: Runs) -> None:
    request = runs.request("direct", stop_at="snapshot", power_on=False)
    import_vm(replace(request, method="direct", vendor_task=None), False)
    assert not aws.calls("DescribeImportSnapshotTasks")


@pytest.mark.parametrize("method", ["direct", "vendor_task"])
def test_other_providers_have_no_choice_of_a_method(tmp_path: Path, method: Any) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(MIB))
    request = ImportRequest(
        ProviderSpec("image", {"url": (tmp_path / "out").as_uri()}),
        StoreSpec((tmp_path / "disk.raw").as_uri()),
        Placement("new"),
        networks=(),
        method=method,
        vendor_task=VendorTask("s3://bucket") if method == "vendor_task" else None,
        transfer=TransferOptions(state_dir=str(tmp_path / "state")),
    )
    error = refused(lambda: import_vm(request, False), "unsupported", f"The method {method} is one of provider aws")
    assert error.hint == "Leave method out."
