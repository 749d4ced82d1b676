# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs that are off: their disks are read as they are, and nobody writes to them unnoticed meanwhile."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.keeper import Keeper
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .exporting import EFI_BYTES, MIB, a_job, an_export, contents, disk, noise


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on storages of several nodes, whose volumes QEMU's locks do not guard."""
    monkeypatch.setattr(Keeper, "lock", lambda _keeper, _path: None)


@pytest.mark.parametrize(
    ("transport", "storage", "format"),
    [("ssh", "local", "raw"), ("node", "local", "qcow2"), ("ssh", "block", "raw"), ("node", "thin", "raw")],
)
def test_every_byte_arrives_from_every_kind_of_storage_and_nothing_is_left(
    cluster: ProxmoxServer, transport: str, storage: str, format: str
) -> None:
    vmid = cluster.make_vm(
        "web", [disk(1), noise(2 * MIB, 2)], storage=storage, format=format, keys=["scsi0", "virtio3"]
    )
    provider = ProxmoxProvider(cluster.settings(transport))
    with cluster.on_the_node() if transport == "node" else nullcontext():
        with an_export(provider, vmid) as session:
            assert contents(session) == {name: cluster.disk_bytes(vmid, name) for name in ("scsi0", "virtio3")}
            assert [one.spec.size for one in session.disks] == [
                4 * MIB,
                -(-2 // 4) * 4 * MIB if storage != "local" else 2 * MIB,
            ]
            assert session.consistency == "powered_off"
            session.confirm()
            with pytest.raises(BlockingIOError):
                cluster.write(vmid, "scsi0", 0, b"in the middle of it")
        assert not session.warnings
        provider.close()
    assert not cluster.leftovers()
    active = [volume for volume, (_path, is_active) in cluster.volumes().items() if is_active and storage in volume]
    assert not active or storage == "local", "a logical volume is left as it was found"


def test_zeros_of_a_file_are_not_read(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk()], format="qcow2")
    with an_export(provider, vmid) as session:
        kinds = [
            (extent.offset // MIB, extent.length // MIB, extent.kind) for extent in session.disks[0].source.extents()
        ]
    assert kinds == [(0, 1, "data"), (1, 2, "zero"), (3, 1, "data")]


def test_what_the_firmware_and_the_tpm_have_stored_is_kept_beside_the_configuration(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    variables, tpm = noise(EFI_BYTES, 3), noise(4 * MIB, 4)
    vmid = cluster.make_vm(
        "web", [disk(), variables, tpm], keys=["scsi0", "efidisk0", "tpmstate0"], bios="ovmf", description="ours\nalone"
    )
    cluster.set(vmid, ide2="local:cloudinit,media=cdrom", cipassword="$5$secret", ciuser="admin")
    with an_export(provider, vmid) as session:
        native = dict(session.native)
        names = [one.spec.name for one in session.disks]
    assert names == ["scsi0"]
    assert native.pop("efidisk0.raw") == variables
    assert native.pop("tpmstate0.raw") == tpm
    lines = native.pop("qemu-server.conf").decode().splitlines()
    assert lines[:2] == ["#ours", "#alone"]
    assert {"bios: ovmf", "ciuser: admin", "ide2: local:cloudinit,media=cdrom"} <= set(lines)
    assert not native
    assert not any("secret" in line for line in lines)


def test_a_vm_cannot_be_started_meanwhile_and_that_it_was_tried_does_no_harm(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()])
    with an_export(provider, vmid) as session:
        with pytest.raises(VmferryError, match='Failed to get "write" lock'):
            provider.start(provider.describe(str(vmid)))
        session.confirm()
    provider.start(provider.describe(str(vmid)))


@pytest.mark.usefixtures("without_locks")
def test_a_start_that_nothing_could_prevent_is_noticed_also_when_the_vm_is_off_again(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()], storage="thin")
    with an_export(provider, vmid) as session:
        provider.start(provider.describe(str(vmid)))
        with pytest.raises(VmferryError, match="web was started") as failed:
            session.confirm()
        assert (failed.value.kind, failed.value.retryable) == ("conflict", True)
        cluster.power(vmid, "off")
        with pytest.raises(VmferryError, match="web was started"):
            session.confirm()
    assert not cluster.leftovers()


@pytest.mark.usefixtures("without_locks")
def test_a_file_that_was_written_to_by_somebody_else_is_noticed(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()])
    with an_export(provider, vmid) as session:
        session.confirm()
        cluster.write(vmid, "scsi0", 0, b"written meanwhile")
        with pytest.raises(VmferryError, match="scsi0 of web was changed"):
            session.confirm()


def test_a_disk_that_was_exchanged_is_noticed(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid = cluster.make_vm("web", [disk(1)])
    with an_export(provider, vmid) as session:
        volume = session.disks[0].spec.source
        cluster.set(vmid, scsi0=None, unused0=volume)
        cluster.add_disk(vmid, disk(2), "scsi0")
        with pytest.raises(VmferryError, match="scsi0 of web was changed"):
            session.confirm()


def test_a_vm_of_which_another_export_is_under_way_can_be_exported_too(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()])
    with an_export(provider, vmid) as first, an_export(provider, vmid) as second:
        assert contents(first) == contents(second)
    assert not cluster.leftovers()


def test_the_same_job_cannot_be_there_twice(cluster: ProxmoxServer, provider: ProxmoxProvider) -> None:
    vmid, job = cluster.make_vm("web", [disk()]), a_job()
    with an_export(provider, vmid, job), pytest.raises(VmferryError, match="another run of this job") as failed:
        an_export(provider, vmid, job).__enter__()
    assert failed.value.kind == "conflict"
    assert not cluster.leftovers()


def test_a_volume_that_a_node_does_not_find_fails_the_export_with_its_words(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()])
    cluster.break_command("pvesm path", "storage 'local' does not exist")
    with pytest.raises(VmferryError, match=r"pvesm failed on .*storage 'local' does not exist") as failed:
        an_export(provider, vmid).__enter__()
    assert failed.value.kind == "not_found"
    assert not cluster.leftovers()


def test_what_a_token_would_tell_is_lost_with_the_qemu_that_knew_it(
    cluster: ProxmoxServer, provider: ProxmoxProvider
) -> None:
    vmid = cluster.make_vm("web", [disk()], running=True)
    with an_export(provider, vmid, keep=True) as session:
        session.keep_token()
    assert provider.tokens(provider.describe(str(vmid))) == [session.token]
    cluster.power(vmid, "off")
    with an_export(provider, vmid, since=session.token, keep=True) as after:
        assert "web is off" in after.lost
        assert after.token == ""
        assert after.disks[0].changes is None
    assert not provider.tokens(provider.describe(str(vmid)))
