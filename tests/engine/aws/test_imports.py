# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports into AWS: what is there afterwards, read from the instance's volumes without any code of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.provider import AwsProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import NicSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from rigs.aws import AwsServer

from .importing import BLOCK, EXPORT, MIB, SMALL, SYSTEM, Import, Memory, a_vm, in_no_time, noise

GIB = 1 << 30
STATE = "vmferry:state"


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


def content(aws: AwsServer, instance: str, *lengths: int) -> list[bytes]:
    """Of each volume that much, and of the rest that there is nothing but zeros."""
    found = []
    for volume, length in zip(aws.volumes(instance).values(), lengths):
        whole = aws.volume_bytes(volume)
        assert not whole[length:].strip(b"\0")
        found.append(whole[:length].ljust(length, b"\0"))
    return found


def instance_of(aws: AwsServer, vm: str) -> dict[str, Any]:
    (reservation,) = aws.ec2.describe_instances(InstanceIds=[vm])["Reservations"]
    found: dict[str, Any] = reservation["Instances"][0]
    return found


def test_disks_become_volumes_of_an_instance_that_runs(aws: AwsServer, importing: Import) -> None:
    made = importing.run(name="runs")
    assert (made.name, made.power_state, made.firmware) == ("runs", "powered_on", "bios")
    assert content(aws, made.id, len(SYSTEM), len(SMALL)) == [SYSTEM, SMALL]
    assert [disk.size for disk in made.disks] == [GIB, GIB]
    assert list(aws.volumes(made.id)) == ["/dev/sda1", "/dev/sdf"]
    source = a_vm()
    assert made.details["imported_from"] == {"export": EXPORT, "vm": source.id, "vm_name": source.name}


def test_what_is_not_whole_is_no_vm_that_was_imported(aws: AwsServer, importing: Import) -> None:
    tags = {"vmferry:import": "half", "vmferry:source": "6f1d", STATE: "unfinished"}
    assert importing.provider.describe(aws.make_instance("half", tags=tags)).details["imported_from"] == {}


def test_nothing_but_the_instance_is_left(aws: AwsServer, importing: Import) -> None:
    before = aws.leftovers()
    made = importing.run(name="alone")
    left = aws.leftovers()
    assert (left.snapshots, left.images) == (before.snapshots, before.images)
    assert set(left.volumes) - set(before.volumes) == set(aws.volumes(made.id).values())
    ours = [left.instances[made.id], *(left.volumes[volume] for volume in aws.volumes(made.id).values())]
    assert all(tags["vmferry:export"] == EXPORT and STATE not in tags for tags in ours)
    assert all(one["Ebs"]["DeleteOnTermination"] for one in instance_of(aws, made.id)["BlockDeviceMappings"])


def test_zeros_are_not_sent(aws: AwsServer, importing: Import) -> None:
    disk = bytes(MIB) + noise(1, 10) + bytes(6 * MIB) + noise(2, BLOCK) + bytes(5)
    aws.forget_calls()
    made = importing.run(disk, name="sparse")
    assert len(aws.calls("PutSnapshotBlock")) == 3  # its second half ends in a block of its own
    assert content(aws, made.id, len(disk)) == [disk]


def test_disk_without_data_is_imported(aws: AwsServer, importing: Import) -> None:
    made = importing.run(bytes(MIB), name="empty")
    assert content(aws, made.id, MIB) == [bytes(MIB)]


@pytest.mark.parametrize("size", [1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 65_537])
def test_odd_sizes_end_with_zeros(aws: AwsServer, importing: Import, size: int) -> None:
    disk = noise(size, size)
    made = importing.run(disk, name=f"odd-{size}", stop_at="snapshot", power_on=False)
    assert aws.snapshot_bytes(made.disks[0].source, size + 100) == disk + bytes(100)


def test_size_is_rounded_up_to_whole_gib(aws: AwsServer, importing: Import) -> None:
    class Sparse(Memory):
        def __init__(self) -> None:
            super().__init__(SMALL)
            self.size = GIB + 1

        def extents(self) -> Any:
            yield Extent(0, GIB, "zero")
            yield Extent(GIB, 1, "data")

        def read_into(self, pieces: Any) -> None:
            for _offset, buffer in pieces:
                buffer[:] = b"x"

    vm = a_vm(b"")
    disk = vm.disks[0].__class__(**{**vars(vm.disks[0]), "size": GIB + 1})
    placed = Placement("large", stop_at="snapshot")
    with importing.provider.open_import(vm.with_disks((disk,)), {}, placed, EXPORT, Job("0" * 32, "1arge")) as session:
        copy_blocks(Sparse(), session.sinks[0], None, limits=Limits.of_transfer(False, None), flow=Flow())
        made = session.commit()
    assert made.disks[0].size == 2 * GIB
    ebs, snapshot = aws.client("ebs"), made.disks[0].source
    (block,) = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    assert block["BlockIndex"] == GIB // BLOCK
    answer = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=GIB // BLOCK, BlockToken=block["BlockToken"])
    assert answer["BlockData"].read() == b"x".ljust(BLOCK, b"\0")


def test_what_was_written_is_read_back_before_there_is_an_instance(aws: AwsServer, importing: Import) -> None:
    vm, placed = a_vm(SYSTEM), Placement("verified", power_on=True)
    assert importing.provider.reads_back
    with importing.provider.open_import(vm, {}, placed, EXPORT, Job("0" * 32, "read0bac")) as session:
        copy_blocks(Memory(SYSTEM), session.sinks[0], None, limits=Limits.of_transfer(False, None), flow=Flow())
        (source,) = session.read_back()
        assert "RunInstances" not in "".join(aws.calls())
        buffer = bytearray(len(SYSTEM))
        source.read_into([(0, memoryview(buffer))])
        assert (bytes(buffer), source.size) == (SYSTEM, GIB)
        assert [one.kind for one in source.extents()] == ["data", "zero", "data", "zero"]
        session.commit()


# --- what a task asks for ---------------------------------------------------------------------------------------------


def test_import_that_is_not_to_run_is_stopped(aws: AwsServer, importing: Import) -> None:
    made = importing.run(SMALL, name="off", power_on=False)
    assert made.power_state == "powered_off"
    assert instance_of(aws, made.id)["State"]["Name"] == "stopped"


def test_import_stops_at_the_image(aws: AwsServer, importing: Import) -> None:
    made = importing.run(name="picture", stop_at="image", power_on=False)
    (image,) = aws.ec2.describe_images(ImageIds=[made.id])["Images"]
    snapshots = [one["Ebs"]["SnapshotId"] for one in image["BlockDeviceMappings"]]
    assert [aws.snapshot_bytes(one, len(disk)) for one, disk in zip(snapshots, (SYSTEM, SMALL))] == [SYSTEM, SMALL]
    assert [disk.source for disk in made.disks] == snapshots
    left = aws.leftovers()
    assert STATE not in left.images[made.id]
    assert all(STATE not in left.snapshots[one] for one in snapshots)
    assert not [tags for tags in left.instances.values() if tags["Name"] == "picture"]


def test_import_stops_at_snapshots(aws: AwsServer, importing: Import) -> None:
    made = importing.run(name="disks", stop_at="snapshot", power_on=False)
    assert [aws.snapshot_bytes(one.source, len(disk)) for one, disk in zip(made.disks, (SYSTEM, SMALL))] == [
        SYSTEM,
        SMALL,
    ]
    assert made.details["made"] == "snapshot"
    assert all(STATE not in aws.leftovers().snapshots[disk.source] for disk in made.disks)
    assert not [tags for tags in aws.leftovers().images.values() if tags["Name"] == "disks"]


@pytest.mark.parametrize(
    ("firmware", "architecture", "asked", "mode"),
    [
        ("bios", "x86_64", "", "legacy-bios"),
        ("uefi", "x86_64", "", "uefi"),
        ("bios", "x86_64", "uefi", "uefi"),
        ("unknown", "aarch64", "", "uefi"),
    ],
)
def test_image_boots_as_the_vm_did(
    aws: AwsServer, importing: Import, firmware: Any, architecture: str, asked: str, mode: str
) -> None:
    vm = a_vm(SMALL, firmware=firmware, architecture=architecture)
    placed = {"stop_at": "image", "power_on": False, "firmware": asked}
    made = importing.run(SMALL, vm=vm, name=f"boots-{architecture}-{firmware}-{asked}", **placed)
    (image,) = aws.ec2.describe_images(ImageIds=[made.id])["Images"]
    assert (image["BootMode"], image["EnaSupport"], image["VirtualizationType"]) == (mode, True, "hvm")
    assert image["Architecture"] == {"aarch64": "arm64"}.get(architecture, architecture)
    assert image["RootDeviceName"] == "/dev/sda1"


@pytest.mark.parametrize(
    ("cpu", "memory", "chosen"), [(1, 512, "m7i.large"), (4, 1024, "m7i.xlarge"), (2, 9000, "m7i.xlarge")]
)
def test_smallest_type_that_holds_the_vm_is_chosen(importing: Import, cpu: int, memory: int, chosen: str) -> None:
    vm = a_vm(SMALL, cpu=cpu, memory_mb=memory)
    found = importing.provider.check_import(vm, Placement("chosen"), EXPORT)
    assert [one.message for one in found if one.severity == "info" and chosen in one.message]


def test_asked_hardware_counts_instead_of_the_exported(importing: Import) -> None:
    vm = a_vm(SMALL, cpu=64, memory_mb=4096)
    found = importing.provider.check_import(vm, Placement("fewer", cpu=2, memory_mb=1024), EXPORT)
    assert [one.message for one in found if "type m7i.large" in one.message]


def test_instance_lands_where_the_task_says(aws: AwsServer, importing: Import) -> None:
    network = aws.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    first = aws.ec2.create_subnet(VpcId=network, CidrBlock="10.9.1.0/24", AvailabilityZone=f"{aws.region}a")["Subnet"]
    second = aws.ec2.create_subnet(VpcId=network, CidrBlock="10.9.2.0/24", AvailabilityZone=f"{aws.region}a")["Subnet"]
    aws.ec2.create_tags(Resources=[second["SubnetId"]], Tags=[{"Key": "Name", "Value": "inner"}])
    group = aws.ec2.create_security_group(GroupName="doors", Description="d", VpcId=network)["GroupId"]
    aws.ec2.create_key_pair(KeyName="admin")
    vm = a_vm(
        SMALL,
        nics=(NicSpec("nic-0", "52:54:00:00:00:01", "lan"), NicSpec("nic-1", "52:54:00:00:00:02", "dmz")),
    )
    made = importing.run(
        SMALL,
        vm=vm,
        name="placed",
        instance_type="m5.xlarge",
        subnet_id=first["SubnetId"],
        network_map={"dmz": "inner"},
        security_groups=["doors"],
        key_name="admin",
        volume_type="gp2",
    )
    told = instance_of(aws, made.id)
    assert (told["InstanceType"], told["KeyName"]) == ("m5.xlarge", "admin")
    cards = sorted(told["NetworkInterfaces"], key=lambda one: one["Attachment"]["DeviceIndex"])
    assert [card["SubnetId"] for card in cards] == [first["SubnetId"], second["SubnetId"]]
    assert all([one["GroupId"] for one in card["Groups"]] == [group] for card in cards)
    (volume,) = aws.ec2.describe_volumes(VolumeIds=list(aws.volumes(made.id).values()))["Volumes"]
    assert volume["VolumeType"] == "gp2"


def test_one_card_lands_in_the_subnet_of_the_task(aws: AwsServer, importing: Import) -> None:
    network = aws.ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.ec2.create_subnet(VpcId=network, CidrBlock="10.8.1.0/24")["Subnet"]["SubnetId"]
    group = aws.ec2.create_security_group(GroupName="one", Description="d", VpcId=network)["GroupId"]
    made = importing.run(SMALL, name="one-card", subnet_id=subnet, security_groups=[group])
    told = instance_of(aws, made.id)
    assert (told["SubnetId"], [one["GroupId"] for one in told["SecurityGroups"]]) == (subnet, [group])


def test_disks_have_the_type_that_the_map_says(aws: AwsServer, importing: Import) -> None:
    made = importing.run(name="mapped", storage_map={"disk-1": "standard"})
    kinds = {
        one["VolumeId"]: one["VolumeType"]
        for one in aws.ec2.describe_volumes(VolumeIds=list(aws.volumes(made.id).values()))["Volumes"]
    }
    assert [kinds[volume] for volume in aws.volumes(made.id).values()] == ["gp3", "standard"]


def test_encrypted_disks_are_encrypted_with_the_key_of_the_task(aws: AwsServer, importing: Import) -> None:
    key = f"arn:aws:kms:{aws.region}:{aws.account}:key/0f8a2b6c-1111-2222-3333-444455556666"
    made = importing.run(SMALL, name="sealed", stop_at="snapshot", power_on=False, encrypted=True, kms_key_id=key)
    (snapshot,) = aws.ec2.describe_snapshots(SnapshotIds=[made.disks[0].source])["Snapshots"]
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, key)
    plain = importing.run(SMALL, name="open", stop_at="snapshot", power_on=False)
    (snapshot,) = aws.ec2.describe_snapshots(SnapshotIds=[plain.disks[0].source])["Snapshots"]
    assert not snapshot["Encrypted"]


def test_instance_profile_is_given(aws: AwsServer, importing: Import) -> None:
    aws.client("iam").create_instance_profile(InstanceProfileName="worker")
    made = importing.run(SMALL, name="with-role", iam_instance_profile="worker")
    assert instance_of(aws, made.id)["IamInstanceProfile"]["Arn"].endswith("/worker")


# --- a second run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", ["snapshot", "image", "instance"])
def test_second_run_finds_what_the_first_made(importing: Import, stop_at: str) -> None:
    name = f"again-{stop_at}"
    made = importing.run(name=name, stop_at=stop_at, power_on=stop_at == "instance")
    found = importing.provider.imported(name)
    assert found is not None
    assert (found[0].id, found[1]) == (made.id, EXPORT)
    assert [disk.source for disk in found[0].disks] == [disk.source for disk in made.disks]
    assert importing.provider.made_otherwise(found[0], Placement(name, stop_at=stop_at)) == ""
    others = {"snapshot": "image", "image": "snapshot", "instance": "image"}
    assert "already, as" in importing.provider.made_otherwise(found[0], Placement(name, stop_at=others[stop_at]))


def test_instance_of_another_type_is_a_conflict(importing: Import) -> None:
    made = importing.run(SMALL, name="typed")
    asked = Placement("typed", instance_type="m5.large")
    assert "of the type m7i.large" in importing.provider.made_otherwise(made, asked)
    assert "firmware bios" in importing.provider.made_otherwise(made, Placement("typed", firmware="uefi"))


def test_nothing_is_found_where_nothing_is(importing: Import) -> None:
    assert importing.provider.imported("nobody") is None


def test_terminated_instance_can_be_imported_again(aws: AwsServer, importing: Import) -> None:
    made = importing.run(SMALL, name="gone")
    aws.ec2.terminate_instances(InstanceIds=[made.id])
    assert importing.provider.imported("gone") is None
    assert importing.run(SMALL, name="gone").id != made.id
