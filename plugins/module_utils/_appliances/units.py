# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities of a descriptor: a whole number, and units as DSP0004 (C.1) writes them programmatically."""

from __future__ import annotations

import re
from typing import Mapping

from .refusals import quoted, refused

LARGEST = 1 << 60
_NUMBER = re.compile(r"[0-9]{1,20}")
_POWER = re.compile(r"byte( ?\* ?(2 ?\^ ?([0-9]{1,2})|10 ?\^ ?([0-9]{1,2})|([0-9]{1,15})))?")
_OLD: Mapping[str, int] = {  # of OVF 0.9, and of VMware's and VirtualBox's older exports
    "bytes": 1,
    "kilobytes": 1 << 10,
    "megabytes": 1 << 20,
    "gigabytes": 1 << 30,
    "terabytes": 1 << 40,
    "kb": 1 << 10,
    "mb": 1 << 20,
    "gb": 1 << 30,
    "tb": 1 << 40,
}


def whole_number(text: str, what: str, where: str) -> int:
    """Raises `invalid_config`."""
    if not _NUMBER.fullmatch(text.strip()):
        raise refused(where, f"has {quoted(text)} as its {what}, which is no whole number")
    return int(text)


def byte_count(text: str, units: str, what: str, where: str) -> int:
    """`units`: as the descriptor has them; bytes where it has none. Raises `invalid_config`."""
    number = whole_number(text, what, where) * _factor(units.strip(), what, where)
    if number > LARGEST:
        raise refused(where, f"has {number} bytes as its {what}, which is more than any machine has")
    return number


def _factor(units: str, what: str, where: str) -> int:
    if not units:
        return 1
    found = _POWER.fullmatch(units.lower())
    if found is None:
        if units.lower() in _OLD:
            return _OLD[units.lower()]
        raise refused(where, f"has its {what} in units of {quoted(units)}")
    two, ten, other = found[3], found[4], found[5]
    if two is not None:
        return 1 << int(two)
    return 10 ** int(ten) if ten is not None else int(other or 1)
