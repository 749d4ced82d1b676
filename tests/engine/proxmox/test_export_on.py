# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that run: one point in time of all disks, what changed since another one, and a guest that notices nothing."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers import qemu_serving
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .exporting import (
    EFI_BYTES,
    LEAF,
    MIB,
    a_job,
    an_export,
    changed_leaves,
    changes_of,
    contents,
    disk,
    increments,
    noise,
)

TWO = ["scsi0", "virtio1"]


def guest_writes(cluster: ProxmoxServer, vmid: int) -> None:
    cluster.write(vmid, "scsi0", 0, b"after the moment" * 4096)
    cluster.write(vmid, "virtio1", MIB, b"after the moment" * 4096)


@pytest.mark.parametrize(
    ("release", "transport", "storage", "format"),
    [(9, "ssh", "local", "qcow2"), (9, "node", "thin", "raw"), (8, "ssh", "local", "raw")],
)
def test_a_full_export_and_an_increment_are_what_all_disks_were_at_one_moment(
    cluster: ProxmoxServer, release: int, transport: str, storage: str, format: str
) -> None:
    with ProxmoxServer(release=release) if release != 9 else nullcontext(cluster) as server:
        vmid = server.make_vm("web", [disk(1), disk(2)], True, storage, format, keys=TWO)
        provider = ProxmoxProvider(server.settings(transport))
        with server.on_the_node() if transport == "node" else nullcontext():
            before = {name: server.disk_bytes(vmid, name) for name in TWO}
            with an_export(provider, vmid, keep=True) as full:
                guest_writes(server, vmid)
                assert contents(full) == before
                full.confirm()
                full.keep_token()
            server.discard(vmid, "scsi0", 3 * MIB, 2 * LEAF)
            middle = {name: server.disk_bytes(vmid, name) for name in TWO}
            with an_export(provider, vmid, since=full.token, keep=True) as increment:
                server.write(vmid, "scsi0", 2 * MIB, noise(LEAF, 9))
                assert not increment.lost
                assert increments(increment, before) == middle
                assert contents(increment) == middle
                leaves = {one.spec.name: changed_leaves(changes_of(one)) for one in increment.disks}
                increment.keep_token()
            assert [(first, count) for first, count, _kind in leaves["scsi0"]] == [(0, 1), (48, 2)]
            assert [(first, count) for first, count, _kind in leaves["virtio1"]] == [(16, 1)]
            assert sorted(provider.tokens(provider.describe(str(vmid)))) == sorted([full.token, increment.token])
            vm = provider.describe(str(vmid))
            assert provider.changed_since(vm, vm.disks, increment.token) == {"scsi0": LEAF, "virtio1": 0}
            assert len(provider.forget(vm, [full.token, increment.token])) == 2
            assert provider.forget(vm, [full.token]) == []
            provider.close()
        assert not server.leftovers()
        assert not server.wrong_calls()


def test_a_discarded_range_hides_what_was_there(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk()], True, format="qcow2")
    with an_export(provider, vmid, keep=True) as full:
        full.keep_token()
    cluster.zero(vmid, 0, 0, LEAF)
    with an_export(provider, vmid, since=full.token) as increment:
        assert changed_leaves(changes_of(increment.disks[0])) == [(0, 1, "zero")]
    assert provider.tokens(provider.describe(str(vmid))) == [full.token]


def test_what_an_export_that_fails_would_have_told_is_told_by_the_next(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    with an_export(provider, vmid, keep=True) as full:
        full.keep_token()
    cluster.write(vmid, 0, 0, noise(LEAF, 5))
    with an_export(provider, vmid, since=full.token, keep=True):  # no word that its token is to be kept
        cluster.write(vmid, 0, 2 * LEAF, noise(LEAF, 6))
    assert provider.tokens(provider.describe(str(vmid))) == [full.token]
    with an_export(provider, vmid, since=full.token) as increment:
        assert changed_leaves(changes_of(increment.disks[0])) == [(0, 1, "data"), (2, 1, "data")]


def test_a_token_that_its_qemu_took_with_it_is_lost_and_said(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    with an_export(provider, vmid, keep=True) as full:
        full.keep_token()
    cluster.power(vmid, "off")
    cluster.power(vmid, "on")
    with an_export(provider, vmid, since=full.token, keep=True) as after:
        assert f"no dirty bitmap {full.token}" in after.lost
        assert after.disks[0].changes is None
        assert after.token


def test_a_disk_that_came_later_is_read_whole_and_the_others_are_not(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk(1), disk(2)], True, keys=TWO)
    with an_export(provider, vmid, keep=True) as full:
        full.keep_token()
    node = next(node for node, names in cluster.bitmaps(vmid).items() if names)
    cluster.qmp(vmid, "block-dirty-bitmap-remove", node=node, name=full.token)
    with an_export(provider, vmid, since=full.token) as increment:
        assert not increment.lost
        assert sorted(one.changes is None for one in increment.disks) == [False, True]


def test_a_guest_with_an_agent_is_frozen_for_the_moment_and_thawed(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()], True, agent="1")
    cluster.agent(vmid)
    with an_export(provider, vmid, consistency="quiesced") as session:
        asked = cluster.agent_asked(vmid)
        assert not asked["frozen"], "while the disks are read, it is not frozen any more"
        assert [name for name, _words in asked["requests"] if name != "ping"] == ["fsfreeze-freeze", "fsfreeze-thaw"]
        assert (session.consistency, session.warnings) == ("quiesced", [])


def test_a_guest_that_cannot_be_frozen_is_exported_all_the_same_unless_it_has_to_be(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()], True, agent="1")
    cluster.agent(vmid)
    freeze = "/nodes/{node}/qemu/{vmid}/agent/fsfreeze-freeze"
    cluster.fault("POST", freeze, "refuse", status=500, message="guest agent command failed")
    with an_export(provider, vmid) as session:
        assert session.consistency == "crash_consistent"
        assert "Freezing the file systems of web failed" in session.warnings[0]
    cluster.fault("POST", freeze, "refuse", status=500, message="guest agent command failed")
    with pytest.raises(VmferryError, match="Freezing the file systems of web"):
        an_export(provider, vmid, consistency="quiesced").__enter__()
    assert not cluster.agent_asked(vmid)["frozen"]
    assert not cluster.leftovers()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "no guest agent switched on"),
        ({"agent": "1"}, "does not answer"),
        ({"agent": "1,freeze-fs=0"}, "may not freeze"),
    ],
)
def test_why_a_guest_is_not_frozen_is_said(
    cluster: ProxmoxServer, provider: ProxmoxProvider, config: dict[str, str], said: str
) -> None:
    vmid = cluster.make_vm("web", [disk()], True, **config)
    with an_export(provider, vmid) as session:
        assert said in session.warnings[0]
        assert session.consistency == "crash_consistent"
    with pytest.raises(VmferryError, match=said) as refused:
        an_export(provider, vmid, consistency="quiesced").__enter__()
    assert refused.value.kind == "unsupported"


def test_the_firmware_s_variables_are_those_of_the_moment_and_the_tpm_s_state_is_there(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    variables, tpm = noise(EFI_BYTES, 3), noise(4 * MIB, 4)
    keys = ["scsi0", "efidisk0", "tpmstate0"]
    vmid = cluster.make_vm("web", [disk(), variables, tpm], True, keys=keys, bios="ovmf")
    with an_export(provider, vmid, keep=True) as session:
        assert session.native["efidisk0.raw"] == variables
        assert session.native["tpmstate0.raw"] == tpm
        session.keep_token()
    assert len(cluster.bitmaps(vmid)) == 1, "only disks have bitmaps"


def test_what_is_overwritten_is_kept_on_the_storage_that_was_chosen(cluster: ProxmoxServer) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    provider = ProxmoxProvider({**cluster.settings(), "fleecing_storage": "block"})
    with an_export(provider, vmid) as session:
        guest = cluster.disk_bytes(vmid, 0)
        cluster.write(vmid, 0, 0, noise(2 * MIB, 5))
        assert [volume for volume in cluster.volumes() if volume.startswith("block:") and "vmferry" in volume]
        assert contents(session)["scsi0"] == guest
    provider.close()
    assert not cluster.leftovers()


def test_a_vm_that_goes_off_meanwhile_fails_the_export_and_says_so(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    with an_export(provider, vmid) as session:
        cluster.power(vmid, "off")
        with pytest.raises(VmferryError, match="web was powered off while scsi0 was being exported") as failed:
            contents(session)
    assert (failed.value.kind, failed.value.retryable) == ("conflict", True)
    assert not cluster.leftovers()


def test_a_qemu_that_serves_somebody_else_is_left_alone(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    socket = f"/run/rig-{vmid}.nbd"
    cluster.qmp(vmid, "nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
    with pytest.raises(VmferryError, match="serves disks by NBD already") as failed:
        an_export(provider, vmid, keep=True).__enter__()
    assert failed.value.kind == "busy"
    cluster.qmp(vmid, "nbd-server-stop")  # it still runs, or this would fail
    assert not cluster.leftovers()


def test_two_exports_of_a_running_vm_are_refused_not_mixed(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    with an_export(provider, vmid) as first:
        with pytest.raises(VmferryError, match="serves disks by NBD already"):
            an_export(provider, vmid, a_job()).__enter__()
        assert contents(first)["scsi0"] == cluster.disk_bytes(vmid, 0)
    assert not cluster.leftovers()


def test_a_qemu_that_would_crash_over_it_is_not_asked(
    cluster: ProxmoxServer, provider: ProxmoxProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_serving, "SAFE", (99, 0, 0))
    vmid = cluster.make_vm("web", [disk()], True)
    with an_export(provider, vmid) as session:
        assert contents(session)["scsi0"] == cluster.disk_bytes(vmid, 0), "it has no thread of its own"
    cluster.set(vmid, scsi0=f"{cluster.vms()[vmid]['config']['scsi0']},iothread=1")
    vm = provider.describe(str(vmid))
    (found,) = [one for one in provider.check_export(vm, vm.disks, "auto") if one.severity == "error"]
    assert (found.kind, "I/O thread of their own" in found.message) == ("unsupported", True)
    with pytest.raises(VmferryError, match="may crash when disks with an I/O thread"):
        an_export(provider, vmid).__enter__()
    assert not cluster.leftovers()
    monkeypatch.setattr(qemu_serving, "SAFE", (0, 0, 0))
    with an_export(provider, vmid) as session:
        assert contents(session)["scsi0"] == cluster.disk_bytes(vmid, 0)


def test_a_vm_that_was_asked_for_as_off_is_not_exported_on(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk()], True)
    with pytest.raises(VmferryError, match="not powered_off"):
        an_export(provider, vmid, consistency="powered_off")
