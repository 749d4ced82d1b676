# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMA, Proxmox VE's archive of a VM: its header alone. Its disks lie in it piece by piece."""

from __future__ import annotations

from ..vma_header import HEADER, NoVma, VmaHeader, header_size
from .reading import Examination
from .words import Description


def describe(examination: Examination) -> Description:
    """`size`: of all its disks."""
    start = examination.read(0, HEADER, "its header")
    try:
        size = header_size(start)
        header = VmaHeader.unpack(start + examination.read(HEADER, size - HEADER, "its header"))
    except NoVma as error:
        examination.refuse("damaged", str(error))
    clusters = sum(disk.clusters for disk in header.disks)
    examination.demand(8 * clusters <= examination.size - size, "ends before the end of its disks", "truncated")
    return Description("vma", "", examination.disk_size(sum(disk.size for disk in header.disks)))
