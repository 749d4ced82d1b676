# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Increments imported onto the snapshots of the export before: what is put, what it becomes, and when all is put."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ImportRequest,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.changed_units import ChangedUnits
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import snapshot_set
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Below, Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK

from .exports import Exports, block, disk
from .importing import EXPORT, Import, Memory, a_vm, in_no_time, noise

KIB = 1 << 10


@dataclass(frozen=True)
class Warm:
    """An instance that goes on, and what imports make of its exports."""

    aws: AwsServer
    exports: Exports
    vm: str

    @property
    def volumes(self) -> list[str]:
        return self.exports.volumes(self.vm)

    def export(self, mode: str = "incremental") -> dict[str, Any]:
        made: dict[str, Any] = self.exports.make(self.vm, mode=mode, spot_check=0)["export"]
        assert made["mode"] == mode
        return made

    def bring(self, name: str, **placement: Any) -> dict[str, Any]:
        """What lists of calls are of."""
        self.aws.forget_calls()
        placed = Placement(**{"name": name, "stop_at": "snapshot", **placement})
        asked = self.exports.request(self.vm)
        transfer = TransferOptions(state_dir=str(self.exports.folder / "state"))
        return import_vm(ImportRequest(asked.provider, asked.store, placed, transfer=transfer), False)

    def assert_same(self, made: Mapping[str, Any]) -> None:
        snapshots = made["vm"]["details"]["snapshots"]
        assert len(snapshots) == len(self.volumes)
        for snapshot, volume in zip(snapshots, self.volumes):
            assert self.aws.snapshot_bytes(snapshot, 16 * BLOCK) == self.aws.volume_bytes(volume, 16 * BLOCK)

    @property
    def put(self) -> int:
        return len(self.aws.calls("PutSnapshotBlock"))

    def snapshots(self) -> set[str]:
        """That imports made."""
        ours = [{"Name": "tag-key", "Values": ["vmferry:import"]}]
        found = self.aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=ours)["Snapshots"]
        return {one["SnapshotId"] for one in found}


@pytest.fixture
def warm(aws: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warm:
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.02)
    in_no_time(monkeypatch.setattr)
    return Warm(aws, Exports(aws, tmp_path), aws.make_instance("warm", [disk(1, 2, 3, 4, 0, 5), disk(6, 7)]))


def test_an_increment_is_put_onto_its_parent_alone(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    first = warm.bring("first")
    assert warm.put == 7
    root = warm.volumes[0]
    aws.write(root, BLOCK + 100 * KIB, b"changed")  # one leaf of eight
    aws.write(root, 4 * BLOCK, block(9))  # where nothing was
    warm.export()
    second = warm.bring("second")
    warm.assert_same(second)
    # Of the disk that did not change, one block is put that it has: nobody says what a snapshot of none is.
    assert (warm.put, len(aws.calls("GetSnapshotBlock"))) == (3, 1)
    assert aws.permissions() >= {"ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock"}, "as docs/aws_imports.md says"
    for snapshot in first["vm"]["details"]["snapshots"]:  # which are needed no more
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
    warm.assert_same(second)


def test_what_is_zeros_now_and_was_data_in_the_parent_is_put_as_zeros(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    warm.bring("first")
    root, data = warm.volumes
    aws.discard(root, BLOCK, BLOCK)  # gone
    aws.write(root, 2 * BLOCK, bytes(BLOCK))  # written
    aws.write(root, 3 * BLOCK + 64 * KIB, bytes(128 * KIB))  # a part
    aws.write(root, 4 * BLOCK, bytes(64 * KIB))  # of what is zeros there, too
    aws.discard(data, 0, 2 * BLOCK)  # the whole disk
    warm.export()
    second = warm.bring("second")
    warm.assert_same(second)
    assert warm.put == 5


def test_increments_under_random_writes_are_exact_on_whatever_parent_is_there(aws: AwsServer, warm: Warm) -> None:
    chance = random.Random(11)
    warm.export("full")
    warm.bring("round-0")
    for number in range(1, 4):
        touched = set()
        for _unused in range(6):
            volume, at = chance.randrange(2), chance.randrange(12 * BLOCK)
            data = chance.randbytes(70_000) if chance.random() < 0.6 else bytes(chance.randrange(1, BLOCK))
            aws.write(warm.volumes[volume], at, data)
            touched |= {(volume, index) for index in range(at // BLOCK, (at + len(data) - 1) // BLOCK + 1)}
        warm.export()
        if number != 2:  # the third stands on the first, two increments below
            warm.assert_same(warm.bring(f"round-{number}"))
        if number == 1:
            assert warm.put <= len(touched) + 2


def test_where_the_parent_is_gone_all_is_put(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    first = warm.bring("first")
    gone, _kept = first["vm"]["details"]["snapshots"]
    aws.ec2.delete_snapshot(SnapshotId=gone)
    aws.write(warm.volumes[0], 0, block(8))
    warm.export()
    made = warm.bring("second")
    warm.assert_same(made)
    assert warm.put == 5 + 1, "the disk whose parent is there is put onto that"
    logs = [path.read_text(errors="replace") for path in (warm.exports.folder / "state").rglob("*") if path.is_file()]
    assert any("disk-0 is written whole" in log for log in logs)
    assert any("disk-1 is begun from export" in log for log in logs)


def test_a_parent_that_aws_refuses_is_told_and_all_is_put(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    warm.bring("first")
    aws.write(warm.volumes[0], 0, block(8))
    warm.export()
    aws.fault("StartSnapshot", "denied")
    made = warm.bring("second")
    warm.assert_same(made)
    assert warm.put == 5 + 1
    (said,) = made["warnings"]
    assert "disk-0 of second is written whole, as AWS refuses a child of snap-" in said


def test_a_parent_that_is_encrypted_otherwise_is_told_and_all_is_put(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    first = warm.bring("first")
    aws.write(warm.volumes[0], 0, block(8))
    warm.export()
    made = warm.bring("second", encrypted=True)
    warm.assert_same(made)
    assert warm.put == 7
    said = " ".join(made["warnings"])
    for snapshot in first["vm"]["details"]["snapshots"]:
        assert f"{snapshot}, of an export before, is not encrypted" in said
    aws.write(warm.volumes[0], BLOCK, block(10))
    warm.export()
    third = warm.bring("third", encrypted=True)  # on the second
    warm.assert_same(third)
    assert (warm.put, third["warnings"]) == (2, [])
    told = aws.ec2.describe_snapshots(SnapshotIds=third["vm"]["details"]["snapshots"])["Snapshots"]
    assert [one["Encrypted"] for one in told] == [True, True]


def test_an_instance_is_made_of_children_too_and_the_parents_stay(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    warm.bring("first")
    parents = warm.snapshots()
    aws.write(warm.volumes[1], 0, block(8))
    warm.export()
    made = warm.bring("cut-over", stop_at="instance", power_on=True)
    assert warm.put == 2
    for new, old in zip(aws.volumes(made["vm"]["id"]).values(), warm.volumes):
        assert aws.volume_bytes(new, 8 * BLOCK) == aws.volume_bytes(old, 8 * BLOCK)
    assert warm.snapshots() == parents


def test_what_fails_removes_its_children_and_no_parent_and_damage_is_found_as_ever(aws: AwsServer, warm: Warm) -> None:
    warm.export("full")
    warm.bring("first")
    parents = warm.snapshots()
    aws.write(warm.volumes[0], 0, block(8))
    made = warm.export()
    aws.fault("PutSnapshotBlock", "denied", times=-1)
    with pytest.raises(VmferryError) as refused:
        warm.bring("second")
    assert refused.value.kind == "permission_denied"
    assert warm.snapshots() == parents
    aws.heal()
    image = Path(made["disks"][0]["url"].removeprefix("file://"))
    held = bytearray(image.read_bytes())
    held[held.index(block(8)[:64]) + 7] ^= 1
    image.write_bytes(held)
    with pytest.raises(VmferryError) as damaged:
        warm.bring("second")
    assert damaged.value.kind == "checksum_mismatch"
    assert warm.snapshots() == parents


def test_a_snapshot_that_only_has_the_tags_is_no_parent(aws: AwsServer, warm: Warm) -> None:
    """As one of a volume that was written to since, whose tags went on to it."""
    warm.export("full")
    first = warm.bring("first")["vm"]["details"]["snapshots"]
    told = aws.ec2.describe_snapshots(SnapshotIds=first)["Snapshots"]
    aws.write(warm.volumes[0], 0, block(8))
    for one, volume in zip(sorted(told, key=lambda one: first.index(one["SnapshotId"])), warm.volumes):
        other = aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        aws.ec2.create_tags(Resources=[other], Tags=one["Tags"])
        aws.ec2.delete_snapshot(SnapshotId=one["SnapshotId"])
    warm.export()
    warm.assert_same(warm.bring("second"))
    assert warm.put == 7


def test_a_disk_of_an_odd_size_is_put_onto_its_parent_with_its_last_block(
    aws: AwsServer, provider: AwsProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_no_time(monkeypatch.setattr)
    old = noise(1, 3 * BLOCK + 1000)
    new = noise(2, 10) + old[10:]
    Import(provider).run(old, name="odd", stop_at="snapshot", power_on=False)
    placed = Placement(name="odd-2", stop_at="snapshot")
    aws.forget_calls()
    with provider.open_import(a_vm(new), {}, placed, "20261122T063000Z-1a2b3c4d", Job("0" * 32, "1a2b3c4e")) as session:
        (below,) = session.stand_on([EXPORT])
        assert below == Below(EXPORT, BLOCK)
        source = ChangedUnits(Memory(new), Changes(len(new)), below.unit)
        copy_blocks(source, session.sinks[0], None, limits=Limits.of_transfer(False, None), flow=Flow())
        made = session.commit()
    assert aws.snapshot_bytes(made.details["snapshots"][0], 4 * BLOCK) == new.ljust(4 * BLOCK, b"\0")
    assert len(aws.calls("PutSnapshotBlock")) == 2


class Changes(Memory):
    """Of its first ten bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(bytes(size))

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, 65536, "data")
        yield Extent(65536, self.size - 65536, "unchanged")
