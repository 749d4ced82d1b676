# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of a descriptor whose values are secrets."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from .documents import parse
from .machine import OVF
from .ovf_elements import document
from .ovf_items import attribute, is_true


def is_password(prop: ET.Element) -> bool:
    """By `ovf:password` (DSP0243, 9.5.1), or by the type, as vSphere has one."""
    return is_true(prop, "password") or attribute(prop, "type").strip().lower().startswith("password")


def without_passwords(text: bytes, where: str) -> bytes:
    """The descriptor itself where it has none; else the same elements without those values. Raises `invalid_config`."""
    root, found = parse(text, where), False
    for prop in root.iter():
        if prop.tag in (f"{{{OVF}}}Property", "Property") and is_password(prop):
            for element in prop.iter():  # a `Value` is of one configuration
                for name in (f"{{{OVF}}}value", "value"):
                    found = element.attrib.pop(name, "") != "" or found
    return document(root) if found else text
