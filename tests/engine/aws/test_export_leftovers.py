# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What killed exports leave in an account: the next one goes on with it or removes it, and nobody else's is touched."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    JobRequest,
    ProviderSpec,
    StoreSpec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import snapshot_hold, snapshot_set
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.snapshot_owner import (
    HELD,
    OWNER,
    TOKEN,
    owner_words,
    tags_of_export,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.tags import STATE
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from rigs.aws import AwsServer

from .dying import die_at
from .exports import Exports, disk

OTHER = Job("12345678", "0000000a", "0000000b")
UNKNOWN = "another-host 00000000-0000-0000-0000-000000000000 1 2 3"


@pytest.fixture
def exports(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exports:
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.02)
    return Exports(aws, tmp_path)


@pytest.mark.parametrize("failpoint", ["snapshots_begun", "token_kept"])
def test_an_increment_that_is_killed_is_made_whole_by_the_next_run(
    aws: AwsServer, exports: Exports, failpoint: str
) -> None:
    vm = aws.make_instance("killed", [disk(1, 2), disk(3)])
    first = exports.make(vm)["export"]
    volume = exports.volumes(vm)[0]
    aws.write(volume, 0, b"before")
    die_at(failpoint, exports.request(vm))
    assert len(exports.states(vm)) == 4, "its own are there, and those that it stood on"
    aws.write(volume, 100, b"behind")
    then, now = bytearray(disk(1, 2)), bytearray(disk(1, 2))
    then[:6] = now[:6] = b"before"
    now[100:106] = b"behind"
    again = exports.make(vm, mode="incremental")
    if failpoint in ("data-sent", "token_kept"):
        assert again["resumed"]["export"] == again["export"]["id"], again["resumed"]
        exports.assert_content(again["export"], [bytes(then), disk(3)])
        again = exports.make(vm, mode="incremental")
    assert again["export"]["parent"]
    assert (again["export"]["parent"] == first["id"]) == failpoint.startswith("snapshots_")
    exports.assert_content(again["export"], [bytes(now), disk(3)])
    assert exports.states(vm) == ["token", "token"]


def test_whoever_goes_on_may_die_over_it_too(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("again", [disk(1, 2)])
    die_at("data-sent", exports.request(vm))
    die_at("snapshots_taken_over", exports.request(vm))
    aws.write(exports.volumes(vm)[0], 0, b"later")
    made = exports.make(vm)
    assert made["resumed"]["export"] == made["export"]["id"], made["resumed"]
    exports.assert_content(made["export"], [disk(1, 2)])
    assert exports.states(vm) == ["token"]


def test_a_killed_export_that_was_cancelled_leaves_nothing(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("cancelled", [disk(1)])
    die_at("data-sent", exports.request(vm))
    (job,) = [one["id"] for one in list_jobs(str(exports.folder / "state"), "", "", "", 50)["jobs"]]
    provider = ProviderSpec("aws", aws.settings())
    asked = JobRequest(job, "cancelled", 30.0, str(exports.folder / "state"), store=exports.store, provider=provider)
    assert end_job(asked, False)["job"]["state"] == "cancelled"
    assert exports.snapshots(vm) == []


def test_what_is_held_for_another_store_stays_until_it_is_over(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    vm = aws.make_instance("held", [disk(1)])
    die_at("resumable", exports.request(vm))
    elsewhere = StoreSpec((exports.folder / "other").as_uri())
    assert exports.make(vm, store=elsewhere)["export"]["mode"] == "full"
    assert exports.states(vm) == ["temporary", "token"]
    _tag(aws, exports, vm, {HELD: str(int(time.time()) - 1)})
    (undone,) = provider.clean_up(provider.describe(vm))
    assert "left by the dead export job" in undone.sentence
    assert exports.states(vm) == ["token"]


def test_what_is_held_is_held_from_the_end_of_whoever_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_hold, "SHORTEST", 0.02)
    told: list[int] = []
    begun = int(time.time())
    hold = snapshot_hold.SnapshotHold(lambda tags: told.append(int(tags[HELD])))
    hold.begin(0)
    assert told == []
    monkeypatch.setattr(snapshot_hold.SnapshotHold, "_interval", 0.02)
    hold.begin(3600)
    while len(told) < 3:
        time.sleep(0.01)
    hold.end()
    assert min(told) >= begun + 3600
    assert int(hold.until()[HELD]) >= begun + 3600


def test_what_lives_is_told_and_what_nobody_knows_of_stays_until_its_store_does(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    vm = aws.make_instance("others", [disk(1)])
    _make(aws, vm, {OWNER: owner_words()})
    with pytest.raises(VmferryError) as caught:
        provider.clean_up(provider.describe(vm))
    assert caught.value.kind == "busy"
    assert "is in use by export job 12345678" in str(caught.value)
    with pytest.raises(VmferryError, match="in use"):
        provider.undo("12345678")
    _tag(aws, exports, vm, {OWNER: UNKNOWN})
    assert not provider.clean_up(provider.describe(vm))
    assert not provider.clean_up(provider.describe(vm), dead=["ffffffff"])
    assert len(exports.snapshots(vm)) == 1
    assert provider.clean_up(provider.describe(vm), dead=["0000000a"])
    assert exports.snapshots(vm) == []


def test_what_dead_runs_left_of_an_instance_that_is_gone_goes_with_the_next_cleanup(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    gone, other = aws.make_instance("export-gone", [disk(1)]), aws.make_instance("export-other", [disk(1)])
    _make(aws, gone, {OWNER: "released"})
    _make(aws, other, {OWNER: UNKNOWN})
    aws.ec2.terminate_instances(InstanceIds=[gone])
    there = aws.make_instance("there", [disk(1)])
    (undone,) = provider.clean_up(provider.describe(there))
    assert "which is gone" in undone.sentence
    assert (exports.snapshots(gone), len(exports.snapshots(other))) == ([], 1)


def test_nothing_of_an_instance_stays_that_is_removed(aws: AwsServer, exports: Exports, provider: AwsProvider) -> None:
    vm = aws.make_instance("removed", [disk(1)], running=False)
    exports.make(vm)
    _make(aws, vm, {OWNER: "released", HELD: str(int(time.time()) + 3600)})
    provider.remove(provider.describe(vm), disks=True)
    assert exports.snapshots(vm) == []


def test_a_snapshot_of_an_instance_that_is_gone_and_cannot_be_removed_fails_nobody_else(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    gone, there = aws.make_instance("kept", [disk(1)]), aws.make_instance("beside", [disk(1)])
    _make(aws, gone, {OWNER: "released"})
    aws.ec2.terminate_instances(InstanceIds=[gone])
    (left,) = exports.snapshots(gone)
    aws.fault("DeleteSnapshot", "denied", times=-1, match=left["SnapshotId"])
    (undone,) = provider.clean_up(provider.describe(there))
    assert "could not all be removed" in undone.sentence
    assert left["SnapshotId"] in undone.sentence
    aws.heal()
    assert provider.clean_up(provider.describe(there))


def test_whoever_fails_to_go_on_owns_nothing_of_it(aws: AwsServer, exports: Exports, provider: AwsProvider) -> None:
    vm = aws.make_instance("reopened", [disk(1)])
    _make(aws, vm, {OWNER: UNKNOWN})
    (left,) = exports.snapshots(vm)
    aws.ec2.describe_snapshots(SnapshotIds=[left["SnapshotId"]])
    machine = provider.describe(vm)
    reference = {"kind": "ebs_direct", "snapshots": f"{left['VolumeId']}={left['SnapshotId']}", "token": ""}
    aws.fault("DescribeInstances", "denied", skip=1)  # behind the description of the machine
    session = provider.reopen_export(machine, machine.disks, OTHER, Tracking(), reference)
    with pytest.raises(VmferryError, match="access was denied"):
        session.__enter__()
    (tags,) = [{tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in exports.snapshots(vm)]
    assert tags[OWNER] == "released"
    assert provider.clean_up(machine, dead=["0000000a"])
    assert exports.snapshots(vm) == []


def test_what_is_not_removed_of_an_instance_leaves_the_rest_as_it_was(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    vm = aws.make_instance("protected", [disk(1)], running=False)
    _make(aws, vm, {OWNER: "released", HELD: str(int(time.time()) + 3600)})
    aws.ec2.modify_instance_attribute(InstanceId=vm, DisableApiTermination={"Value": True})
    with pytest.raises(VmferryError, match="protected"):
        provider.remove(provider.describe(vm), disks=True)
    assert len(exports.snapshots(vm)) == 1


def test_a_token_that_stays_when_its_instance_is_removed_is_told(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    vm = aws.make_instance("token stays", [disk(1)], running=False)
    exports.make(vm)
    aws.fault("DeleteSnapshot", "denied")
    (said,) = provider.remove(provider.describe(vm), disks=True)
    assert "asked what changed may stay" in said
    assert exports.states(vm) == ["token"]


def test_a_change_token_is_forgotten_by_name_and_no_other(
    aws: AwsServer, exports: Exports, provider: AwsProvider
) -> None:
    vm = aws.make_instance("tokens", [disk(1)])
    here = exports.make(vm)["export"]["change_token"]
    there = exports.make(vm, store=StoreSpec((exports.folder / "other").as_uri()))["export"]["change_token"]
    machine = provider.describe(vm)
    assert list(provider.tokens(machine)) == [here, there]
    assert provider.forget(machine, [here]) == [f"Dropped the change token {here} of tokens."]
    assert list(provider.tokens(machine)) == [there]
    assert provider.forget(machine, [here]) == []
    with pytest.raises(VmferryError, match="is no token"):
        provider.forget(machine, ["snap-1"])


def test_tokens_of_a_year_are_forgotten_at_once(aws: AwsServer, exports: Exports, provider: AwsProvider) -> None:
    """One filter takes 200 values."""
    vm = aws.make_instance("long", [disk(1)])
    machine = provider.describe(vm)
    names = [f"vmferry-0000000b-{number:08x}" for number in range(365)]
    _make(aws, vm, {STATE: TOKEN}, Job("12345678", "0000016c", "0000000b"))
    assert provider.forget(machine, names) == [f"Dropped the change token {names[-1]} of long."]
    assert exports.snapshots(vm) == []


def test_orphans_of_a_store_are_found_in_the_account(aws: AwsServer, exports: Exports) -> None:
    vm = aws.make_instance("orphans", [disk(1)])
    old = exports.make(vm)["export"]["change_token"]
    exports.make(vm, mode="full")
    kept = exports.states(vm)
    _make(aws, vm, {"vmferry:state": "token"}, Job("87654321", "0000beef", old.split("-")[1]))
    assert len(exports.states(vm)) == len(kept) + 1
    told = _clean(aws, exports)
    assert [one["kind"] for one in told["orphans"]] == ["token"]
    assert exports.states(vm) == kept


def test_the_last_token_of_an_instance_that_is_gone_is_an_orphan_of_its_own_store(
    aws: AwsServer, exports: Exports
) -> None:
    vm, there = aws.make_instance("going", [disk(1)]), aws.make_instance("staying", [disk(1)])
    token = exports.make(vm)["export"]["change_token"]
    exports.make(there)
    exports.make(vm, store=StoreSpec((exports.folder / "other").as_uri()))
    assert _clean(aws, exports)["orphans"] == []
    aws.ec2.terminate_instances(InstanceIds=[vm])
    (told,) = _clean(aws, exports)["orphans"]
    assert (told["kind"], told["reason"]) == (
        "token",
        f"No increment will ask what changed since {token}, as the VM is gone.",
    )
    assert (exports.states(vm), exports.states(there)) == (["token"], ["token"]), "that of another store stays"


def _clean(aws: AwsServer, exports: Exports) -> Mapping[str, Any]:
    provider = ProviderSpec("aws", aws.settings())
    request = CleanupRequest(exports.store, Limits(), Protections(), orphans=True, provider=provider)
    return clean_up_exports(request, False)


def _make(aws: AwsServer, vm: str, more: Mapping[str, str], job: Job = OTHER) -> None:
    tags = {**tags_of_export(job, vm), **more}
    aws.ec2.create_snapshots(
        InstanceSpecification={"InstanceId": vm},
        TagSpecifications=[
            {"ResourceType": "snapshot", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        ],
    )


def _tag(aws: AwsServer, exports: Exports, vm: str, tags: Mapping[str, str]) -> None:
    temporary = [
        one["SnapshotId"]
        for one in exports.snapshots(vm)
        if {"Key": "vmferry:state", "Value": "temporary"} in one["Tags"]
    ]
    aws.ec2.create_tags(Resources=temporary, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
