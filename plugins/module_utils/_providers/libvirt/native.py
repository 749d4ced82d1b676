# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's own description of a VM: its XML, and the variables of its firmware."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Mapping

if TYPE_CHECKING:
    import libvirt

DOMAIN_XML = "domain.xml"
NVRAM = "nvram.fd"
LARGEST_NVRAM = 64 * 1024 * 1024  # bytes


def native_files(domain: libvirt.virDomain) -> Mapping[str, bytes]:
    """The persistent definition, without secrets such as a graphics password: libvirt leaves them out unless asked."""
    import libvirt

    flags = libvirt.VIR_DOMAIN_XML_INACTIVE if domain.isPersistent() else 0
    text = domain.XMLDesc(flags)
    files = {DOMAIN_XML: text.encode()}
    nvram = ET.fromstring(text).findtext("os/nvram")  # libvirt's own output
    if nvram and Path(nvram).is_file() and Path(nvram).stat().st_size <= LARGEST_NVRAM:
        files[NVRAM] = Path(nvram).read_bytes()
    return files
