# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that was exported comes back as one that boots; what does not come to its end leaves nothing."""

from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from rigs import guests
from rigs.domain import Disk, Machine, boot_and_expect, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .harness import copy_into, machine_of, new_job, open_session, read_all

EXPORT = "20260102T030405Z-0a1b2c3d"
Exported = tuple[VmSpec, dict[str, bytes], list[Path]]


@pytest.fixture
def images(rig: LibvirtRig) -> Iterator[Path]:
    folder = rig.directory / "images"
    folder.mkdir()
    yield folder
    for domain in rig.connect().listAllDomains():
        if domain.name().startswith("new"):
            remove_domain(domain)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def exported(provider: LibvirtProvider, rig: LibvirtRig, machine: Machine, folder: Path) -> Exported:
    """What a store would hold of a machine: its description, libvirt's own files, raw copies of its disks."""
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory))
    try:
        with open_session(provider, machine.name) as session:
            copies = [read_all(disk.source, folder / disk.spec.id) for disk in session.disks]
            return session.vm, dict(session.native), copies
    finally:
        remove_domain(domain)


def run_import(provider: LibvirtProvider, machine: Exported, placement: Placement) -> VmSpec:
    vm, native, copies = machine
    findings = provider.check_import(vm, placement, EXPORT)
    assert not [finding for finding in findings if finding.severity == "error"], findings
    with provider.open_import(vm, native, placement, EXPORT, new_job()) as session:
        for sink, copy in zip(session.sinks, copies):
            assert sink.reads_zero
            copy_into(sink, copy)
        return session.commit()


@pytest.fixture
def small(provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path) -> Exported:
    disks = []
    for name in ("first", "second"):
        raw = guests.mbr_disk(tmp_path / name, f"small {name}", 4 << 20)
        disks.append(Disk(guests.place(raw, tmp_path / f"{name}.qcow2"), serial=name.upper()))
    return exported(provider, rig, Machine("small", tuple(disks), network=True), tmp_path)


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_a_bios_vm_boots_again_with_the_same_hardware(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path, format: str
) -> None:
    vm = run_import(provider, small, Placement("new", storage=str(images), disk_format=format))
    assert machine_of(vm) == machine_of(small[0])
    assert vm.id != small[0].id
    assert vm.power_state == "powered_off"
    assert [disk.format for disk in vm.disks] == [format, format]
    boot_and_expect(rig, rig.connect().lookupByName("new"), guests.boot_marker("small first"))
    assert provider.imported("new") == (provider.describe("new"), EXPORT)


def test_a_uefi_vm_boots_again(provider: LibvirtProvider, rig: LibvirtRig, images: Path, tmp_path: Path) -> None:
    disk = Disk(guests.place(guests.uefi_disk(), tmp_path / "uefi.qcow2"))
    machine = Machine("uefi", (disk,), boot="uefi", memory_mib=256)
    variables = guests.OVMF_VARIABLES.read_bytes()
    (rig.directory / "uefi.nvram").write_bytes(variables)
    source = exported(provider, rig, machine, tmp_path)
    assert source[1]["nvram.fd"] == variables
    vm = run_import(provider, source, Placement("new", storage=str(images)))
    assert vm.firmware == "uefi"
    assert (images / "new-nvram.fd").read_bytes() == variables
    boot_and_expect(rig, rig.connect().lookupByName("new"), guests.READY, 120)


def test_a_new_bus_is_given_to_every_disk(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path
) -> None:
    vm = run_import(provider, small, Placement("new", storage=str(images), disk_bus="scsi"))
    assert [(disk.bus, disk.name) for disk in vm.disks] == [("scsi", "sda"), ("scsi", "sdb")]
    boot_and_expect(rig, rig.connect().lookupByName("new"), guests.boot_marker("small first"))


def test_the_mac_is_kept_or_renewed(provider: LibvirtProvider, small: Exported, images: Path) -> None:
    mac = small[0].nics[0].mac
    assert run_import(provider, small, Placement("new-1", storage=str(images))).nics[0].mac != mac
    assert run_import(provider, small, Placement("new-2", storage=str(images), keep_mac=True)).nics[0].mac == mac


def test_a_disk_may_go_elsewhere(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path, tmp_path: Path
) -> None:
    placement = Placement("new", storage=str(images), storage_map={"vdb": str(tmp_path)})
    vm = run_import(provider, small, placement)
    assert vm.disks[0].source == str(images / "new-disk-0.qcow2")
    assert vm.disks[1].source == str(tmp_path / "new-disk-1.qcow2")


def test_a_pool_is_found_by_name_and_knows_the_new_disks(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path
) -> None:
    pool = rig.connect().storagePoolCreateXML(
        f"<pool type='dir'><name>default</name><target><path>{images}</path></target></pool>"
    )
    try:
        run_import(provider, small, Placement("new"))
        assert sorted(pool.listVolumes()) == ["new-disk-0.qcow2", "new-disk-1.qcow2"]
    finally:
        pool.destroy()


def test_tags_come_along(provider: LibvirtProvider, small: Exported, images: Path) -> None:
    tagged = (replace(small[0], tags=("prod", "web & mail")), *small[1:])
    run_import(provider, tagged, Placement("new", storage=str(images)))
    assert provider.describe("new").tags == ("prod", "web & mail")


def test_an_import_that_is_not_committed_leaves_nothing(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path
) -> None:
    placement = Placement("new", storage=str(images))
    with provider.open_import(small[0], small[1], placement, EXPORT, new_job()) as session:
        copy_into(session.sinks[0], small[2][0])
        assert list(images.iterdir())
    assert not list(images.iterdir())
    assert provider.imported("new") is None


def killed_import(
    rig: LibvirtRig, scratch: Path, images: Path, small: Exported, monkeypatch: pytest.MonkeyPatch, step: str
) -> str:
    """An import of `new` whose process dies at `step`, without a chance to undo anything; the job's id."""
    job = new_job()
    child = os.fork()
    if child == 0:
        monkeypatch.setenv("VMFERRY_FAILPOINT", step)
        dying = LibvirtProvider({"uri": rig.uri, "scratch_dir": str(scratch)})
        with dying.open_import(small[0], small[1], Placement("new", storage=str(images)), EXPORT, job) as session:
            session.commit()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(images.iterdir())
    return job.job_id


WHOLE = ["new-disk-0.qcow2", "new-disk-1.qcow2"]


@pytest.mark.parametrize("step", ["defined", "recorded"])
def test_a_whole_vm_keeps_its_disks_under_whatever_name_it_goes(
    provider: LibvirtProvider,
    rig: LibvirtRig,
    small: Exported,
    images: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    killed_import(rig, scratch, images, small, monkeypatch, step)
    rig.connect().lookupByName("new").rename("new-name", 0)
    assert len(provider.clean_up(small[0])) == 1
    assert sorted(path.name for path in images.iterdir()) == WHOLE
    assert provider.describe("new-name").disks[0].size == 4 << 20


@pytest.mark.parametrize("kind", ["file", "volume"])
def test_a_whole_vm_that_was_defined_anew_keeps_its_disks(
    provider: LibvirtProvider,
    rig: LibvirtRig,
    small: Exported,
    images: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Another UUID, another name, none of our metadata: only the disks tell."""
    killed_import(rig, scratch, images, small, monkeypatch, "defined")
    domain = rig.connect().lookupByName("new")
    root = ET.fromstring(domain.XMLDesc())
    for tag in ("uuid", "metadata"):
        for element in root.findall(tag):
            root.remove(element)
    name = root.find("name")
    assert name is not None
    name.text = "new-again"
    domain.undefine()
    pool = rig.connect().storagePoolCreateXML(
        f"<pool type='dir'><name>anew</name><target><path>{images}</path></target></pool>"
    )
    try:
        if kind == "volume":
            for disk in root.iterfind("devices/disk"):
                source = disk.find("source")
                assert source is not None
                disk.set("type", "volume")
                source.attrib = {"pool": "anew", "volume": Path(source.attrib["file"]).name}
        rig.connect().defineXML(ET.tostring(root, "unicode"))
        said = provider.clean_up(small[0])
    finally:
        pool.destroy()
    assert "new-again" in said[0].sentence
    assert sorted(path.name for path in images.iterdir()) == WHOLE


@pytest.mark.parametrize("step", ["settled", "defined"])
def test_a_dead_import_is_judged_by_the_libvirt_it_was_made_on(
    provider: LibvirtProvider,
    rig: LibvirtRig,
    small: Exported,
    images: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    job_id = killed_import(rig, scratch, images, small, monkeypatch, step)
    before = sorted(path.name for path in images.iterdir())
    elsewhere = LibvirtProvider({"uri": "test:///default", "scratch_dir": str(scratch)})
    rig.kill()
    try:
        said = elsewhere.undo(job_id)
        assert "cannot be asked" in said[0]
        assert sorted(path.name for path in images.iterdir()) == before, "nothing is removed where nobody can tell"
    finally:
        rig.start()
    assert len(elsewhere.undo(job_id)) == 1
    assert sorted(path.name for path in images.iterdir()) == ([] if step == "settled" else WHOLE)
    elsewhere.close()


def test_a_disk_that_appears_meanwhile_is_never_touched(
    provider: LibvirtProvider, small: Exported, images: Path
) -> None:
    placement = Placement("new", storage=str(images))
    existing = images / "new-disk-1.qcow2"
    with pytest.raises(VmferryError, match="appeared"):  # noqa: PT012, SIM117
        with provider.open_import(small[0], small[1], placement, EXPORT, new_job()) as session:
            existing.write_text("precious")
            session.commit()
    assert existing.read_text() == "precious"
    assert [path.name for path in images.iterdir()] == ["new-disk-1.qcow2"]


def test_an_existing_vm_is_never_touched(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path
) -> None:
    placement = Placement("new", storage=str(images))
    with pytest.raises(VmferryError):  # noqa: PT012, SIM117
        with provider.open_import(small[0], small[1], placement, EXPORT, new_job()) as session:
            disk = guests.mbr_disk(rig.directory / "theirs.raw", "theirs")
            theirs = rig.connect().defineXML(domain_xml(Machine("new", (Disk(disk, "raw"),)), rig.directory))
            before = theirs.XMLDesc()
            session.commit()
    assert theirs.XMLDesc() == before
    assert not list(images.iterdir())
    assert [one.kind for one in provider.check_import(small[0], placement, EXPORT)] == ["conflict"]
    found = provider.imported("new")
    assert found is not None
    assert found[1] == ""


def test_an_unknown_network_and_an_unknown_mapping_are_found_before(
    provider: LibvirtProvider, small: Exported, images: Path
) -> None:
    placement = Placement("new", storage=str(images), network_map={small[0].nics[0].mac: "nowhere", "typo": "x"})
    kinds = {finding.kind for finding in provider.check_import(small[0], placement, EXPORT)}
    assert kinds == {"invalid_config", "not_found"}


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "line\nbreak"])
def test_a_name_that_is_a_path_is_refused(provider: LibvirtProvider, small: Exported, images: Path, name: str) -> None:
    placement = Placement(name, storage=str(images))
    assert "invalid_config" in [one.kind for one in provider.check_import(small[0], placement, EXPORT)]


def test_what_a_name_says_is_escaped(provider: LibvirtProvider, small: Exported, images: Path) -> None:
    name = "new <&'\"> é"
    assert run_import(provider, small, Placement(name, storage=str(images))).name == name


def test_nothing_of_the_old_host_is_carried_over(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path
) -> None:
    vm, native, copies = small
    hostdev = (
        b"<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='1' slot='0' "
        b"function='0'/></source></hostdev></devices>"
    )
    native["domain.xml"] = native["domain.xml"].replace(b"</devices>", hostdev)
    with provider.open_import(vm, native, Placement("new", storage=str(images)), EXPORT, new_job()) as session:
        assert "hostdev" in " ".join(session.warnings)
        for sink, copy in zip(session.sinks, copies):
            copy_into(sink, copy)
        session.commit()
    root = ET.fromstring(rig.connect().lookupByName("new").XMLDesc(0))
    assert root.find("devices/hostdev") is None
    assert str(rig.directory / "small.console") not in ET.tostring(root, "unicode")


def test_a_vm_of_another_provider_gets_a_domain_of_its_own(
    provider: LibvirtProvider, rig: LibvirtRig, small: Exported, images: Path
) -> None:
    vm = run_import(provider, (small[0], {}, small[2]), Placement("new", storage=str(images)))
    assert machine_of(vm) == machine_of(small[0])
    boot_and_expect(rig, rig.connect().lookupByName("new"), guests.boot_marker("small first"))
