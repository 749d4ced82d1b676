# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this libvirt can run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import libvirt


def domain_type(connection: libvirt.virConnect) -> str:
    """`kvm` where the host has it, else `qemu`. Where VMs run already, their type is what works here."""
    used = {ET.fromstring(domain.XMLDesc()).get("type", "") for domain in connection.listAllDomains()}
    if len(used) == 1:
        return used.pop()
    capabilities = ET.fromstring(connection.getCapabilities())  # libvirt's own output
    offered = {one.get("type") for one in capabilities.findall("guest/arch[@name='x86_64']/domain")}
    return "kvm" if "kvm" in offered else "qemu"
