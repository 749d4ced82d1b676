# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of a VM that is off, where QEMU would show the guest just what their headers say."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from typing import Iterable

from ..._errors import VmferryError
from ..._images.local_clusters import Layer
from ..spec import DiskSpec
from . import domain_xml
from .connection import Connection
from .image_chain import ImageChain, read_chain


def read_chains(connection: Connection, uuid: str, disks: Iterable[DiskSpec]) -> list[ImageChain]:
    """Raises as `read_chain`, and `unsupported` where the domain overrides what a header says."""
    text = connection.domain(uuid, "Reading the disks", lambda domain: domain.XMLDesc())
    elements = {
        domain_xml.attribute(element, "target", "dev"): element
        for element in domain_xml.parse(text).iterfind("devices/disk")
    }
    return [_read(elements.get(disk.name), disk) for disk in disks]


def _read(element: ET.Element | None, disk: DiskSpec) -> ImageChain:
    if element is not None and element.find(".//slices") is not None:
        raise _only_while_it_runs(disk, "is a slice of its image")
    chain = read_chain(disk.source, disk.format)
    if element is not None and not _is_as_written(element.find("backingStore"), chain.layers[1:]):
        raise _only_while_it_runs(disk, "has other backing files in the domain than in the header of its image")
    return chain


def _is_as_written(store: ET.Element | None, layers: tuple[Layer, ...]) -> bool:
    """What the domain does not spell out is left to the header; an empty element says that there is no more."""
    if store is None:
        return True
    source = store.find("source")
    if source is None:
        return not layers
    path = source.get("file") or source.get("dev")
    if not layers or path is None or os.path.realpath(path) != os.path.realpath(layers[0].path):
        return False
    if domain_xml.attribute(store, "format", "type", layers[0].format) != layers[0].format:
        return False
    return _is_as_written(store.find("backingStore"), layers[1:])


def _only_while_it_runs(disk: DiskSpec, what: str) -> VmferryError:
    return VmferryError("unsupported", f"{disk.name} ({disk.source}) {what}.", "Export the VM while it runs.")
