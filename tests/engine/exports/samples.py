# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A manifest as a real export writes it, to be changed by one lie at a time."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import (
    DiskRecord,
    Machine,
    Manifest,
    StoredFile,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.proven import ProvenObject, ProvenPart

NIC = {"id": "nic-0", "mac": "52:54:00:00:00:01", "network": "default"}
UUID = "1f0c9a2b-3c4d-4e5f-8a9b-0c1d2e3f4a5b"


def disk(number: int = 0) -> DiskRecord:
    return DiskRecord(
        id=f"disk-{number}",
        name=f"vd{'abc'[number]}",
        size=1 << 30,
        boot=number == 0,
        file=f"disk-{number}.qcow2",
        format="qcow2",
        bytes_stored=393216,
        bytes_read=65536,
        bytes_changed=65536,
        digest_root="ab" * 32,
        digests=StoredFile(f"disk-{number}.digests", 120, "cd" * 32),
        parts=(ProvenPart(327680, "11" * 32), ProvenPart(65536, "22" * 32)),
        proof_root="ef" * 32,
    )


def archived() -> Manifest:
    """Of an OVA with two disks."""
    parts = (ProvenPart(1 << 20, "55" * 32), ProvenPart(4096, "66" * 32))
    archive = ProvenObject("web01.ova", (1 << 20) + 4096, parts, "77" * 32)
    disks = tuple(
        replace(disk(number), file="web01.ova", format="vmdk", parts=(), proof_root="", archive=archive, offset=offset)
        for number, offset in enumerate((3072, 397312))
    )
    return manifest(format="ova", disks=disks)


def manifest(export_id: str = "20261121T063000Z-1a2b3c4d", **changes: object) -> Manifest:
    values: dict[str, object] = {
        "export_id": export_id,
        "chain_id": "0badc0de",
        "job_id": "00112233445566778899aabbccddeeff",
        "machine": Machine("libvirt", UUID, "web01", 2, 2048, "uefi", True, "debian12", (NIC,)),
        "taken_at": 1_795_242_600.0,
        "created_at": 1_795_242_660.0,
        "consistency": "crash_consistent",
        "format": "qcow2",
        "disks": (disk(0), disk(1)),
        "files": (StoredFile("vm.json", 900, "33" * 32), StoredFile("native/domain.xml", 4000, "44" * 32)),
        "name": "before the upgrade",
        "tags": ("nightly", "web"),
        "purpose": "backup",
        "all_disks": True,
        "verified": "stored",
        "warnings": ("The guest agent did not answer.",),
        "version": "0.1.0",
        "statistics": {"duration": 60.0, "disks": {}},
    }
    return Manifest(**{**values, **changes})  # type: ignore[arg-type]
