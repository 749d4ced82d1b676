# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a backup job puts its files, and how much room must stay there."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from . import domain_xml

MIB = 1024 * 1024
SMALLEST_RESERVE = 64 * MIB  # what a guest may write between two looks of the watchdog
LARGEST_RESERVE = 1024 * MIB
RESERVE_SHARE = 20  # a twentieth of the file system, between those two
HELD_RESERVES = 2  # what is only held for the next run yields to exports under way, and before the guests come near
QEMU_STATE = Path("/var/lib/libvirt/qemu")


def reserve_of(scratch_dir: str) -> int:
    """Bytes that must stay free; with less, the job is aborted so that the guest can go on."""
    found = os.statvfs(scratch_dir)
    return max(SMALLEST_RESERVE, min(LARGEST_RESERVE, found.f_blocks * found.f_frsize // RESERVE_SHARE))


def held_reserve_of(scratch_dir: str) -> int:
    """As `reserve_of`, while nobody reads."""
    return HELD_RESERVES * reserve_of(scratch_dir)


def socket_path(folder: Path, domain: ET.Element, attempt: str) -> str:
    """In the attempt's folder; for a confined VM in the VM's own state folder.

    libvirt tells AppArmor and SELinux of every file that it names to QEMU, scratch files among them, but not of the
    socket, which QEMU creates. Its profiles always let a VM write to its own state folder.
    """
    if domain_xml.is_confined(domain):
        number = int(domain.get("id", "0"))
        for state in QEMU_STATE.glob(f"domain-{number}-*"):  # libvirt shortens a long name
            return str(state / f"vmferry-{attempt}")
    return str(folder / "qemu" / "nbd")
