# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM that is removed takes what is its alone, and nothing that anybody else has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, VmRequest
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .harness import open_session


@pytest.fixture
def disks(rig: LibvirtRig) -> Iterator[Path]:
    """A folder that is a pool as well, and goes with all VMs whose names begin with `old`."""
    folder = rig.directory / "old_disks"
    folder.mkdir()
    target = f"<target><path>{folder}</path></target>"
    pool = rig.connect().storagePoolCreateXML(f"<pool type='dir'><name>old_disks</name>{target}</pool>")
    yield folder
    pool.destroy()
    for domain in rig.connect().listAllDomains():
        if domain.name().startswith("old"):
            remove_domain(domain)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def define(rig: LibvirtRig, name: str, *paths: Path, format: str = "raw", edit: tuple[str, str] = ("", "")) -> None:
    for path in paths:
        if not path.exists():
            guests.mbr_disk(path, name)
    machine = Machine(name, tuple(Disk(path, format) for path in paths), memory_mib=32)
    rig.connect().defineXML(
        domain_xml(machine, rig.directory).replace(*edit) if edit[0] else domain_xml(machine, rig.directory)
    )


def remove(provider: LibvirtProvider, name: str, *, with_disks: bool = True) -> list[str]:
    return list(provider.remove(provider.describe(name), with_disks))


def names(rig: LibvirtRig) -> list[str]:
    return sorted(one.name() for one in rig.connect().listAllDomains() if one.name().startswith("old"))


def test_its_disks_go_if_that_is_asked_and_stay_otherwise(
    rig: LibvirtRig, provider: LibvirtProvider, disks: Path
) -> None:
    disk = disks / "one.raw"
    define(rig, "old", disk)
    assert remove(provider, "old", with_disks=False) == []
    assert (names(rig), disk.exists()) == ([], True)
    define(rig, "old", disk)
    assert remove(provider, "old") == []
    assert (names(rig), disk.exists()) == ([], False)


def test_a_volume_goes_by_its_pool(rig: LibvirtRig, provider: LibvirtProvider, disks: Path) -> None:
    disk = guests.mbr_disk(disks / "volume.raw", "volume")
    rig.connect().storagePoolLookupByName("old_disks").refresh()
    by_file = f'type="file" device="disk"><driver name="qemu" type="raw" discard="unmap" /><source file="{disk}" />'
    by_volume = by_file.replace('type="file"', 'type="volume"', 1).replace(
        f'file="{disk}"', 'pool="old_disks" volume="volume.raw"'
    )
    define(rig, "old", disk, edit=(by_file, by_volume))
    assert provider.describe("old").disks[0].storage == "old_disks"
    assert remove(provider, "old") == []
    assert not disk.exists()
    assert rig.connect().storagePoolLookupByName("old_disks").listVolumes() == []


def test_what_others_have_or_stand_on_stays_and_is_told(
    rig: LibvirtRig, provider: LibvirtProvider, disks: Path
) -> None:
    own, named, base, shared, seen = (disks / f"{name}.raw" for name in ("own", "named", "base", "shared", "seen"))
    define(rig, "old", own, named, base, shared, seen)
    xml = rig.connect().lookupByName("old").XMLDesc()
    for path, mark in ((shared, "<shareable/>"), (seen, "<readonly/>")):
        xml = xml.replace(f"<source file='{path}'/>", f"<source file='{path}'/>{mark}")
    rig.connect().defineXML(xml)
    overlay = disks / "overlay.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(overlay)]
    subprocess.run(create, check=True)
    define(rig, "old-neighbour", overlay, format="qcow2")
    define(rig, "old-owner", named)
    said = remove(provider, "old")
    assert names(rig) == ["old-neighbour", "old-owner"]
    assert not own.exists()
    assert [path.exists() for path in (named, base, shared, seen)] == [True] * 4
    assert len(said) == 4
    assert f"({named}) of old stays: old-owner has it, too." in said[0]
    assert f"({base}) of old stays: old-neighbour has it, too." in said[1]
    assert all("stays: it is read only, or shared." in one for one in said[2:])


def test_its_snapshots_go_with_it(rig: LibvirtRig, provider: LibvirtProvider, disks: Path) -> None:
    disk = guests.place(guests.mbr_disk(disks / "seed", "old"), disks / "old.qcow2")
    define(rig, "old", disk, format="qcow2")
    rig.connect().lookupByName("old").snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>")
    remove(provider, "old")
    assert (names(rig), disk.exists()) == ([], False)


def test_the_variables_of_its_firmware_go_with_it(rig: LibvirtRig, provider: LibvirtProvider) -> None:
    rig.connect().defineXML(domain_xml(Machine("old", boot="uefi"), rig.directory))
    variables = rig.directory / "old.nvram"
    variables.touch()
    remove(provider, "old")
    assert (names(rig), variables.exists()) == ([], False)


def test_one_that_runs_is_not_removed(rig: LibvirtRig, provider: LibvirtProvider, disks: Path) -> None:
    disk = disks / "one.raw"
    define(rig, "old", disk)
    off = provider.describe("old")
    rig.connect().lookupByName("old").create()
    for removal in (
        lambda: provider.remove(off, disks=True),
        lambda: bring_vm(VmRequest(ProviderSpec("libvirt", {"uri": rig.uri}), "old", "absent"), check_mode=False),
    ):
        with pytest.raises(VmferryError) as refused:
            removal()
        assert refused.value.kind == "conflict"
    assert (names(rig), disk.exists()) == (["old"], True)


def test_one_that_is_being_exported_is_not_removed(rig: LibvirtRig, provider: LibvirtProvider, disks: Path) -> None:
    disk = disks / "one.raw"
    define(rig, "old", disk)
    with open_session(provider, "old"):
        with pytest.raises(VmferryError) as refused:
            remove(provider, "old")
        assert refused.value.kind == "busy"
    assert (names(rig), disk.exists()) == (["old"], True)


def test_warnings_and_the_option_come_from_the_operation(
    rig: LibvirtRig, provider: LibvirtProvider, disks: Path, scratch: Path
) -> None:
    disk = disks / "one.raw"
    define(rig, "old", disk)
    define(rig, "old-owner", disk)
    settings = {"uri": rig.uri, "scratch_dir": str(scratch)}
    result = bring_vm(
        VmRequest(ProviderSpec("libvirt", settings), "old", "absent", remove_disks=True), check_mode=False
    )
    assert result["changed"]
    assert "old-owner has it, too." in result["warnings"][0]
