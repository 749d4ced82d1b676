# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undoing an import that did not come to its end, by what it wrote down before it did it."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Mapping

from ..._errors import VmferryError
from . import domain_xml
from .connection import Connection
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt

NAMESPACE = "https://vmferry.github.io/migrate/1"


def undo_import(connection: Connection, folder: WorkFolder, patience: float = 0.0) -> str:
    """What became of the files of a dead attempt, as a sentence.

    They go unless a VM has them; where the libvirt that the attempt worked on cannot tell, they stay for the next try.
    """
    record, dead = folder.record, f"a dead {folder.record.describe()}"
    for made in record.made:
        if "part" in made:
            _remove(Path(made["part"]))
    finals = {Path(made["final"]): made["identity"] for made in record.made if "final" in made}
    vm = next((made for made in record.made if "uuid" in made), None)
    if vm is not None and not finals:
        folder.remove()
        return f"Removed {folder.path}, left by {dead}, whose VM {record.vm_name} is whole."
    try:
        owner = _owner(connection, vm, finals, patience) if finals else ""
    except VmferryError as error:
        return f"Left {_named(finals)}, made by {dead}: it cannot be asked whether a VM has them. {error.message}"
    if owner:
        folder.remove()
        return f"Left {_named(finals)}, made by {dead}, to {owner}, which has them."
    for path, its_identity in finals.items():
        _remove(path, its_identity)
    folder.remove()
    return f"Removed what {dead} had made of {record.vm_name}."


def _owner(connection: Connection, vm: Mapping[str, str] | None, finals: Iterable[Path], patience: float) -> str:
    """The VM that was made, under whatever name it goes by now, or another that has one of these files; or ''."""
    if vm is None:
        raise VmferryError("internal", "It was not written down which VM they were for.")

    def work(opened: libvirt.virConnect) -> str:
        for domain in opened.listAllDomains():
            if domain.UUIDString() == vm["uuid"] or _has(opened, domain_xml.parse(domain.XMLDesc()), finals):
                name: str = domain.name()
                return name
        return ""

    asked = connection if connection.uri == vm["uri"] else Connection(vm["uri"])
    try:
        return asked.call(f"Looking for {vm['uuid']} at {vm['uri']}", work, patience=patience)
    finally:
        if asked is not connection:
            asked.close()


def _has(opened: libvirt.virConnect, domain: ET.Element, finals: Iterable[Path]) -> bool:
    """Wherever it names them: as a disk, as a backing file, as the firmware's variables, as a volume of a pool."""
    said = {value for element in domain.iter() for value in (*element.attrib.values(), element.text or "")}
    named = {os.path.realpath(value) for value in said if "/" in value}
    volumes = {path.name for path in finals}
    for source in domain.iter("source"):
        pool, volume = source.get("pool"), source.get("volume", "")
        if pool and volume in volumes:
            named.add(os.path.realpath(opened.storagePoolLookupByName(pool).storageVolLookupByName(volume).path()))
    return any(os.path.realpath(path) in named for path in finals)


def _named(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def import_mark(connection: Connection, name: str) -> Mapping[str, str]:
    """What an import of ours wrote into the VM of that name: `export`, `attempt`; empty for any other VM, or none."""

    def work(opened: libvirt.virConnect) -> str:
        import libvirt

        try:
            domain = opened.lookupByName(name)
            text: str = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
                return ""
            raise
        return text

    text = connection.call(f"Looking at {name}", work)
    return dict(domain_xml.parse(text).attrib) if text else {}


def mark(export_id: str, attempt: str) -> ET.Element:
    ET.register_namespace("vmferry", NAMESPACE)
    return ET.Element(f"{{{NAMESPACE}}}import", export=export_id, attempt=attempt)


def identity(path: Path) -> str:
    seen = path.stat()
    return f"{seen.st_dev}:{seen.st_ino}"


def _remove(path: Path, its_identity: str = "") -> None:
    """A part has a name that is ours alone; a final one may be somebody else's by now: its inode decides."""
    with suppress(FileNotFoundError):
        if not its_identity or identity(path) == its_identity:
            path.unlink()
