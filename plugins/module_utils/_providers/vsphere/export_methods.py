# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ways to read a disk would work here, as far as it can be told without a snapshot."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Dict, Sequence

from ..spec import DiskSpec, VmSpec
from .disk_servers import DiskServers
from .flat_disk import FlatDisk, flat_url
from .readers import DATASTORE, LEASE, NBD, may_have_flat_file
from .session import Session
from .settings import VsphereSettings
from .tracking import can_be_tracked

MOST = 10  # VMs at once: each of their disks is asked for
PROBE_LIMIT = 10.0  # seconds
WORKS, POSSIBLE = "works", "possible"  # the latter: it is found out when the snapshot is there
_LIBRARY = "lib64/libvixDiskLib.so*"


def with_export_methods(settings: VsphereSettings, session: Session, vms: Sequence[VmSpec]) -> list[VmSpec]:
    """With `export_methods` in the details of their disks; as they are, where there are more than a few."""
    if len(vms) > MOST:
        return list(vms)
    servers = DiskServers(settings, session)
    nbd = _nbd(settings)
    return [
        vm.with_disks(
            tuple(
                replace(disk, details={**disk.details, "export_methods": _of(session, servers, vm, disk, nbd)})
                for disk in vm.disks
            )
        )
        for vm in vms
    ]


def _of(session: Session, servers: DiskServers, vm: VmSpec, disk: DiskSpec, nbd: str) -> Dict[str, str]:
    """In the order in which they are tried."""
    found = {
        NBD: nbd if can_be_tracked(disk) else "",
        DATASTORE: _datastore(session, servers, vm, disk),
        LEASE: _lease(vm, disk),
    }
    return {name: word for name, word in found.items() if word}


def _nbd(settings: VsphereSettings) -> str:
    if settings.nbd_uri:
        return POSSIBLE
    installed = settings.vddk_libdir and shutil.which("nbdkit") and any(Path(settings.vddk_libdir).glob(_LIBRARY))
    return POSSIBLE if installed else ""


def _datastore(session: Session, servers: DiskServers, vm: VmSpec, disk: DiskSpec) -> str:
    """The file of a VM that runs is locked until there is a snapshot; under snapshots of others it is no whole disk."""
    if vm.snapshots or not can_be_tracked(disk) or not may_have_flat_file(vm, disk):
        return ""
    if vm.power_state != "powered_off":
        return POSSIBLE
    url = flat_url(vm, disk.source)
    if not url:
        return ""
    source = FlatDisk(servers, session, url, disk.size, disk.name, idle_limit=PROBE_LIMIT)
    try:
        return "" if source.probe() else WORKS
    finally:
        source.close()


def _lease(vm: VmSpec, disk: DiskSpec) -> str:
    """vSphere exports no VM with a TPM or encryption, no raw device, and of one that runs what is in its snapshots."""
    if vm.tpm or vm.details["encrypted"] or disk.details["encrypted"]:
        return ""
    if disk.details["rdm_mode"] == "physical" or disk.details["backing"] == "raw_device":
        return ""
    return WORKS if disk.details["in_snapshots"] or vm.power_state == "powered_off" else ""
