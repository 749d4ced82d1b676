# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, rates and durations as people write them."""

from __future__ import annotations

import re

from .._errors import VmferryError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?")
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Bytes: `512`, `10MiB` (binary), `100GB` (decimal)."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise VmferryError("invalid_config", f"{text!r} is not a size.", "Write it like 512, 10MiB or 100GB.")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWER[prefix.upper()])


def parse_rate(text: str) -> float:
    """Bytes per second: `20MiB/s`; `0` and `off` are unlimited, given as 0. `512K` is 512 KiB/s, as rclone means it."""
    plain = text.strip()
    if plain in ("0", "off"):
        return 0.0
    bare = plain[:-2] if plain.endswith("/s") else plain
    if re.fullmatch(r"\d+(\.\d+)?[KMGTP]", bare):
        return float(parse_size(bare + "iB"))
    if not re.search(r"[A-Za-z]", bare):
        raise VmferryError("invalid_config", f"{text!r} is not a rate: it has no unit.", "Write it like 20MiB/s, or 0.")
    try:
        rate = float(parse_size(bare))
    except VmferryError as error:
        raise VmferryError("invalid_config", f"{text!r} is not a rate.", "Write it like 20MiB/s, or 0.") from error
    if rate <= 0:
        raise VmferryError("invalid_config", f"{text!r} is not a rate above nothing.", "Write 0 for unlimited.")
    return rate


def parse_duration(text: str) -> float:
    """Seconds: `90`, `90s`, `12h`, `30d`."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise VmferryError("invalid_config", f"{text!r} is not a duration.", "Write it like 90, 5m, 12h or 30d.")
    return float(found.group(1)) * _SECONDS[found.group(2)]
