# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as people write them: sizes in bytes, rates in bytes a second, durations in seconds."""

from __future__ import annotations

import re
from typing import NoReturn

from .._errors import VmferryError

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"  # \d takes the digits of every script
_SIZE = re.compile(_NUMBER + r"\s*([KMGTPkmgtp]?)(iB|B|)")
_RATE = re.compile(_NUMBER + r"\s*([KMGTPkmgtp]?)(iB|B|)(/s)?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[wdhms])+")
_SPAN = re.compile(_NUMBER + r"([wdhms])")
_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_SIZES = "Sizes are written 512, 64K, 10MiB or 100GB; without a unit they are bytes, K and KiB are 1024, KB is 1000."
_RATES = "Rates are written 20MiB/s, 20MB/s, 512K or 10M (as rclone does: KiB and MiB a second), or 0 for no limit."
_DURATIONS = "Durations are written 90 (seconds), 90s, 10m, 12h, 30d, 2w or 1h30m."


def parse_size(text: str) -> int:
    """Bytes. Raises `invalid_config`."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        _refuse(text, "size", _SIZES)
    return round(float(found[1]) * _factor(found[2], found[3], text, "size", _SIZES))


def parse_rate(text: str) -> float | None:
    """Bytes a second; None: unlimited (`0` or `off`). Raises `invalid_config`."""
    text = text.strip()
    if text.lower() == "off":
        return None
    found = _RATE.fullmatch(text)
    if not found:
        _refuse(text, "rate", _RATES)
    number, prefix, suffix, per_second = found.groups()
    if float(number) == 0:
        return None
    if not prefix and not suffix:
        _refuse(text, "rate", _RATES)
    if per_second and not suffix:
        _refuse(text, "rate", _RATES)
    return float(number) * _factor(prefix, suffix, text, "rate", _RATES)


def parse_duration(text: str) -> float:
    """Seconds. Raises `invalid_config`."""
    text = text.strip()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    if not _DURATION.fullmatch(text):
        _refuse(text, "duration", _DURATIONS)
    return sum(float(number) * _SECONDS[unit] for number, unit in _SPAN.findall(text))


def _factor(prefix: str, suffix: str, text: str, what: str, accepted: str) -> int:
    if suffix == "iB" and not prefix:
        _refuse(text, what, accepted)
    base = 1000 if suffix == "B" else 1024
    return int(base ** _POWERS[prefix.upper()])


def _refuse(text: str, what: str, accepted: str) -> NoReturn:
    raise VmferryError("invalid_config", f"{text!r} is not a {what}.", accepted)
