# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undoing an import that did not come to its end, by what it wrote down before it did it."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Mapping

from . import domain_xml
from .connection import Connection
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt

NAMESPACE = "https://vmferry.github.io/migrate/1"


def undo_import(connection: Connection, folder: WorkFolder) -> None:
    """A VM that was defined is whole, and stays; otherwise every file of this attempt goes."""
    record = folder.record
    if import_mark(connection, record.vm_name).get("attempt") != record.attempt:
        for made in record.made:
            _remove(made)
    folder.remove()


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


def _remove(made: Mapping[str, str]) -> None:
    """A `part` has a name that is ours alone; a `final` one may be somebody else's by now: its inode decides."""
    with suppress(FileNotFoundError):
        if "part" in made:
            os.unlink(made["part"])  # noqa: PTH108
        elif identity(Path(made["final"])) == made["identity"]:
            os.unlink(made["final"])  # noqa: PTH108
