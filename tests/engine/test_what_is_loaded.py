# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's modules are compiled anew at every start: what a task does not need is not even loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PACKAGE = "ansible_collections.vmferry.migrate.plugins.module_utils"
PROGRAM = """
import json, sys
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_with(*names: str) -> set[str]:
    command = [sys.executable, "-c", PROGRAM, *(f"{PACKAGE}.{name}" for name in names)]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=where)
    return {name.removeprefix(f"{PACKAGE}.") for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("needed", "not_needed"),
    [
        # By an export that is only looked at, or of which there is one already.
        (
            ("_operations.export_vm", "_providers.libvirt.provider"),
            (
                "_operations.exporting.take_export",
                "_operations.exporting.export_copies",
                "_transfer.pipeline",
                "_nbd.connection",
                "_operations.vm_files.provider",
            ),
        ),
        # By a migration that is only looked at, or that was made already.
        (("_operations.migrate_vm",), ("_operations.migrating.move_vm", "_transfer.copy_blocks")),
        # By whoever looks at VMs that are files.
        (
            ("_operations.describe_vms", "_operations.vm_files.provider"),
            ("_operations.vm_files.file_export", "_nbd.qemu_nbd", "_transfer.pipeline"),
        ),
        # By whoever exports, describes, starts or stops a VM.
        (
            ("_providers.libvirt.provider",),
            (
                "_images.inspect.image",
                "_providers.libvirt.import_session",
                "_providers.libvirt.live_export",
                "_providers.libvirt.removal",
                "_providers.libvirt.snapshots",
            ),
        ),
        # By whoever describes VMs of vSphere, before the server is asked.
        (
            ("_providers.vsphere.provider",),
            ("pyVmomi", "_providers.vsphere.lookup", "_providers.vsphere.power", "_providers.vsphere.snapshots"),
        ),
        # By whoever describes instances of AWS, before it is asked.
        (
            ("_providers.aws.provider",),
            (
                "boto3",
                "_providers.aws.describe",
                "_providers.aws.export_session",
                "_providers.aws.power",
                "_providers.aws.removal",
                "_providers.aws.snapshots",
            ),
        ),
        # By whoever describes VMs of Proxmox VE, before it is asked.
        (
            ("_providers.proxmox.provider",),
            (
                "proxmoxer",
                "requests",
                "_nbd.connection",
                "_providers.proxmox.describe",
                "_providers.proxmox.keeper",
                "_providers.proxmox.live_export",
                "_providers.proxmox.offline_export",
                "_providers.proxmox.power",
                "_providers.proxmox.removal",
                "_providers.proxmox.snapshots",
            ),
        ),
        # By a cleanup that merges nothing.
        (("_operations.clean_up_exports",), ("_operations.cleaning.fold_export", "_transfer.pipeline")),
    ],
)
def test_what_few_tasks_need_is_loaded_by_these(needed: tuple[str, ...], not_needed: tuple[str, ...]) -> None:
    loaded = loaded_with(*needed)
    assert set(needed) <= loaded
    assert not loaded & set(not_needed)
