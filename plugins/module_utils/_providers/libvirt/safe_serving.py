# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a VM's QEMU may serve its disks, as a backup job has it do: see `qemu_serving`."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ..qemu_serving import insist_on_safe_version, is_safe
from ..spec import DiskSpec, VmSpec
from . import domain_xml
from .connection import Connection

if TYPE_CHECKING:
    import libvirt

HINT = (
    "Export a snapshot of it (the option snapshot), which QEMU does not serve, or shut it down first. Or upgrade QEMU "
    "to 8.2.3, 9.0 or later, and start the VM anew."
)
MACHINE = re.compile(r"[a-z0-9-]+-(\d+)\.(\d+)")  # pc-q35-9.0, which no QEMU before 9.0 has


def insist_on_safe_serving(connection: Connection, vm: VmSpec, disks: Sequence[DiskSpec], root: ET.Element) -> None:
    """`root`: the domain XML of the VM that runs. Raises `unsupported`.

    The QEMU that runs is not always the one that is installed. Where the type of its machine does not tell, it is asked
    itself, past libvirt, which marks the VM as tainted by that until it is started anew.
    """
    with_thread = domain_xml.disks_with_io_thread(root)
    threaded = [disk.name for disk in disks if disk.name in with_thread]
    if threaded and not _is_new_machine(domain_xml.attribute(root, "os/type", "machine")):
        told = connection.domain(vm.id, f"Asking the QEMU of {vm.name} for its version", _version)
        insist_on_safe_version(told, vm.name, threaded, HINT)


def _is_new_machine(machine: str) -> bool:
    found = MACHINE.fullmatch(machine)
    return found is not None and is_safe((int(found[1]), int(found[2]), 0))


def _version(domain: libvirt.virDomain) -> Mapping[str, Any]:
    import libvirt_qemu

    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps({"execute": "query-version"}), 0))
    told: Mapping[str, Any] = answer["return"]
    return told
