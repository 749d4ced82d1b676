# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM whose memory libvirt saved (`virsh managedsave`, or libvirt-guests when a host goes down).

It is off, and was not shut down: its next start goes on in the middle. Until then its disks are those of a guest that
runs. What it had not written yet is in what was saved, which no export has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spec import VmSpec
from .connection import Connection

if TYPE_CHECKING:
    import libvirt


def has_saved_memory(connection: Connection, vm: VmSpec) -> bool:
    def work(domain: libvirt.virDomain) -> bool:
        return bool(domain.hasManagedSaveImage())

    return connection.domain(vm.id, f"Looking at {vm.name}", work)


def how_to_end(vm: VmSpec) -> str:
    return f"Start it, or drop what was saved: virsh managedsave-remove {vm.name}"


def crash_consistent(vm: VmSpec) -> str:
    return f"{vm.name} was not shut down, its memory was saved: the export is crash consistent, and has none of it."
