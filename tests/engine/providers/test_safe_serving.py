# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMs of libvirt that run have their QEMU asked whether it may serve their disks, and what it says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any, cast

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import domain_xml
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.safe_serving import (
    insist_on_safe_serving,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec

XML = """
<domain><os><type machine='{machine}'>hvm</type></os><devices>
  <controller type='scsi' index='0'/>
  <controller type='scsi' index='1'><driver iothread='2'/></controller>
  <controller type='virtio-serial' index='0'><driver iothread='2'/></controller>
  <disk device='disk'><driver name='qemu'/><target dev='vda' bus='virtio'/></disk>
  <disk device='disk'><driver iothread='1'/><target dev='vdb' bus='virtio'/></disk>
  <disk device='disk'><driver><iothreads><iothread id='1'/></iothreads></driver><target dev='vdc' bus='virtio'/></disk>
  <disk device='disk'><target dev='sda' bus='scsi'/><address type='drive' controller='0'/></disk>
  <disk device='disk'><target dev='sdb' bus='scsi'/><address type='drive' controller='1'/></disk>
  <disk device='disk'><target dev='sdc' bus='sata'/><address type='drive' controller='1'/></disk>
</devices></domain>"""


class Asked:
    """A libvirt whose QEMU has this version."""

    def __init__(self, *version: int) -> None:
        self._version, self.times = version, 0

    def domain(self, *_unused: Any) -> Any:
        self.times += 1
        return {"qemu": dict(zip(("major", "minor", "micro"), self._version)), "package": ""}


def insist(asked: Asked, *names: str, machine: str = "pc-q35-7.2") -> None:
    disks = tuple(DiskSpec(name, name, 1, "raw", "virtio", f"/{name}") for name in names)
    vm = VmSpec("libvirt", "1", "db", "db", "powered_on", 1, 64, "bios", disks)
    insist_on_safe_serving(cast("Connection", asked), vm, disks, ET.fromstring(XML.format(machine=machine)))


def test_a_disk_has_an_io_thread_of_its_own_or_of_its_scsi_controller() -> None:
    assert domain_xml.disks_with_io_thread(ET.fromstring(XML)) == {"vdb", "vdc", "sdb"}


@pytest.mark.parametrize("version", [(6, 2, 0), (7, 2, 22), (8, 1, 5), (8, 2, 2)])
def test_a_qemu_without_the_fix_is_refused_for_the_disks_with_a_thread(version: tuple[int, ...]) -> None:
    with pytest.raises(VmferryError, match=r"^db runs with QEMU .* while it runs: vdb, sdb\.$") as refused:
        insist(Asked(*version), "vda", "vdb", "sda", "sdb")
    assert refused.value.kind == "unsupported"


@pytest.mark.parametrize("version", [(8, 2, 3), (9, 0, 0), (10, 1, 0)])
def test_a_qemu_with_the_fix_is_not(version: tuple[int, ...]) -> None:
    asked = Asked(*version)
    insist(asked, "vdb", "vdc", "sdb")
    assert asked.times == 1


def test_nobody_is_asked_for_disks_without_a_thread() -> None:
    asked = Asked(7, 2, 0)
    insist(asked, "vda", "sda", "sdc")
    assert asked.times == 0


@pytest.mark.parametrize(
    ("machine", "times"),
    [
        ("pc-q35-9.0", 0),
        ("virt-10.1", 0),
        ("s390-ccw-virtio-9.2", 0),
        ("pc-q35-8.2", 1),
        ("pc-i440fx-rhel7.6.0", 1),
        ("pc-q35-noble", 1),
    ],
)
def test_a_machine_of_a_type_that_no_old_qemu_has_is_not_asked(machine: str, times: int) -> None:
    asked = Asked(9, 0, 0)
    insist(asked, "vdb", machine=machine)
    assert asked.times == times
