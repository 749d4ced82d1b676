# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Artifact Manifest that another tool wrote, with its images beside it in a store, taken for an appliance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

from ..._appliances.appliance import Appliance, identity_of
from ..._appliances.checksums import Checksums
from ..._appliances.machine import Disk, Machine, Nic
from ..._appliances.packages import Package, check_name, folder_package
from ..._appliances.refusals import quoted, refused
from ..._errors import VmferryError
from ..._exports.artifacts import LIMIT, ArtifactDisk, Artifacts, is_of_others, read_artifacts
from ..._stores.base import Store
from .inspected_image import inspected_image

# Of what such a manifest does not tell. Every guest finds a disk on SATA and this card, with what it has brought along.
BUS, CARD, CPUS, MEMORY = "sata", "e1000e", 1, 1 << 30


def stored_artifacts(store: Store, key: str) -> Appliance:
    """`key`: of the manifest. Raises `not_found`, `unsupported`, `invalid_config`."""
    where = store.object_url(key)
    text = store.get(key, LIMIT)
    if not is_of_others(text):
        raise VmferryError(
            "invalid_config",
            f"{where} is no Artifact Manifest of another tool.",
            "Of an export, name the folder that it lies in, not its manifest.",
        )
    found = read_artifacts(text, where)
    folder, slash, _unused = key.rpartition("/")
    package = _package(store, folder + slash, found, where)
    checksums = Checksums.known(package, {disk.file: disk.sha256 for disk in found.disks if disk.sha256})
    images = [_image(package, disk, where, proves=checksums.is_there) for disk in found.disks]
    machine = Machine(
        name=found.name or folder.rpartition("/")[2] or store.url.rstrip("/").rpartition("/")[2],
        cpus=found.cpus or CPUS,
        memory=found.memory or MEMORY,
        disks=tuple(image.disk for image in images),
        nics=tuple(Nic(card.id, card.network, CARD, card.mac) for card in found.cards),
        firmware=found.firmware,
        secure_boot=found.secure_boot,
        os_name=found.os_name,
        warnings=(*found.warnings, *_guesses(found), *(image.warning for image in images if image.warning)),
    )
    return Appliance(where, identity_of(text, package, checksums), machine, package, checksums)


def _package(store: Store, prefix: str, found: Artifacts, where: str) -> Package:
    """The images by their names beside the manifest: where they lay when it was written is nobody's business here, and
    may be any file of this host."""
    files = []
    for disk in found.disks:
        check_name(disk.file, where)
        info = store.stat(prefix + disk.file)
        if info is None:
            hint = "Copy the images into the folder of the manifest, under the names that they have in local_path."
            raise refused(where, f"names the file {quoted(disk.file)}, which is not beside it", hint)
        files.append((disk.file, info.size))
    return folder_package(where, files, lambda name, at, buffer: store.read_into(prefix + name, at, buffer))


@dataclass(frozen=True)
class _Image:
    disk: Disk
    warning: str


def _image(package: Package, disk: ArtifactDisk, where: str, *, proves: bool) -> _Image:
    """`proves`: whether there is a checksum of any; where there is none at all, the import says so itself."""
    member = package.members[disk.file]
    _unused, size = inspected_image(member, disk.format, f"{where}: {disk.file}")
    warning = ""
    if disk.format == "raw" and disk.bytes > member.size:  # and nothing in the image would tell
        told = f"is said to have {disk.bytes} bytes, and has {member.size}"
        raise refused(where, f"names the raw image {quoted(disk.file)}, which {told}", "Bring the whole file here.")
    if disk.bytes not in (member.size, size):
        told = f"has {disk.bytes} bytes; its file has {member.size}, and its disk {size}"
        warning = f"{where} says that {disk.id} {told}. It may not be the file that was meant."
    elif proves and not disk.sha256:
        warning = f"{where} has no checksum of {disk.id}: damage of it is not found."
    return _Image(Disk(disk.id, disk.file, size, disk.format, BUS), warning)


def _guesses(found: Artifacts) -> Iterator[str]:
    if not found.cpus:
        yield f"The manifest does not tell the number of processors; the VM gets {CPUS}."
    if not found.memory:
        yield f"The manifest does not tell the memory; the VM gets {MEMORY >> 20} MiB."
