# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deflate, RFC 1950 and RFC 1951, by the fastest library that is here. What one of them packs, all of them unpack."""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any


@cache
def fast_zlib() -> Any:
    """A module with the functions of `zlib`, an `error` of its own, and levels of its own, of which 1 packs as tightly.

    `isal` (https://python-isal.readthedocs.io) takes about a quarter of zlib's time to pack, and half to unpack. It is
    asked for once: a failed import looks through all folders again.
    """
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib
