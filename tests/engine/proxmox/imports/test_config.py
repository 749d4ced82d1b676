# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Proxmox VE is asked to make of a VM; each set of parameters is checked against its own schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.import_mark import (
    UNFINISHED,
    ImportMark,
    mark_in,
    with_mark,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_config import (
    LONGEST_NOTES,
    ImportPlan,
    fitting_notes,
    gibibytes,
    tags_of,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_hardware import (
    hardware_findings,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_places import Storage
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.import_state import (
    EFI_VARIABLES,
    kept_state,
    state_findings,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, NicSpec, VmSpec

from .importing import EXPORT, KIB, SMALL, SYSTEM, a_vm, noise
from .schema import wrong_parameters

GIB = 1 << 30
FILES = Storage("files", "dir", ["raw", "qcow2", "vmdk"], "qcow2", None)
GROUP = Storage("group", "lvm", ["raw"], "raw", None)


class Places:
    """Those of a node that has all that it is asked for."""

    node = "pve1"

    def __init__(self, storages: Mapping[str, Storage] | None = None) -> None:
        self._storages = storages or {}

    def storage_of(self, disk: DiskSpec) -> Storage:
        return self._storages.get(disk.id, FILES)

    def home(self) -> Storage:
        return GROUP

    def network_of(self, nic: NicSpec) -> tuple[str, int | None]:
        bridge, _dot, vlan = nic.network.partition(".")
        return bridge, int(vlan) if vlan else None


def parameters(vm: VmSpec, storages: Mapping[str, Storage] | None = None, **placement: Any) -> dict[str, Any]:
    """Of the call, none of which Proxmox VE may refuse."""
    plan = ImportPlan.of(vm, Placement("new", **placement), Places(storages))  # type: ignore[arg-type]
    made = plan.parameters(100, "unfinished", "notes")
    assert wrong_parameters("POST", "/nodes/pve1/qemu", made) == {}
    return made


def warnings(vm: VmSpec, **placement: Any) -> list[str]:
    return [one.message for one in hardware_findings(vm, Placement("new", **placement)) if one.severity == "warning"]


def test_vm_of_libvirt_keeps_its_hardware() -> None:
    vm = a_vm(SYSTEM, SMALL, machine="pc-q35-7.2", guest_os="Debian 12", guest_agent=True)
    assert parameters(vm) == {
        "vmid": 100,
        "name": "unfinished",
        "description": "notes",
        "sockets": 1,
        "cores": 2,
        "cpu": "x86-64-v2-AES",
        "memory": "512",
        "ostype": "l26",
        "agent": "enabled=1",
        "machine": "q35",
        "bios": "seabios",
        "virtio0": f"files:{gibibytes(len(SYSTEM))},format=qcow2,discard=on,iothread=1",
        "virtio1": f"files:{gibibytes(len(SMALL))},format=qcow2,discard=on,iothread=1",
        "boot": "order=virtio0",
        "net0": "virtio,bridge=vmbr0",
    }
    assert warnings(vm) == []


def test_schema_refuses_what_is_wrong() -> None:
    assert "scsi0" in wrong_parameters("POST", "/nodes/pve1/qemu", {"vmid": 100, "scsi0": "files:1,discard=maybe"})


@given(st.integers(1, (64 << 40) // KIB))
def test_size_is_told_exactly(kibibytes: int) -> None:
    assert Decimal(gibibytes(kibibytes * KIB)) * GIB == kibibytes * KIB
    assert float(gibibytes(kibibytes * KIB)) * (GIB // KIB) == kibibytes  # as Perl reads it


def test_disk_of_half_a_kibibyte_more_gets_a_whole_one() -> None:
    assert parameters(a_vm(bytes(1536)))["virtio0"].startswith(f"files:{gibibytes(2048)},")


@pytest.mark.parametrize(
    ("provider", "bus", "controller", "asked", "drive", "scsihw"),
    [
        ("libvirt", "virtio", "", "", "virtio0", None),
        ("libvirt", "scsi", "", "", "scsi0", "virtio-scsi-single"),
        ("libvirt", "sata", "", "", "sata0", None),
        ("libvirt", "ide", "", "", "ide0", None),
        ("libvirt", "usb", "", "", "sata0", None),
        ("aws", "nvme", "", "", "sata0", None),
        ("vsphere", "scsi", "pvscsi", "", "scsi0", "pvscsi"),
        ("vsphere", "scsi", "lsilogic", "", "sata0", None),
        ("appliance", "scsi", "VirtualSCSI", "", "scsi0", "pvscsi"),
        ("libvirt", "virtio", "", "scsi", "scsi0", "virtio-scsi-single"),
        ("libvirt", "virtio", "", "megasas", "scsi0", "megasas"),
        ("vsphere", "scsi", "lsilogic", "virtio", "virtio0", None),
    ],
)
def test_disks_go_where_their_guest_knows_them(
    provider: str, bus: str, controller: str, asked: str, drive: str, scsihw: str | None
) -> None:
    vm = a_vm(SMALL, provider=provider, bus=bus)
    vm = vm.with_disks(tuple(replace(disk, details={"controller": controller}) for disk in vm.disks))
    made = parameters(vm, disk_bus=asked)
    assert drive in made
    assert made.get("scsihw") == scsihw
    moved = not asked and not drive.startswith(bus)
    assert any("is sata0 now" in text for text in warnings(vm, disk_bus=asked)) == moved


def test_vm_of_proxmox_keeps_its_words() -> None:
    details = {"scsi_controller": "lsi", "cpu_type": "host", "os_type": "win11", "sockets": 2, "cores": 4}
    vm = a_vm(SMALL, provider="proxmox", bus="scsi", cpu=8, details={**details, "agent_enabled": True})
    made = parameters(vm)
    told = {key: made[key] for key in ("scsihw", "cpu", "ostype", "sockets", "cores", "agent")}
    assert told == {"scsihw": "lsi", "cpu": "host", "ostype": "win11", "sockets": 2, "cores": 4, "agent": "enabled=1"}
    assert "machine" not in made


def test_model_of_processor_that_another_cluster_made_is_left_behind() -> None:
    vm = a_vm(SMALL, provider="proxmox", details={"cpu_type": "custom-ours"})
    assert parameters(vm)["cpu"] == "x86-64-v2-AES"


def test_more_disks_than_places_go_on_scsi() -> None:
    made = parameters(a_vm(*[SMALL] * 8, bus="sata"))
    assert [f"sata{number}" in made for number in range(7)] == [True] * 6 + [False]
    assert {"scsi0", "scsi1", "scsihw"} <= set(made)
    assert made["boot"] == "order=sata0"


def test_more_disks_than_all_places_are_refused() -> None:
    with pytest.raises(VmferryError, match="no more places") as refused:
        parameters(a_vm().with_disks(a_vm(*[SMALL] * 16, bus="scsi").disks * 2))
    assert refused.value.kind == "unsupported"


def test_bus_that_is_not_there_is_refused() -> None:
    with pytest.raises(VmferryError, match="nvme is no disk bus") as refused:
        parameters(a_vm(), disk_bus="nvme")
    assert refused.value.kind == "invalid_config"


def test_drives_for_cds_are_there_again_and_empty() -> None:
    vm = a_vm(SMALL, bus="ide", details={"cdroms": [{"name": "sda"}, {"name": "sdb"}], "floppies": [{"name": "fda"}]})
    made = parameters(vm)
    assert (made["ide2"], made["ide3"]) == ("none,media=cdrom", "none,media=cdrom")
    assert made["ide0"].startswith("files:")
    assert any("floppy" in text for text in warnings(vm))


@pytest.mark.parametrize(("secure", "keys"), [(True, 1), (False, 0)])
def test_uefi_gets_a_disk_for_its_variables(secure: bool, keys: int) -> None:
    made = parameters(a_vm(SMALL, firmware="uefi", secure_boot=secure))
    assert (made["bios"], made["machine"]) == ("ovmf", "q35")
    assert made["efidisk0"] == f"files:1,format=raw,efitype=4m,pre-enrolled-keys={keys}"


def test_machines_own_volumes_go_to_the_storage_of_the_task() -> None:
    made = parameters(a_vm(SMALL, firmware="uefi", tpm=True), storage="group")
    assert made["efidisk0"].startswith("group:1,")
    assert made["tpmstate0"] == "group:1,format=raw,version=v2.0"


def test_task_changes_the_hardware() -> None:
    vm = a_vm(SMALL, details={"cores_per_socket": 2}, cpu=4)
    assert (parameters(vm)["sockets"], parameters(vm)["cores"]) == (2, 2)
    made = parameters(vm, cpu=3, memory_mb=2048, firmware="uefi", resource_pool="shop")
    told = {key: made[key] for key in ("sockets", "cores", "memory", "bios", "pool")}
    assert told == {"sockets": 1, "cores": 3, "memory": "2048", "bios": "ovmf", "pool": "shop"}
    assert any("was installed for bios" in text for text in warnings(vm, firmware="uefi"))


def test_each_disk_has_the_storage_and_format_that_it_gets() -> None:
    made = parameters(a_vm(SMALL, SMALL), {"disk-1": GROUP})
    assert ",format=qcow2," in made["virtio0"]
    assert made["virtio1"].startswith("group:")
    assert ",format=raw," in made["virtio1"]
    assert ",format=raw," in parameters(a_vm(SMALL), disk_format="raw")["virtio0"]


def test_format_that_a_storage_takes_not_is_refused() -> None:
    with pytest.raises(VmferryError, match=r"group .* no disks in the format qcow2") as refused:
        parameters(a_vm(SMALL), {"disk-0": GROUP}, disk_format="qcow2")
    assert (refused.value.kind, "raw" in refused.value.hint) == ("invalid_config", True)


def test_what_a_disk_says_of_itself_stays() -> None:
    vm = a_vm(SMALL, SMALL)
    first, second = vm.disks
    made = parameters(vm.with_disks((replace(first, serial="WD-1", read_only=True), replace(second, serial="a b"))))
    assert made["virtio0"].endswith(",ro=1,serial=WD-1")
    assert "serial" not in made["virtio1"]


@pytest.mark.parametrize(
    ("nic", "keep", "card"),
    [
        (NicSpec("nic-0", "52:54:00:aa:bb:01", "vmbr0", "virtio"), False, "virtio,bridge=vmbr0"),
        (NicSpec("nic-0", "52:54:00:aa:bb:01", "b.2", "e1000e"), True, "e1000e=52:54:00:AA:BB:01,bridge=b,tag=2"),
        (NicSpec("nic-0", "", "vmbr0", "pcnet32"), True, "pcnet,bridge=vmbr0"),
        (NicSpec("nic-0", "", "vmbr0", "ena"), False, "e1000,bridge=vmbr0"),
    ],
)  # fmt: skip
def test_network_cards(nic: NicSpec, keep: bool, card: str) -> None:
    vm = a_vm(SMALL, nics=(nic,))
    assert parameters(vm, keep_mac=keep)["net0"] == card
    assert any("becomes e1000" in text for text in warnings(vm)) == (nic.model == "ena")


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("Microsoft Windows Server 2022 (64-bit)", "win11"),
        ("Microsoft Windows 10 (64-bit)", "win10"),
        ("Microsoft Windows Server 2012 (64-bit)", "win8"),
        ("Microsoft Windows Server 2008 R2", "win7"),
        ("Ubuntu Linux (64-bit)", "l26"),
        ("FreeBSD", "other"),
        ("", "other"),
    ],
)
def test_systems(name: str, system: str) -> None:
    assert parameters(a_vm(SMALL, guest_os=name))["ostype"] == system


def test_uuid_is_kept_where_the_task_wants_it() -> None:
    vm = a_vm(SMALL)
    assert parameters(vm, keep_uuid=True)["smbios1"] == f"uuid={vm.id}"
    assert "smbios1" not in parameters(vm)
    nobody_knows = replace(vm, provider="aws", id="i-0123")
    (told,) = [one for one in hardware_findings(nobody_knows, Placement("new", keep_uuid=True)) if one.kind]
    assert (told.kind, "UUID" in told.message) == ("invalid_config", True)


def test_tags_are_made_to_fit() -> None:
    vm = a_vm(SMALL, tags=("Web", "tier: 1", "web", "!"))
    assert tags_of(vm) == ["tier-1", "web"]
    assert parameters(vm)["tags"] == "tier-1;web"


def test_notes_of_people_stay_and_are_cut_before_the_mark() -> None:
    mark = ImportMark.of(Job("1" * 32, "0badcafe"), EXPORT, "new").held().text(UNFINISHED)
    whole = with_mark(fitting_notes("ä" * 10_000, mark), mark)
    assert len(whole) == LONGEST_NOTES
    found = mark_in(whole)
    assert found is not None
    assert (found.export, found.attempt, found.alive) == (EXPORT, "0badcafe", True)


def test_what_is_held_no_more_is_dead_for_who_cannot_see_it() -> None:
    elsewhere = {"hostname": "another", "boot_id": "b", "pid_namespace": 1, "pid": 2, "pid_started": 3}
    mark = replace(ImportMark.of(Job("1" * 32, "0badcafe"), EXPORT, "new"), owner=elsewhere)
    assert mark.alive is None
    held = mark_in(mark.held().text(UNFINISHED))
    assert held is not None
    assert held.alive is None
    assert replace(held, held_until=1).alive is False


@pytest.mark.parametrize(
    ("kind", "format", "reads_zero"),
    [
        ("dir", "raw", True),
        ("nfs", "qcow2", True),
        ("lvmthin", "raw", True),
        ("zfspool", "raw", True),
        ("rbd", "raw", True),
        ("lvm", "raw", False),
        ("lvm", "qcow2", True),
        ("iscsidirect", "raw", False),
        ("somebodys", "raw", False),
    ],
)
def test_only_new_volumes_that_read_as_zeros_are_taken_for_such(kind: str, format: str, reads_zero: bool) -> None:
    assert Storage("store", kind, ["raw", "qcow2"], "raw", None).reads_zero(format) is reads_zero


def test_machine_of_other_processors_is_refused() -> None:
    (told,) = hardware_findings(a_vm(SMALL, architecture="aarch64"), Placement("new"))
    assert (told.severity, told.kind) == ("error", "unsupported")


VARIABLES = bytes(40) + b"_FVH" + noise(7, EFI_VARIABLES - 44)


@pytest.mark.parametrize(
    ("provider", "native", "kept", "told"),
    [
        ("libvirt", {"nvram.fd": VARIABLES}, {"efidisk0": VARIABLES}, ["TPM"]),
        ("proxmox", {"efidisk0.raw": VARIABLES + bytes(999), "tpmstate0.raw": SMALL},
         {"efidisk0": VARIABLES, "tpmstate0": SMALL}, []),
        ("proxmox", {"efidisk0.raw": VARIABLES[:131072]}, {}, ["variables", "TPM"]),
        ("proxmox", {"efidisk0.raw": VARIABLES + b"x"}, {}, ["variables", "TPM"]),
        ("libvirt", {"nvram.fd": b"QFI" + VARIABLES}, {}, ["variables", "TPM"]),
        ("vsphere", {"nvram.fd": VARIABLES, "tpmstate0.raw": SMALL}, {}, ["variables", "TPM"]),
    ],
)  # fmt: skip
def test_what_the_machine_kept(
    provider: str, native: dict[str, bytes], kept: dict[str, bytes], told: list[str]
) -> None:
    vm, placed = a_vm(SMALL, provider=provider, firmware="uefi", tpm=True), Placement("new")
    assert kept_state(vm, placed, native) == kept
    words = " ".join(one.message for one in state_findings(vm, placed, kept))
    assert [word for word in ("variables", "TPM") if word in words] == told
    assert kept_state(vm, Placement("new", firmware="bios"), native).keys() == kept.keys() - {"efidisk0"}


def test_nothing_begins_anew_of_an_old_machine() -> None:
    assert list(state_findings(a_vm(SMALL), Placement("new"))) == []


def test_lsi_controller_does_not_boot_by_uefi() -> None:
    vm = a_vm(SMALL, firmware="uefi")
    assert any("does not boot from disks on lsi" in text for text in warnings(vm, disk_bus="lsi"))
    assert not any("does not boot" in text for text in warnings(vm, disk_bus="pvscsi"))
