# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs started, shut down and removed: what is asked of Proxmox VE, and what is refused before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, VmRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

STATUS = "/nodes/{node}/qemu/{vmid}/status"


def refused(work: Callable[[], Any]) -> VmferryError:
    with pytest.raises(VmferryError) as caught:
        work()
    assert caught.value.hint
    return caught.value


def asked(cluster: ProxmoxServer) -> list[str]:
    """What changes something."""
    return [f"{call['method']} {call['path']}" for call in cluster.calls() if call["method"] != "GET"]


def test_a_vm_is_started_and_shut_down(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vm = provider.describe(str(cluster.make_vm("web01")))
    assert provider.start(vm).power_state == "powered_on"
    assert provider.start(vm).power_state == "powered_on", "which it was already"
    assert provider.shut_down(vm, 30, force=False).power_state == "powered_off"
    assert provider.shut_down(vm, 30, force=False).power_state == "powered_off"
    assert asked(cluster).count(f"POST {STATUS}/shutdown") == 1


def test_a_guest_that_does_not_go_is_left_running_unless_that_is_asked(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vm = provider.describe(str(cluster.make_vm("web01", running=True)))
    stuck = {"kind": "task", "message": "VM quit/powerdown failed - got timeout", "times": -1}
    cluster.fault("POST", f"{STATUS}/shutdown", **stuck)
    error = refused(lambda: provider.shut_down(vm, 1, force=False))
    assert (error.kind, error.retryable, "force: true" in error.hint) == ("timeout", True, True)
    assert f"POST {STATUS}/stop" not in asked(cluster)
    assert provider.describe(vm.id).power_state == "powered_on"
    assert provider.shut_down(vm, 1, force=True).power_state == "powered_off"


def test_a_guest_that_goes_off_by_itself_meanwhile_is_off(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web01", running=True)
    vm = provider.describe(str(vmid))
    cluster.power(vmid, "off")
    cluster.fault("POST", f"{STATUS}/shutdown", "task", message="VM not running")
    assert provider.shut_down(vm, 5, force=False).power_state == "powered_off"


def test_high_availability_is_waited_for(
    cluster: ProxmoxServer, provider: ProxmoxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task ends when its manager was told, before anything has happened."""
    vmid = cluster.make_vm("web01")
    vm = provider.describe(str(vmid))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        cluster.power(vmid, "on")

    monkeypatch.setattr("time.sleep", sleep)
    session = provider._session
    monkeypatch.setattr(session, "run", lambda *_given: [])
    assert provider.start(vm).power_state == "powered_on"
    assert looks


@pytest.mark.parametrize("lock", ["migrate", "rollback", "snapshot-delete", "clone"])
def test_a_locked_vm_is_left_alone_and_the_lock_is_named(
    cluster: ProxmoxServer, provider: ProxmoxProvider, lock: str
) -> None:
    vmid = cluster.make_vm("web01", disks=())
    vm = provider.describe(str(vmid))
    cluster.set(vmid, lock=lock)
    for work in (
        lambda: provider.start(vm),
        lambda: provider.shut_down(vm, 1, force=True),
        lambda: provider.remove(vm, disks=True),
    ):
        error = refused(work)
        assert (error.kind, f"is locked by Proxmox VE: {lock}" in error.message) == ("busy", True)
        assert f"qm unlock {vmid}" in error.hint
    assert asked(cluster) == []


def test_a_hibernated_vm_is_not_shut_down(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web01", disks=())
    cluster.set(vmid, lock="suspended")
    vm = provider.describe(str(vmid))
    assert vm.power_state == "suspended"
    error = refused(lambda: provider.shut_down(vm, 1, force=True))
    assert (error.kind, "hibernated" in error.message) == ("conflict", True)


def test_a_template_does_not_start(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vm = provider.describe(str(cluster.make_vm("golden", disks=(), template=1)))
    assert refused(lambda: provider.start(vm)).kind == "unsupported"


@pytest.mark.parametrize(
    ("privileges", "work", "missing"),
    [
        (["VM.Audit"], lambda provider, vm: provider.start(vm), "VM.PowerMgmt"),
        (["VM.Audit", "VM.PowerMgmt"], lambda provider, vm: provider.remove(vm, disks=True), "VM.Allocate"),
    ],
)
def test_a_missing_privilege_is_named_with_its_path(
    cluster: ProxmoxServer, privileges: list[str], work: Callable[[ProxmoxProvider, Any], Any], missing: str
) -> None:
    vmid = cluster.make_vm("web01", disks=())
    user = f"u{vmid}@pve"
    provider = ProxmoxProvider(cluster.settings_of(user, {f"/vms/{vmid}": privileges}))
    vm = provider.describe(str(vmid))
    error = refused(lambda: work(provider, vm))
    assert error.kind == "permission_denied"
    assert f"{user} lacks the privilege {missing} on /vms/{vmid}" in error.message
    assert f"pveum acl modify /vms/{vmid} --users '{user}'" in error.hint


def test_no_quorum_is_told(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vm = provider.describe(str(cluster.make_vm("web01", disks=())))
    cluster.change(quorate=False)
    error = refused(lambda: provider.start(vm))
    assert (error.kind, "no quorum" in error.message) == ("conflict", True)


# --- removal ---------------------------------------------------------------------------------------------------------


def test_a_vm_is_removed_with_its_disks(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web01", [b"a" * 1024, b"b" * 1024])
    other = cluster.make_vm("other")
    vm = provider.describe(str(vmid))
    assert list(provider.remove(vm, disks=True)) == []
    assert list(cluster.vms()) == [other]
    assert [volume for volume in cluster.volumes() if f"vm-{vmid}-" in volume] == []
    assert refused(lambda: provider.describe(str(vmid))).kind == "not_found"


def test_a_disk_that_is_not_its_own_stays_and_is_named(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    owner = cluster.make_vm("owner")
    volume = cluster.vms()[owner]["config"]["scsi0"].partition(",")[0]
    vmid = cluster.make_vm("guest", disks=(), scsi3=f"{volume},size=1K", scsi4="/dev/nothing-there,size=1K")
    said = provider.remove(provider.describe(str(vmid)), disks=True)
    assert said == [
        f"disk-0 ({volume}) of guest stays: it belongs to VM {owner}.",
        "disk-1 (/dev/nothing-there) of guest stays: it is no volume of Proxmox VE's.",
    ]


def test_disks_that_were_to_stay_are_not_removed_with_it(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    """Proxmox VE knows no other removal than that with disks."""
    vmid = cluster.make_vm("web01")
    vm = provider.describe(str(vmid))
    error = refused(lambda: provider.remove(vm, disks=False))
    assert (error.kind, vm.disks[0].source in error.message) == ("unsupported", True)
    assert "remove_disks: true" in error.hint
    asked = VmRequest(ProviderSpec("proxmox", cluster.settings()), str(vmid), "absent")
    assert refused(lambda: bring_vm(asked, check_mode=True)).kind == "unsupported"
    assert bring_vm(replace(asked, remove_disks=True), check_mode=True)["changed"]
    assert vmid in cluster.vms()
    empty = provider.describe(str(cluster.make_vm("empty", disks=())))
    assert list(provider.remove(empty, disks=False)) == []


@pytest.mark.parametrize(
    ("config", "words"), [({"protection": 1}, "protected from removal"), ({"running": True}, "not powered_off")]
)
def test_what_runs_or_is_protected_is_not_removed(
    cluster: ProxmoxServer, provider: ProxmoxProvider, config: dict[str, Any], words: str
) -> None:
    vmid = cluster.make_vm("web01", **config)
    error = refused(lambda: provider.remove(provider.describe(str(vmid)), disks=True))
    assert (error.kind, words in error.message) == ("conflict", True)
    assert vmid in cluster.vms()
