# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machine a VM becomes under libvirt, whatever it was before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.import_xml import DomainBuilder
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec

HOST: Any = SimpleNamespace(machines=lambda architecture: {"pc", "q35", "pc-q35-7.2"})


@pytest.mark.parametrize(
    ("machine", "bus", "becomes", "warns"),
    [
        ("vmx-19", "scsi", "q35", False),
        ("vmx-19", "ide", "pc", False),
        ("", "scsi", "q35", False),
        ("pc-q35-7.2", "scsi", "pc-q35-7.2", False),
        ("pc-q35-99.1", "scsi", "q35", True),
        ("pc-i440fx-99.1", "ide", "pc", True),
    ],
)
def test_machine_is_one_that_this_host_has(machine: str, bus: str, becomes: str, warns: bool) -> None:
    disk = DiskSpec("disk-0", "scsi0:0", 65536, "vmdk", bus, "")
    vm = VmSpec("vsphere", "id", "web", "/web", "powered_off", 1, 64, "bios", (disk,), machine=machine)
    builder = DomainBuilder(vm, None, Placement("web"), HOST)
    assert (builder.machine(), bool(builder.warnings)) == (becomes, warns)
