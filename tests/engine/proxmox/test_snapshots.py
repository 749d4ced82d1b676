# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of VMs of Proxmox VE: made, kept to a number, gone back to and removed, and what would stop that."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    SnapshotRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.finding import Finding
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox import snapshots as room
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.drives import Volume
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.snapshot_checks import (
    makes_snapshots,
    of_privilege,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.snapshot_list import snapshots_in
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.snapshots import SnapshotService, SnapshotWish
from rigs.proxmox import ProxmoxServer

JOB = Job("3f1c9a2b7d1e4c589a510c3a0d5b6e77", "0c3a0d5b")
CREATE = "/nodes/{node}/qemu/{vmid}/snapshot"


def made(cluster: ProxmoxServer, **given: Any) -> int:
    return cluster.make_vm("web01", **{"format": "qcow2", **given})


def service(provider: ProxmoxProvider, vmid: int) -> SnapshotService:
    return provider.snapshots(provider.describe(str(vmid)))


def snapshot(cluster: ProxmoxServer, vmid: int, state: str = "present", **given: Any) -> dict[str, Any]:
    request = SnapshotRequest(ProviderSpec("proxmox", cluster.settings()), str(vmid), state, **given)
    return manage_snapshots(request, check_mode=False)


def errors(findings: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.message) for one in findings if one.severity == "error"]


def test_a_snapshot_is_made_listed_gone_back_to_and_removed(cluster: ProxmoxServer) -> None:
    vmid = made(cluster)
    first = snapshot(cluster, vmid, name="before-upgrade")
    told = first["snapshot"]
    assert first["changed"]
    assert {name: told[name] for name in ("name", "ours", "power_state", "memory", "consistency", "whole")} == {
        "name": "before-upgrade",
        "ours": True,
        "power_state": "powered_off",
        "memory": False,
        "consistency": "powered_off",
        "whole": True,
    }
    assert told["description"] == "Made by vmferry.migrate."
    assert [disk["name"] for disk in told["disks"]] == ["scsi0"]
    assert not snapshot(cluster, vmid, name="before-upgrade")["changed"]
    assert snapshot(cluster, vmid, "reverted", name="before-upgrade")["changed"]
    assert snapshot(cluster, vmid, "absent", name="before-upgrade")["removed"] == ["before-upgrade"]
    assert cluster.vms()[vmid]["snapshots"] == {}


def test_the_newest_of_ours_are_kept_and_those_of_others_not_counted(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    """They are made within one second, which is all that Proxmox VE tells of when."""
    vmid = made(cluster)
    path = f"nodes/{cluster.node}/qemu/{vmid}/snapshot"
    provider._session.run("theirs", lambda: provider._session.post(path, snapname="zz-theirs"), 60)
    for name in ("c-first", "b-second", "a-third"):
        result = snapshot(cluster, vmid, name=name, keep=2)
    assert result["removed"] == ["c-first"]
    assert [one["name"] for one in result["snapshots"]] == ["zz-theirs", "b-second", "a-third"]
    assert [one["ours"] for one in result["snapshots"]] == [False, True, True]
    assert [one["parent"] for one in result["snapshots"]] == ["", "zz-theirs", "b-second"]
    assert [one["current"] for one in result["snapshots"]] == [False, False, True]


def test_those_of_one_second_are_in_the_order_that_they_stand_on_each_other() -> None:
    rows = [
        {"name": "current", "parent": "a"},
        {"name": "a", "parent": "b", "snaptime": 5},
        {"name": "b", "parent": "c", "snaptime": 5},
        {"name": "c", "snaptime": 5},
        {"name": "d", "snaptime": 4},
    ]
    assert [row["name"] for row in snapshots_in(rows)] == ["d", "c", "b", "a"]


# --- a guest that runs -----------------------------------------------------------------------------------------------


def test_memory_is_held_where_that_is_asked_and_the_vm_runs(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = made(cluster, running=True)
    snapshots = service(provider, vmid)
    assert list(snapshots.create(SnapshotWish("live", memory=True), JOB, 60)) == []
    assert list(snapshots.create(SnapshotWish("disks"), JOB, 60)) == []
    found = {one.name: one for one in snapshots.list()}
    assert [found[name].memory for name in ("live", "disks")] == [True, False]
    assert found["disks"].consistency == "crash_consistent"
    assert found["live"].power_state == "powered_on"
    warned = snapshots.revert("disks", JOB, 60)
    assert "is off now" in "".join(warned)
    assert provider.describe(str(vmid)).power_state == "powered_off"


def test_an_agent_that_answers_makes_it_quiesced(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = made(cluster, running=True, agent="1")
    cluster.agent(vmid)
    snapshots = service(provider, vmid)
    assert not snapshots.check_create(SnapshotWish("one", quiesce="required"))
    assert list(snapshots.create(SnapshotWish("one", quiesce="required"), JOB, 60)) == []
    assert [one.consistency for one in snapshots.list()] == ["quiesced"]
    never = snapshots.check_create(SnapshotWish("two", quiesce="never"))
    assert [(one.severity, "freezes the file systems" in one.message) for one in never] == [("warning", True)]


@pytest.mark.parametrize(("agent", "words"), [("1", "does not answer"), ("1,freeze-fs=0", "may not freeze")])
def test_an_agent_that_does_not_freeze_is_told_before(
    cluster: ProxmoxServer, provider: ProxmoxProvider, agent: str, words: str
) -> None:
    vmid = made(cluster, running=True, agent=agent)
    if "freeze" in agent:
        cluster.agent(vmid)
    snapshots = service(provider, vmid)
    wanted = snapshots.check_create(SnapshotWish("one", quiesce="required"))
    assert [(kind, words in message) for kind, message in errors(wanted)] == [("unsupported", True)]
    weak = snapshots.check_create(SnapshotWish("one"))
    assert [(one.severity, words in one.message) for one in weak] == [("warning", True)]
    with pytest.raises(VmferryError) as caught:
        snapshots.create(SnapshotWish("one", quiesce="required"), JOB, 60)
    assert caught.value.kind == "unsupported"
    assert not snapshots.list()
    snapshots.create(SnapshotWish("one"), JOB, 60)
    assert [one.consistency for one in snapshots.list()] == ["crash_consistent"]


@pytest.mark.parametrize("said", ["guest-fsfreeze-freeze problems - got timeout", "unable to freeze guest fs - busy"])
def test_a_freeze_that_failed_is_found_in_the_log_of_the_task(
    cluster: ProxmoxServer, provider: ProxmoxProvider, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Proxmox VE makes the snapshot nevertheless, and calls the task a success."""
    vmid = made(cluster, running=True, agent="1")
    cluster.agent(vmid)
    monkeypatch.setattr(room, "log", lambda *_given: ["snapshotting", said])
    snapshots = service(provider, vmid)
    assert "did not freeze" in "".join(snapshots.create(SnapshotWish("weak"), JOB, 60))
    assert [one.consistency for one in snapshots.list()] == ["crash_consistent"]
    with pytest.raises(VmferryError) as caught:
        snapshots.create(SnapshotWish("strict", quiesce="required"), JOB, 60)
    assert (caught.value.kind, "was removed" in caught.value.message) == ("conflict", True)
    assert [one.name for one in snapshots.list()] == ["weak"]


# --- what would stop it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "volume", "wanted"),
    [
        ("dir", "local:100/vm-100-disk-0.qcow2", True),
        ("nfs", "nfs:100/vm-100-disk-0.qcow2", True),
        ("dir", "local:100/vm-100-disk-0.raw", False),
        ("dir", "local:100/vm-100-disk-0.vmdk", False),
        ("lvmthin", "local-lvm:vm-100-disk-0", True),
        ("lvm", "san:vm-100-disk-0", False),
        ("lvm", "san:vm-100-disk-0.qcow2", True),
        ("zfspool", "local-zfs:vm-100-disk-0", True),
        ("rbd", "ceph:vm-100-disk-0", True),
        ("iscsidirect", "iscsi:0.0.1.scsi-36001405", False),
    ],
)
def test_which_storages_make_snapshots(kind: str, volume: str, wanted: bool) -> None:
    assert makes_snapshots(kind, Volume(volume)) is wanted


def test_a_storage_that_makes_no_snapshots_is_told_before_with_the_disk(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = made(cluster, format="raw", scsi5="/dev/nothing-there,size=1K")
    found = errors(service(provider, vmid).check_create(SnapshotWish("one")))
    assert [kind for kind, _message in found] == ["unsupported", "unsupported"]
    assert f"scsi0 of web01 (local:{vmid}/vm-{vmid}-disk-0.raw) is raw on a storage of type dir" in found[0][1]
    assert "scsi5 of web01" in found[1][1]
    with pytest.raises(VmferryError):
        snapshot(cluster, vmid, name="one")
    assert cluster.vms()[vmid]["snapshots"] == {}


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        (SnapshotWish("x" * 41), "invalid_config"),
        (SnapshotWish("two words"), "invalid_config"),
        (SnapshotWish("1st"), "invalid_config"),
        (SnapshotWish("current"), "invalid_config"),
        (SnapshotWish("pending"), "invalid_config"),
        (SnapshotWish("a", memory=False), "invalid_config"),
        (SnapshotWish("one", method="internal"), "unsupported"),
        (SnapshotWish("one", temporary=True), "unsupported"),
    ],
)
def test_what_proxmox_would_not_take_is_told_before(
    cluster: ProxmoxServer, provider: ProxmoxProvider, wish: SnapshotWish, kind: str
) -> None:
    vmid = made(cluster, disks=())
    assert [found for found, _message in errors(service(provider, vmid).check_create(wish))] == [kind]


def test_templates_and_locked_vms_are_told_before(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = made(cluster, disks=(), template=1)
    snapshots = service(provider, vmid)
    assert [kind for kind, _message in errors(snapshots.check_create(SnapshotWish("one")))] == ["unsupported"]
    cluster.set(vmid, template=None, lock="backup")
    for found in (
        snapshots.check_create(SnapshotWish("one")),
        snapshots.check_remove("x"),
        snapshots.check_revert("x"),
    ):
        assert errors(found)[0] == ("busy", f"web01 ({vmid}) is locked by Proxmox VE: backup.")
    for work in (
        lambda: snapshots.create(SnapshotWish("one"), JOB, 60),
        lambda: snapshots.remove("one", JOB, 60),
        lambda: snapshots.revert("one", JOB, 60),
    ):
        with pytest.raises(VmferryError) as caught:
            work()
        assert caught.value.kind == "busy"


def test_a_snapshot_that_is_not_there_is_told(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    snapshots = service(provider, made(cluster, disks=()))
    for found in (snapshots.check_remove("x"), snapshots.check_revert("x")):
        assert errors(found) == [("not_found", "web01 has no snapshot x.")]


def test_zfs_goes_back_to_the_newest_alone_and_that_is_told_before(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = made(cluster)
    for name in ("one", "two"):
        snapshot(cluster, vmid, name=name)
    snapshots = service(provider, vmid)
    assert not snapshots.check_revert("one")
    cluster.change(storages={"local": {"type": "zfspool"}})
    try:
        assert [kind for kind, _message in errors(snapshots.check_revert("one"))] == ["conflict"]
        assert "two of web01 came after one" in snapshots.check_revert("one")[0].message
        assert not snapshots.check_revert("two")
    finally:
        cluster.change(storages={"local": {"type": "dir"}})


class Answer:
    """What `access/permissions` tells; the rig's tells of nobody."""

    settings = type("Settings", (), {"who": "backup@pve!nightly"})

    def __init__(self, told: Any) -> None:
        self.told = told

    def doing(self, _what: str) -> Any:
        from contextlib import nullcontext

        return nullcontext()

    def get(self, path: str, /, **_given: Any) -> Any:
        assert path == "access/permissions"
        return self.told


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ({"/vms/100": {"VM.Audit": 1}}, True),
        ({"/vms/100": {"VM.Snapshot.Rollback": 0}}, False),  # given here, and not handed down
        ({"/vms/100": {"VM.Snapshot": 1, "VM.Audit": 1}}, False),
        ({}, False),  # nobody knows
    ],
)
def test_a_missing_privilege_is_told_before(told: Any, missing: bool) -> None:
    vm: Any = type("Vm", (), {"id": "100", "name": "web01"})
    found: list[Finding] = of_privilege(Answer(told), vm, "VM.Snapshot", "VM.Snapshot.Rollback")  # type: ignore[arg-type]
    assert bool(found) is missing
    for one in found:
        assert "lacks the privilege VM.Snapshot or VM.Snapshot.Rollback on /vms/100" in one.message
        assert "--tokens 'backup@pve!nightly'" in one.hint


# --- what goes wrong meanwhile ---------------------------------------------------------------------------------------


def test_a_failed_task_leaves_none_and_says_why(cluster: ProxmoxServer) -> None:
    vmid = made(cluster)
    cluster.fault("POST", CREATE, "task", message="lvcreate snapshot 'pve/x' error: insufficient free space")
    with pytest.raises(VmferryError) as caught:
        snapshot(cluster, vmid, name="one")
    assert (caught.value.kind, "insufficient free space" in caught.value.message) == ("no_space", True)
    assert cluster.vms()[vmid]["snapshots"] == {}


def test_one_that_takes_too_long_is_ended(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = made(cluster)
    path = "/nodes/{node}/tasks/{upid}"
    cluster.fault("GET", f"{path}/status", "refuse", status=595, message="No route to host", times=-1)
    cluster.forget_calls()
    with pytest.raises(VmferryError) as caught:
        service(provider, vmid).create(SnapshotWish("one"), JOB, 0.3)
    assert caught.value.kind == "timeout"
    assert [call["path"] for call in cluster.calls() if call["method"] == "DELETE"] == [path]


def test_one_whose_removal_was_cut_off_is_removed_by_force(
    cluster: ProxmoxServer, provider: ProxmoxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmid = made(cluster)
    snapshot(cluster, vmid, name="half")
    snapshots = service(provider, vmid)
    session, sent = provider._session, []
    get, delete = session.get, session.delete

    def cut_off(path: str, **given: Any) -> Any:
        told = get(path, **given)
        for row in told if path.endswith("/snapshot") else ():
            row.update({"snapstate": "delete"} if row["name"] == "half" else {})
        return told

    monkeypatch.setattr(session, "get", cut_off)
    monkeypatch.setattr(session, "delete", lambda path, **given: sent.append(given) or delete(path, **given))
    assert [one.whole for one in snapshots.list()] == [False]
    snapshots.remove("half", JOB, 60)
    assert sent == [{"force": 1}]
    assert cluster.vms()[vmid]["snapshots"] == {}


def test_consolidation_means_nothing_there(cluster: ProxmoxServer) -> None:
    vmid = made(cluster, disks=())
    with pytest.raises(VmferryError) as caught:
        snapshot(cluster, vmid, "consolidated")
    assert (caught.value.kind, "state: absent" in caught.value.hint) == ("unsupported", True)
