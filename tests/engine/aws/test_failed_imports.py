# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports into AWS that come to nothing: nothing of them stays, and what is somebody else's does."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count
from threading import Lock, Thread
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import new_attempt
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import (
    import_rivals,
    import_session,
    import_waits,
    new_snapshot,
    snapshot_hold,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_mark import ImportMark
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.import_things import Thing
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.snapshot_owner import (
    HELD,
    OWNER,
    owner_words,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ImportSession, Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from rigs.aws import AwsServer

from .importing import EXPORT, SMALL, SYSTEM, Import, a_vm, in_no_time, killed_on_aws

pytestmark = pytest.mark.slow
JOB = "0" * 32
DEAD = owner_words().rpartition(" ")[0] + " 1"  # this process was started at another time
ELSEWHERE = "otherhost 0f3c 1 2 3"
PATIENCE = 60.0  # seconds


@pytest.fixture(scope="module")
def imports(server: AwsServer) -> Iterator[AwsProvider]:
    """One for all tests of a module: making clients takes longer than most of them."""
    opened = AwsProvider(server.settings())
    yield opened
    opened.close()


@pytest.fixture
def importing(aws: AwsServer, imports: AwsProvider, monkeypatch: pytest.MonkeyPatch) -> Import:
    in_no_time(monkeypatch.setattr)
    return Import(imports)


def there(aws: AwsServer) -> dict[str, Any]:
    return {kind: set(found) for kind, found in vars(aws.leftovers()).items()}


def left_by(aws: AwsServer, name: str, owner: str, job: str = JOB, *held: float) -> None:
    """Snapshots, pending as a killed import leaves them. `held`: for how many seconds each of them still is."""
    tags = {**ImportMark.of(Job(job, new_attempt()), EXPORT, name).tags(), OWNER: owner}
    for moment in [int(time.time() + seconds) for seconds in held] or [int(tags[HELD])]:
        listed = [{"Key": key, "Value": value} for key, value in {**tags, HELD: str(moment)}.items()]
        aws.client("ebs").start_snapshot(VolumeSize=1, Tags=listed)


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.02)


def once_begun(aws: AwsServer, name: str, act: Callable[[], object]) -> Callable[[], None]:
    """To be called ahead of each read: `act` is done ahead of the second one, with a snapshot of that name there."""
    reads = count()

    def before() -> None:
        if next(reads) == 1:
            until(lambda: name in [tags["vmferry:import"] for tags in aws.leftovers().snapshots.values()])
            act()

    return before


def held_for_seconds(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(snapshot_hold, "SHORTEST", 0.02)
    monkeypatch.setattr(import_session, "HELD_FOR", seconds)


def cancel_at(aws: AwsServer, flow: Flow, operation: str) -> None:
    """Once it was called."""

    def wait() -> None:
        while not aws.calls(operation):
            time.sleep(0.02)
        flow.stop(VmferryError("cancelled", "Enough."))

    aws.forget_calls()
    Thread(target=wait, daemon=True).start()


def failed(aws: AwsServer, importing: Import, *disks: bytes, **asked: Any) -> VmferryError:
    """However it fails, what is there afterwards is what was there before."""
    before = there(aws)
    opened: list[ImportSession] = []
    with pytest.raises(VmferryError) as caught:
        importing.run(*disks, name="lost", opened=opened, **asked)
    assert there(aws) == before
    assert not [text for session in opened for text in session.warnings if "left" in text]
    return caught.value


@pytest.mark.parametrize(
    "operation",
    ["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "RegisterImage", "RunInstances", "DeleteTags"],
)
def test_whatever_is_denied_leaves_nothing(aws: AwsServer, importing: Import, operation: str) -> None:
    aws.fault(operation, "denied", times=-1)
    error = failed(aws, importing)
    assert (error.kind, f"allow {operation}" in error.hint) == ("permission_denied", True), error.message


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("StartSnapshot", "lose_answer"),
        ("PutSnapshotBlock", "throttle"),
        ("PutSnapshotBlock", "error"),
        ("PutSnapshotBlock", "reset"),
        ("PutSnapshotBlock", "lose_answer"),
        ("CompleteSnapshot", "reset"),
        ("CompleteSnapshot", "lose_answer"),
    ],
)
def test_snapshot_gets_over_what_passes(aws: AwsServer, importing: Import, operation: str, kind: str) -> None:
    before = there(aws)
    aws.fault(operation, kind)
    made = importing.run(SYSTEM, name=f"passes-{kind}-{operation}", stop_at="snapshot", power_on=False)
    assert aws.snapshot_bytes(made.disks[0].source, len(SYSTEM)) == SYSTEM
    assert there(aws)["snapshots"] - before["snapshots"] == {made.disks[0].source}


def test_instance_gets_over_answers_that_are_lost(aws: AwsServer, importing: Import) -> None:
    """EC2 refuses a second image of one name, and takes the same request for an instance as one."""
    before = there(aws)
    aws.fault("RegisterImage", "lose_answer")
    aws.fault("RunInstances", "lose_answer")
    made = importing.run(SMALL, name="unanswered")
    after = there(aws)
    assert (after["images"], after["snapshots"]) == (before["images"], before["snapshots"])
    assert after["instances"] - before["instances"] == {made.id}


def test_name_of_an_image_that_is_taken_is_told(aws: AwsServer, importing: Import) -> None:
    aws.fault("RegisterImage", "refuse", code="InvalidAMIName.Duplicate", times=-1)
    assert "has that name already" in failed(aws, importing).message


def test_what_is_gone_is_not_waited_for(importing: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    """What AWS does not know yet, it does a minute later."""
    monkeypatch.setattr(import_waits, "KNOWN_WITHIN", 0.05)
    names, began = {"snap-0123456789abcdef0": "disk-0"}, time.monotonic()
    with pytest.raises(VmferryError) as caught:
        new_snapshot.wait_completed(importing.provider._session, names, Flow(), 600)
    assert (caught.value.kind, time.monotonic() - began < 300) == ("not_found", True)


def test_block_that_arrives_damaged_is_refused_by_aws(
    aws: AwsServer, importing: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksum that goes along is of what was read, so that a bit that flips on the way is found."""
    client = importing.provider._session.client("ebs")
    put = client.put_snapshot_block

    def damaged(**asked: Any) -> Any:
        return put(**{**asked, "BlockData": b"?" + asked["BlockData"][1:]})

    monkeypatch.setattr(client, "put_snapshot_block", damaged)
    assert "checksum" in failed(aws, importing).message


def test_aws_counts_what_was_written(aws: AwsServer, importing: Import) -> None:
    """A block that somebody else adds to the snapshot is found when it is sealed."""
    ebs = aws.client("ebs")

    def add() -> None:
        (pending,) = [one for one, tags in aws.leftovers().snapshots.items() if tags["vmferry:import"] == "lost"]
        data = b"!" * 524288
        ebs.put_snapshot_block(
            SnapshotId=pending,
            BlockIndex=1000,
            BlockData=data,
            DataLength=len(data),
            Checksum=b64encode(sha256(data).digest()).decode(),
            ChecksumAlgorithm="SHA256",
        )

    before = there(aws)
    with pytest.raises(VmferryError, match="Completing the snapshot"):
        importing.run(SYSTEM * 3, name="lost", before=once_begun(aws, "lost", add))
    assert there(aws) == before


def test_snapshot_that_aws_gives_up_on_is_told(
    aws: AwsServer, importing: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = new_snapshot.wait_completed

    def given_up(session: Any, snapshots: Any, *more: Any) -> None:
        aws.fail_snapshot(next(iter(snapshots)))
        wait(session, snapshots, *more)

    monkeypatch.setattr(import_session, "wait_completed", given_up)
    assert "gave up on the snapshot" in failed(aws, importing).message


def test_want_of_capacity_is_told(aws: AwsServer, importing: Import) -> None:
    aws.fault("RunInstances", "refuse", code="InsufficientInstanceCapacity", times=-1)
    assert failed(aws, importing).kind == "busy"


def test_image_and_snapshots_that_cannot_be_removed_are_told(aws: AwsServer, importing: Import) -> None:
    """The VM is there all the same, and the next run removes the rest."""
    opened: list[ImportSession] = []
    before = there(aws)
    aws.fault("DeregisterImage", "denied", times=-1)
    made = importing.run(SMALL, name="kept", opened=opened)
    assert [text for text in opened[0].warnings if "left for the next run to remove" in text]
    aws.heal()
    left = there(aws)
    assert len(left["images"] - before["images"]) == 1
    assert importing.provider.imported("kept") == (importing.provider.describe(made.id), EXPORT)
    assert importing.provider.clean_up_imports() == []  # of a job that lives
    for image in left["images"] - before["images"]:
        aws.ec2.deregister_image(ImageId=image)
    for snapshot in left["snapshots"] - before["snapshots"]:
        aws.ec2.delete_snapshot(SnapshotId=snapshot)


def test_cancelled_import_leaves_nothing(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_time(monkeypatch.setattr)
    flow = Flow()
    provider = AwsProvider(settings, flow)
    aws.fault("PutSnapshotBlock", "slow", seconds=0.3, times=-1)
    before = there(aws)
    cancel_at(aws, flow, "PutSnapshotBlock")
    with pytest.raises(VmferryError, match="Enough"):
        Import(provider).run(name="lost", flow=flow)
    aws.heal()
    assert there(aws) == before


def test_cancel_does_not_wait_for_a_block_that_nobody_answers(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_time(monkeypatch.setattr)
    flow = Flow()
    aws.fault("PutSnapshotBlock", "slow", seconds=60, times=3)
    cancel_at(aws, flow, "PutSnapshotBlock")
    began = time.monotonic()
    with pytest.raises(VmferryError, match="Enough"):
        Import(AwsProvider(settings, flow)).run(name="lost", flow=flow)
    assert time.monotonic() - began < 45


def test_snapshot_that_is_begun_as_the_import_is_cancelled_goes_too(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_time(monkeypatch.setattr)
    flow = Flow()
    before = there(aws)
    aws.fault("StartSnapshot", "slow", seconds=1.5)
    cancel_at(aws, flow, "StartSnapshot")
    with pytest.raises(VmferryError, match="Enough"):
        Import(AwsProvider(settings, flow)).run(name="lost", flow=flow)
    assert aws.calls("DeleteSnapshot")
    assert there(aws) == before


# --- runs that died ---------------------------------------------------------------------------------------------------


def test_what_a_killed_import_left_is_removed_by_the_next_run(
    aws: AwsServer, importing: Import, settings: dict[str, Any]
) -> None:
    """The contract of providers kills imports everywhere; here all is there that one makes."""
    before = there(aws)
    killed_on_aws("instance_made", settings, "killed")
    assert there(aws) != before
    assert importing.provider.imported("killed") is None
    ((name, sentence),) = importing.provider.clean_up_imports()
    assert (name, sentence.startswith("Removed what a dead import job 0000")) == ("killed", True)
    assert there(aws) == before


def test_undoing_a_dead_job_removes_what_it_left(aws: AwsServer, importing: Import) -> None:
    before = there(aws)
    left_by(aws, "undone", DEAD, "2" * 32)
    assert importing.provider.undo("1" * 32) == []
    (sentence,) = importing.provider.undo("2" * 32)
    assert "had made of undone" in sentence
    assert there(aws) == before


def test_import_that_was_killed_after_its_last_step_is_whole(
    aws: AwsServer, importing: Import, settings: dict[str, Any]
) -> None:
    """What its instance was made of goes."""
    before = there(aws)
    killed_on_aws("instance_finished", settings, "whole")
    found = importing.provider.imported("whole")
    assert found is not None
    assert found[1] == EXPORT
    ((name, _sentence),) = importing.provider.clean_up_imports()
    assert name == "whole"
    after = there(aws)
    assert (after["images"], after["snapshots"]) == (before["images"], before["snapshots"])
    assert after["instances"] - before["instances"] == {found[0].id}


def test_what_a_living_import_made_is_left_alone(aws: AwsServer, importing: Import) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(importing.provider.clean_up_imports())
        with pytest.raises(VmferryError) as caught:
            importing.provider.undo(JOB)
        seen.append(caught.value.kind)
        seen.append([one.kind for one in importing.provider.check_import(a_vm(SMALL), Placement("lives"), EXPORT)])

    importing.run(SYSTEM * 2, name="lives", before=once_begun(aws, "lives", look))
    assert seen[:2] == [[], "busy"]
    assert "busy" in seen[2]


def test_import_on_another_host_is_left_to_it(aws: AwsServer, importing: Import) -> None:
    """Only whoever knows that the job is dead removes it, as long as anything of it is held."""
    left_by(aws, "elsewhere", ELSEWHERE, "3" * 32, -5, 300)
    assert importing.provider.clean_up_imports() == []
    found = importing.provider.check_import(a_vm(SMALL), Placement("elsewhere"), EXPORT)
    assert [one.kind for one in found if one.severity == "error"] == ["busy"]
    assert "removed by an import after" in next(one.hint for one in found if one.kind == "busy")
    assert len(importing.provider.undo("3" * 32)) == 1


def test_import_that_died_on_another_host_is_removed_some_time_later(aws: AwsServer, importing: Import) -> None:
    """As one in a container does, of which no other one knows whether it is there."""
    before = there(aws)
    left_by(aws, "long-dead", ELSEWHERE, "4" * 32, -5, -2)
    found = importing.provider.check_import(a_vm(SMALL), Placement("long-dead"), EXPORT)
    assert [one.message for one in found if one.severity == "error"] == []
    assert [name for name, _sentence in importing.provider.clean_up_imports()] == ["long-dead"]
    assert there(aws) == before


def test_import_that_lives_is_held_anew(aws: AwsServer, importing: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    held_for_seconds(monkeypatch, 1.2)
    told: set[str] = set()

    def look() -> bool:
        told.update(tags[HELD] for tags in aws.leftovers().snapshots.values() if tags["vmferry:import"] == "held")
        return len(told) > 1

    made = importing.run(SYSTEM * 2, name="held", before=once_begun(aws, "held", lambda: until(look)))
    assert len(told) > 1
    assert HELD not in aws.leftovers().instances[made.id]
    assert all(HELD not in aws.leftovers().volumes[disk.source] for disk in made.disks)


def test_import_that_may_not_be_held_ends(
    aws: AwsServer, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would take it for dead while it lives."""
    in_no_time(monkeypatch.setattr)
    held_for_seconds(monkeypatch, 0.1)
    flow = Flow()
    importing = Import(AwsProvider(settings, flow))
    aws.fault("CreateTags", "denied", times=-1)
    before = once_begun(aws, "lost", lambda: until(lambda: flow.error))
    error = failed(aws, importing, SYSTEM * 2, flow=flow, before=before)
    assert (error.kind, "allow CreateTags" in error.hint) == ("permission_denied", True)


def test_snapshots_of_others_stay(aws: AwsServer, importing: Import) -> None:
    volume = aws.volumes(aws.make_instance("theirs", [SMALL]))["/dev/sda1"]
    theirs = aws.ec2.create_snapshot(
        VolumeId=volume,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "vmferry:state", "Value": "unfinished"}]}],
    )["SnapshotId"]
    left_by(aws, "mine", DEAD)
    assert [name for name, _sentence in importing.provider.clean_up_imports()] == ["mine"]
    assert theirs in aws.leftovers().snapshots
    aws.ec2.delete_snapshot(SnapshotId=theirs)


def test_secrets_stand_in_no_tag(aws: AwsServer, importing: Import, settings: dict[str, Any]) -> None:
    made = importing.run(SMALL, name="tagged")
    told = json.dumps(aws.leftovers().instances[made.id])
    assert settings["secret_key"] not in told
    assert settings["access_key"] not in told


def test_of_two_imports_under_one_name_at_the_same_time_the_first_makes_the_vm(
    aws: AwsServer, importing: Import
) -> None:
    """Both found the name free; the second one comes to its end while the first one still writes. Of one second, which
    is what EC2 may tell, the first attempt by name is the first."""
    failed: list[VmferryError] = []
    once = Lock()

    def begun() -> bool:
        return any(tags.get("Name") == "twins" for tags in aws.leftovers().snapshots.values())

    def second() -> None:
        if begun() and once.acquire(blocking=False):
            with pytest.raises(VmferryError, match="began before this import") as late:
                importing.run(SMALL, name="twins", attempt="ffffffff")
            failed.append(late.value)

    made = importing.run(name="twins", attempt="00000001", before=second)
    assert [(error.kind, error.retryable) for error in failed] == [("busy", True)]
    assert [name for name, tags in aws.leftovers().instances.items() if tags["Name"] == "twins"] == [made.id]
    assert not begun(), "each removed its own"


def test_an_import_that_has_an_image_goes_on_whoever_has_the_older_snapshot(
    aws: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two are made by tasks: the one that was begun first may well be done last."""
    own, other = (ImportMark.of(Job("a" * 32, attempt), EXPORT, "tasks") for attempt in ("00000001", "ffffffff"))
    met = [
        Thing("snapshot", "snap-1", "completed", own, {"StartTime": 1}),
        Thing("snapshot", "snap-2", "completed", other, {"StartTime": 2}),
    ]
    monkeypatch.setattr(import_rivals, "called", lambda _session, _name: met)
    session = Session(AwsSettings.from_options(aws.settings()))
    import_rivals.insist_on_turn(session, "tasks", own.attempt)
    met.append(Thing("image", "ami-2", "available", other, {}))
    with pytest.raises(VmferryError, match="began before this import") as late:
        import_rivals.insist_on_turn(session, "tasks", own.attempt)
    assert late.value.kind == "busy"


def test_what_came_to_have_the_name_meanwhile_is_a_conflict(aws: AwsServer, importing: Import) -> None:
    once = Lock()

    def launch() -> None:
        if once.acquire(blocking=False):
            aws.make_instance("overtaken")

    with pytest.raises(VmferryError, match="came to be while this import wrote") as late:
        importing.run(name="overtaken", before=launch)
    assert late.value.kind == "conflict"
    assert not [tags for tags in aws.leftovers().snapshots.values() if tags["Name"] == "overtaken"]
