# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elements of a descriptor that is being written: how they are made, and how they become text that people read."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Mapping

from .machine import OVF, OWN, RASD, VMW, VSSD

_PREFIXES: Mapping[str, str] = {"ovf": OVF, "rasd": RASD, "vssd": VSSD, "vmw": VMW, "vmferry": OWN}
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def sub(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{OVF}}}{tag}", {f"{{{OVF}}}{key}": value for key, value in attributes.items()})


def info(parent: ET.Element, text: str) -> None:
    sub(parent, "Info").text = text


def plain(root: ET.Element) -> None:
    """Without characters that XML has no way to write."""
    for element in root.iter():
        element.text = _NO_XML.sub("\ufffd", element.text) if element.text else element.text
        for key, value in element.attrib.items():
            element.set(key, _NO_XML.sub("\ufffd", value))


def indent(element: ET.Element, depth: int = 0) -> None:
    """A line for each element, as people read it; texts stay as they are."""
    inner = "\n" + "  " * (depth + 1)
    if len(element):
        element.text = inner
        for child in element:
            indent(child, depth + 1)
            child.tail = inner
        element[-1].tail = "\n" + "  " * depth


def document(root: ET.Element) -> bytes:
    for prefix, uri in _PREFIXES.items():
        ET.register_namespace(prefix, uri)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "utf-8", xml_declaration=False) + b"\n"
