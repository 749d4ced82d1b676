# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change tracking is switched on where it can be, and a token that does not tell any more is never believed."""

from __future__ import annotations

import re
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import LONGEST_TOKEN
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.change_token import (
    PREFIX,
    read_token,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.frozen_disks import (
    FrozenDisk,
    FrozenDisks,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.tracking import (
    changes_since,
    switch_on,
)
from rigs.vsphere import Disk, VSphere

from .points import LEAF, Points, data_in, whole_token

MIB = 1 << 20
MakePoints = Callable[..., Points]


@pytest.fixture
def make(vcenter: VSphere, settings: dict[str, Any]) -> Iterator[MakePoints]:
    made: list[Points] = []

    def points(*disks: Disk, **hardware: Any) -> Points:
        made.append(Points(vcenter, settings, disks or [Disk(b"x", size=MIB)], **hardware))
        return made[-1]

    yield points
    for one in made:
        one.close()


def since(points: Points, frozen: FrozenDisks, token: str) -> tuple[dict[str, list[tuple[int, int]]], str]:
    found = changes_since(points.session, points.vm(), frozen, list(frozen.disks), token)
    return {name: data_in(list(areas.extents())) for name, areas in found.areas.items()}, found.lost


# --- tokens -----------------------------------------------------------------------------------------------------------


def frozen(*disks: FrozenDisk) -> FrozenDisks:
    return FrozenDisks("snapshot-7", {one.name: one for one in disks}, True)


def a_disk(name: str = "scsi0:0", change_id: str = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81") -> FrozenDisk:
    uuid = "6000C29a-1f6e-5b0c-9a3d-1d2c3b4a5968"
    return FrozenDisk(2000, name, MIB, "[ds] web/web.vmdk", uuid, change_id, True)


def test_token_is_a_plain_name_that_holds_what_has_to_be_asked_later() -> None:
    token = whole_token(frozen(a_disk(), a_disk("scsi0:1", "")))
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    told = read_token(token)
    assert told is not None
    assert list(told) == ["scsi0:0"], "what is not tracked is not in it"
    assert (told["scsi0:0"].key, told["scsi0:0"].change_id) == (2000, a_disk().change_id)
    assert whole_token(frozen(a_disk(change_id=""))) == ""


def test_token_of_a_vm_with_all_the_disks_that_one_may_have_fits_a_manifest() -> None:
    def noise(number: int) -> str:
        return " ".join(re.findall("..", zlib.crc32(bytes([number])).to_bytes(4, "big").hex() * 4))

    disks = [
        replace(a_disk(f"scsi{number // 64}:{number % 64}", f"{noise(number)}/{number}"), uuid=noise(255 - number))
        for number in range(256)
    ]
    token = whole_token(frozen(*disks))
    assert len(token) <= LONGEST_TOKEN
    told = read_token(token)
    assert told is not None
    assert len(told) == 256


def packed(text: str) -> str:
    return PREFIX + urlsafe_b64encode(zlib.compress(text.encode())).decode()


@pytest.mark.parametrize(
    "token",
    [
        "vmferry-0badc0de-1a2b3c4d",
        "vsphere-2-abc",
        PREFIX,
        PREFIX + "abc",
        packed("[]"),
        packed("{}"),
        packed('{"disks": []}'),
        packed('{"disks": {"scsi0:0": []}}'),
        packed('{"disks": {"scsi0:0": [1e999, "", "a/1"]}}'),
        packed('{"disks": {"scsi0:0": [2000, "", ""]}}'),
        packed("[" * 60_000),
        packed('{"disks": {"' + "x" * 10_000_000 + '": [2000, "", "a/1"]}}'),
    ],
)
def test_what_is_no_token_is_none(token: str) -> None:
    assert read_token(token) is None


# --- since a token ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_token_tells_of_each_disk_what_was_written_since(make: MakePoints) -> None:
    points = make(Disk(b"x", size=MIB), Disk(b"y", size=MIB), Disk(b"z", size=MIB, mode="independent_persistent"))
    token = whole_token(points.take())
    assert token
    points.write(5 * LEAF, b"new", disk=1)
    assert since(points, points.take(), token) == ({"scsi0:0": [], "scsi0:1": [(5 * LEAF, LEAF)]}, "")


@pytest.mark.slow
def test_disk_that_the_token_does_not_know_is_left_to_digests(make: MakePoints) -> None:
    points = make(Disk(b"x", size=MIB), Disk(b"y", size=MIB))
    taken = points.take()
    known = replace(taken, disks={"scsi0:0": taken.disks["scsi0:0"]})
    assert since(points, points.take(), whole_token(known)) == ({"scsi0:0": []}, "")


@pytest.mark.slow
def test_lost_tracking_is_told_and_nothing_of_it_is_believed(make: MakePoints) -> None:
    points = make(Disk(b"x", size=MIB), Disk(b"y", size=MIB))
    taken = points.take()
    token = whole_token(taken)
    assert since(points, points.take(), "") == ({}, "")
    assert "none that this version can read" in since(points, points.frozen(points.taken), "vsphere-9-x")[1]
    points.vcenter.reset_tracking(points.moref)
    areas, lost = since(points, points.take(), token)
    assert (areas, lost) == ({}, f"The change tracking of scsi0:0 of {points.name} was reset since the last export.")


@pytest.mark.slow
def test_disk_of_another_backing_in_the_same_place_is_another_disk(make: MakePoints) -> None:
    points = make()
    taken = points.take()
    for other in ({"uuid": "another"}, {"key": 2001}):
        disk: Any = replace(taken.disks["scsi0:0"], **other)
        areas, lost = since(points, taken, whole_token(replace(taken, disks={"scsi0:0": disk})))
        assert (areas, lost) == ({}, f"scsi0:0 of {points.name} is another disk than at the last export.")


@pytest.mark.slow
def test_vm_that_went_back_to_an_older_snapshot_is_read_in_full(make: MakePoints) -> None:
    points = make()
    older = points.snapshot("older")
    token = whole_token(points.frozen(points.snapshot("export")))
    points.revert(older)
    areas, lost = since(points, points.take(), token)
    assert areas == {}
    assert "was reset since the last export" in lost


@pytest.mark.slow
def test_change_id_that_did_not_move_on_is_not_believed(make: MakePoints) -> None:
    points = make()
    taken = points.take()
    token = whole_token(taken)
    assert "went back to what it was" in since(points, taken, token)[1]


@pytest.mark.slow
def test_tracking_that_was_switched_off_is_told(make: MakePoints) -> None:
    points = make()
    taken = points.take()
    token = whole_token(taken)
    off = replace(taken, disks={"scsi0:0": replace(taken.disks["scsi0:0"], change_id="")})
    assert since(points, off, token)[1] == f"Changes of scsi0:0 of {points.name} are not tracked any more."


# --- switching it on --------------------------------------------------------------------------------------------------


def switched(points: Points) -> tuple[bool, list[str]]:
    """Whether the VM was halted, and what is said."""
    vm = points.vm()
    halts: list[bool] = []
    said = switch_on(points.session, vm, vm.disks, lambda: halts.append(True) or points.halt())
    return bool(halts), said


@pytest.mark.slow
@pytest.mark.parametrize("running", [True, False])
def test_tracking_is_switched_on_and_the_next_point_in_time_has_change_ids(make: MakePoints, running: bool) -> None:
    points = make(tracking=False, running=running)
    halted, said = switched(points)
    assert (halted, said) == (
        True,
        [f"Change tracking of {points.name} was switched on, for the next increment."],
    )
    assert points.take().disks["scsi0:0"].change_id
    points.remove(points.taken)
    assert not points.vm().snapshots, "the snapshot that put it into effect is gone"
    assert switched(points) == (False, []), "once is enough"


@pytest.mark.slow
def test_tracking_that_is_on_and_not_in_effect_only_needs_the_halt(make: MakePoints) -> None:
    from pyVmomi import vim

    points = make(tracking=False)
    points.reconfigure(vim.vm.ConfigSpec(changeTrackingEnabled=True))
    points.vcenter.forget_calls()
    assert switched(points) == (True, [])
    assert not points.vcenter.calls("ReconfigVM_Task")
    assert points.take().disks["scsi0:0"].change_id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hardware", "why"),
    [
        ({"version": "vmx-04"}, "virtual hardware of version 4, and 7 is needed"),
        ({"snapshot": True}, "it has snapshots, and must have none at that moment"),
        ({"consolidation": True}, "its disks need consolidation"),
    ],
)
def test_what_cannot_be_tracked_stays_as_it_is_and_is_told(
    make: MakePoints, hardware: dict[str, Any], why: str
) -> None:
    snapshot, consolidation = hardware.pop("snapshot", False), hardware.pop("consolidation", False)
    points = make(tracking=False, **hardware)
    if snapshot:
        points.snapshot("theirs")
    if consolidation:
        points.vcenter.need_consolidation(points.moref)
    points.vcenter.forget_calls()
    halted, said = switched(points)
    assert not halted
    assert why in said[0]
    assert "An increment reads the whole disks" in said[0]
    assert not points.vcenter.calls("ReconfigVM_Task")


@pytest.mark.slow
def test_disks_that_are_in_no_snapshot_need_no_tracking(make: MakePoints) -> None:
    points = make(Disk(b"x", size=MIB, mode="independent_persistent"), tracking=False)
    assert switched(points) == (False, [])
    assert not points.vm().details["change_tracking"]


@pytest.mark.slow
def test_missing_privilege_costs_the_tracking_and_not_the_export(make: MakePoints) -> None:
    points = make(tracking=False)
    missing = "VirtualMachine.Config.ChangeTracking"
    points.vcenter.fault("ReconfigVM_Task", "fault", fault="NoPermission", missing=missing)
    _halted, said = switched(points)
    assert said[0].startswith(f"Changes of {points.name} are not tracked: Switching change tracking")
    assert f"the privilege {missing} is missing" in said[0]
    points.vcenter.fault("ReconfigVM_Task", "drop")
    with pytest.raises(VmferryError, match="may have done it nevertheless"):
        switched(points)
