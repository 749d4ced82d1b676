# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's own description of a VM, kept beside its disks: `domain.xml`, and `nvram.fd` for UEFI."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from ..._errors import VmferryError
from ..spec import VmSpec
from . import domain_xml
from .connection import Connection

DOMAIN = "domain.xml"
NVRAM = "nvram.fd"
LARGEST_NVRAM = 64 * 1024 * 1024  # bytes; flash of any known firmware is far smaller


def read(connection: Connection, vm: VmSpec, warnings: list[str]) -> dict[str, bytes]:
    """By file name, without secrets (VNC passwords …). What could not be had is told to `warnings`."""

    def work(text_flags: int) -> str:
        return connection.domain(vm.id, f"Reading {vm.name}", lambda domain: domain.XMLDesc(text_flags))

    import libvirt

    text = work(libvirt.VIR_DOMAIN_XML_INACTIVE)
    files = {DOMAIN: text.encode()}
    if vm.firmware == "uefi":
        path = nvram_path(domain_xml.parse(text)) or nvram_path(domain_xml.parse(work(0)))
        try:
            files[NVRAM] = _contents(path)
        except OSError as error:
            warnings.append(f"The UEFI variables of {vm.name} are left out: {error.strerror or error}.")
    return files


def nvram_path(root: ET.Element) -> str:
    return domain_xml.text_of(root, "os/nvram").strip()


def _contents(path: str) -> bytes:
    if not path:
        raise FileNotFoundError("the VM was never started")
    found = Path(path)
    if found.stat().st_size > LARGEST_NVRAM:
        raise VmferryError("invalid_config", f"{path} is too large to be UEFI variables.")
    return found.read_bytes()
