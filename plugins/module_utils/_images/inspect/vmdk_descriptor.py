# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of a VMDK, line by line: "Virtual Disk Format 5.0" of VMware,
https://www.vmware.com/app/vmdk/?src=vmdk

Every line is of a known kind, or the image is refused: QEMU opens each file that an extent's line names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Match, Tuple

from .reading import SECTOR, Examination
from .words import ExtentFile

TITLE = b"# Disk DescriptorFile"
_ENTRY = re.compile(r'([A-Za-z][A-Za-z0-9.]*) *= *("?)([^"]*)\2')
_EXTENT = re.compile(r'(RW|RDONLY|NOACCESS) (\d{1,15}) ([A-Z0-9]+)(?: "([^"]*)"(?: (\d{1,15}))?)?')
_TEXTS = {
    "version": re.compile(r"[1-4]"),
    "encoding": re.compile(r"[A-Za-z0-9_-]{1,32}"),
    "CID": re.compile(r"[0-9a-fA-F]{1,8}"),
    "parentCID": re.compile(r"[0-9a-fA-F]{1,8}"),
    "isNativeSnapshot": re.compile("yes|no"),
    "createType": re.compile("[A-Za-z0-9]{1,32}"),
    "parentFileNameHint": re.compile(r".{0,1024}"),
    "changeTrackPath": re.compile(r"[^/\\:]{0,255}"),
}
_NO_PARENT = 0xFFFFFFFF
# QEMU writes a new CID in the place of the old one, without zeros in front. Where it is shorter, what follows it moves
# up, and the end of what was there before stays behind the text: once in sixteen images of qemu-img.
_CID_DIGITS = 8
_EXTENT_KINDS = ("FLAT", "SPARSE", "ZERO", "VMFS", "VMFSSPARSE", "SESPARSE", "VMFSRDM", "VMFSRAW")


@dataclass(frozen=True)
class Descriptor:
    create_type: str
    extents: Tuple[ExtentFile, ...]
    parent: str

    @property
    def size(self) -> int:
        return sum(extent.length for extent in self.extents)


def read_descriptor(examination: Examination, data: bytes) -> Descriptor:
    """`data`: the whole of it, padded with zeros."""
    text, _unused, rest = data.partition(b"\0")
    is_alone = len(rest.rstrip(b"\0")) < _CID_DIGITS and text.endswith(rest.rstrip(b"\0"))
    examination.demand(text.startswith(TITLE) and is_alone, "has a descriptor with something behind it")
    entries: Dict[str, str] = {}
    extents: List[ExtentFile] = []
    for line in _lines(examination, text):
        extent = _EXTENT.fullmatch(line)
        if extent is not None:
            extents.append(_extent(examination, extent))
        else:
            key, value = _entry(examination, line)
            examination.demand(key not in entries, f"says {key} twice in its descriptor")
            entries[key] = value
    examination.demand({"version", "createType"} <= entries.keys(), "lacks a line in its descriptor")
    parent = _parent(examination, entries)
    return Descriptor(entries["createType"], tuple(extents), parent)


def _lines(examination: Examination, text: bytes) -> List[str]:
    try:
        lines = text.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        examination.refuse("damaged", "has a descriptor that is no text")
    stripped = [line.strip(" \t") for line in lines]
    shown = [line for line in stripped if line and not line.startswith("#")]
    examination.demand(all(line.isprintable() for line in shown), "has control characters in its descriptor")
    return shown


def _entry(examination: Examination, line: str) -> Tuple[str, str]:
    matched = _ENTRY.fullmatch(line)
    if matched is None:
        examination.refuse("unknown_feature", f"has an unknown line in its descriptor, {line[:80]!r}")
    key, value = matched.group(1), matched.group(3)
    known = key.startswith("ddb.") or (key in _TEXTS and _TEXTS[key].fullmatch(value))
    examination.demand(bool(known), f"has an unknown line in its descriptor, {line[:80]!r}", "unknown_feature")
    return key, value


def _extent(examination: Examination, matched: Match[str]) -> ExtentFile:
    _access, sectors, kind, name, offset = matched.groups()
    examination.demand(kind in _EXTENT_KINDS, f"has an extent of the kind {kind}", "unknown_feature")
    examination.demand((name is None) == (kind == "ZERO"), "has an extent without a file, or zeros with one")
    if name is not None and not is_beside(name):
        examination.object("outside", f"has an extent in {name!r}, which is no plain name of a file beside it")
    return ExtentFile(name or "", kind, int(sectors) * SECTOR, int(offset or 0) * SECTOR)


def is_beside(name: str) -> bool:
    """A plain file name: it neither climbs nor is a device, a protocol or a pseudo-file of QEMU."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\:") and name.isprintable()


def _parent(examination: Examination, entries: Dict[str, str]) -> str:
    parent = entries.get("parentFileNameHint", "")
    if parent or int(entries.get("parentCID", "ffffffff"), 16) != _NO_PARENT:
        examination.object("backing_file", f"stands on another image, {parent!r}")
    return parent
