# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a libvirt host can run: https://libvirt.org/formatcaps.html"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from . import domain_xml
from .connection import Connection


class Host:
    """Asked once."""

    def __init__(self, connection: Connection) -> None:
        text = connection.call("Asking what this host can run", lambda opened: opened.getCapabilities())
        self._root = domain_xml.parse(text)
        self._connection = connection

    def domain_type(self, architecture: str, wanted: str) -> str:
        """`wanted` where the host has it, else the fastest that it has."""
        arch = self._arch(architecture)
        found = [] if arch is None else [one.get("type", "") for one in arch.findall("domain")]
        if wanted in found:
            return wanted
        return "kvm" if "kvm" in found else "qemu"

    def machines(self, architecture: str) -> set[str]:
        arch = self._arch(architecture)
        if arch is None:
            return set()
        found: set[str] = set()
        for machine in arch.iter("machine"):
            found.update(name for name in (machine.text, machine.get("canonical")) if name)
        return found

    def runs(self, architecture: str) -> bool:
        return self._arch(architecture) is not None

    def has_uefi(self, architecture: str, machine: str) -> bool:
        """By the firmware descriptors that libvirt chooses from."""
        text = self._connection.call(
            "Asking for firmware", lambda opened: opened.getDomainCapabilities(None, architecture, machine, None)
        )
        values = domain_xml.parse(text).findall("os/enum[@name='firmware']/value")
        return any(value.text == "efi" for value in values)

    def _arch(self, architecture: str) -> ET.Element | None:
        return self._root.find(f"guest/arch[@name='{architecture or 'x86_64'}']")
