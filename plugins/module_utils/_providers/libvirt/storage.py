# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where imported disks go: a storage pool's folder, or a folder. What is there already is never touched."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Mapping

from ..._errors import VmferryError
from ..base import Placement
from ..spec import DiskSpec, VmSpec
from . import domain_xml
from .connection import Connection

if TYPE_CHECKING:
    import libvirt

DEFAULT_POOL = "default"
DEFAULT_FOLDER = "/var/lib/libvirt/images"
FILE_POOLS = ("dir", "fs", "netfs")
EXTENSIONS: Mapping[str, str] = {"qcow2": "qcow2", "raw": "img"}
UNUSABLE_NAME = re.compile(r"^\.{0,2}$|[/\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Storage:
    """`pool` is empty for a plain folder, else it has to be refreshed once something new is there."""

    folder: Path
    pool: str = ""


@dataclass(frozen=True)
class NewDisk:
    spec: DiskSpec  # as exported
    storage: Storage
    part: Path
    final: Path
    format: str


def check_name(name: str) -> None:
    if UNUSABLE_NAME.search(name):
        raise VmferryError("invalid_config", f"{name!r} cannot be the name of a VM.", "Leave out '/'.")


def find_storage(connection: Connection, wanted: str) -> Storage:
    """`wanted`: a pool's name, an absolute folder, or '' for the pool `default`, else libvirt's own folder."""
    if wanted.startswith("/"):
        if not os.path.isdir(wanted):  # noqa: PTH112 - as the user wrote it
            raise VmferryError(
                "not_found",
                f"The folder {wanted} does not exist.",
                "Create it, or name another one as placement.storage.",
            )
        return Storage(Path(wanted))

    def work(opened: libvirt.virConnect) -> str:
        import libvirt

        try:
            text: str = opened.storagePoolLookupByName(wanted or DEFAULT_POOL).XMLDesc()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
                raise
            if not wanted:
                return ""
            there = ", ".join(sorted(pool.name() for pool in opened.listAllStoragePools())) or "none"
            hint = f"Its pools: {there}. An absolute path is a folder."
            raise VmferryError("not_found", f"There is no storage pool {wanted} on this host.", hint) from error
        return text

    text = connection.call(f"Looking for the storage pool {wanted or DEFAULT_POOL}", work)
    if not text:
        return find_storage(connection, DEFAULT_FOLDER)
    root = domain_xml.parse(text)
    kind, path = root.get("type", ""), domain_xml.text_of(root, "target/path")
    name = domain_xml.text_of(root, "name")
    if kind not in FILE_POOLS:
        raise VmferryError(
            "unsupported",
            f"The storage pool {name} is of type {kind}; disks can be imported into {', '.join(FILE_POOLS)}.",
            "Choose another pool, or a folder.",
        )
    if not os.path.isdir(path):  # noqa: PTH112
        raise VmferryError("not_found", f"{path} of the storage pool {name} does not exist.", "Is the pool started?")
    return Storage(Path(path), name)


def plan_disks(connection: Connection, vm: VmSpec, placement: Placement, export_id: str, attempt: str) -> list[NewDisk]:
    """Raises `invalid_config` for a format or a mapping that cannot be meant."""
    known = {name for disk in vm.disks for name in (disk.id, disk.name)}
    unknown = [name for name in placement.storage_map if name not in known]
    if unknown:
        raise VmferryError(
            "invalid_config",
            f"storage_map names {', '.join(unknown)}, which {vm.name} does not have.",
            f"It has {', '.join(f'{disk.id} ({disk.name})' for disk in vm.disks) or 'no disks at all'}.",
        )
    format = placement.disk_format or "qcow2"
    if format not in EXTENSIONS:
        raise VmferryError("invalid_config", f"{format} is no disk format here.", f"Use {' or '.join(EXTENSIONS)}.")
    found: dict[str, Storage] = {}
    planned = []
    for number, disk in enumerate(vm.disks):
        wanted = placement.storage_map.get(disk.id) or placement.storage_map.get(disk.name) or placement.storage
        if wanted not in found:
            found[wanted] = find_storage(connection, wanted)
        storage = found[wanted]
        planned.append(
            NewDisk(
                spec=disk,
                storage=storage,
                part=storage.folder / f"{part_prefix(export_id, attempt)}-disk-{number}.part",
                final=storage.folder / f"{placement.name}-disk-{number}.{EXTENSIONS[format]}",
                format=format,
            )
        )
    return planned


def part_prefix(export_id: str, attempt: str) -> str:
    return f".vmferry-{re.sub('[^0-9A-Za-z]', '', export_id)[-8:]}-{attempt}"
