# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our checkpoints, out of the way for as long as libvirt describes a snapshot of a VM that is off.

Measured with libvirt 9.0: while a VM that is off has a checkpoint, no snapshot of it can be made or described anew
("cannot perform block operations while checkpoint exists"), although the bitmaps take no harm. So libvirt forgets the
checkpoints for the moment, and is told of them again. The bitmaps stay where they are.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator

from ..finding import Finding
from ..spec import VmSpec
from .checkpoints import TOKEN
from .connection import Connection
from .work_folder import WorkFolder

if TYPE_CHECKING:
    import libvirt


def foreign_checkpoints(connection: Connection, vm: VmSpec) -> list[str]:
    def work(domain: libvirt.virDomain) -> list[str]:
        return [checkpoint.getName() for checkpoint in domain.listAllCheckpoints()]

    return [name for name in connection.domain(vm.id, "Listing the checkpoints", work) if not TOKEN.fullmatch(name)]


def aside_findings(connection: Connection, vm: VmSpec) -> Iterator[Finding]:
    """Of a VM that is off. A kill while they are away loses checkpoints, so those of others are left alone."""
    foreign = foreign_checkpoints(connection, vm)
    if foreign:
        text = f"{vm.name} is off and has checkpoints of another program ({', '.join(foreign)})."
        hint = "libvirt changes no snapshots then. Start the VM first."
        yield Finding("error", text, hint, "unsupported")


@contextmanager
def checkpoints_aside(connection: Connection, vm: VmSpec, folder: WorkFolder) -> Iterator[None]:
    """Whoever comes after a kill finds them written down, and removes their bitmaps: the next export is a full one."""
    described = connection.domain(vm.id, "Reading the checkpoints", _described)
    for name, _unused in described:
        folder.will_make(checkpoint=name)
    try:
        for name, _unused in reversed(described):
            _forget(connection, vm, name)
        yield
    finally:
        for name, text in described:
            _tell(connection, vm, name, text)
            folder.has_undone(checkpoint=name)


def _described(domain: libvirt.virDomain) -> list[tuple[str, str]]:
    """Parents first; with secrets, for what is defined anew is all that libvirt keeps."""
    import libvirt

    found = domain.listAllCheckpoints(libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL)
    flags = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE
    return [(checkpoint.getName(), checkpoint.getXMLDesc(flags)) for checkpoint in found]


def _forget(connection: Connection, vm: VmSpec, name: str) -> None:
    def work(domain: libvirt.virDomain) -> None:
        import libvirt

        if name in {checkpoint.getName() for checkpoint in domain.listAllCheckpoints()}:
            flags = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
            domain.checkpointLookupByName(name).delete(flags)

    connection.domain(vm.id, f"Putting the checkpoint {name} aside", work)


def _tell(connection: Connection, vm: VmSpec, name: str, text: str) -> None:
    def work(domain: libvirt.virDomain) -> None:
        import libvirt

        domain.checkpointCreateXML(text, libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)

    connection.domain(vm.id, f"Defining checkpoint {name}", work)
