# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pinned exports: whoever may write to the store puts an object `pinned` beside a manifest, and the export stays."""

from __future__ import annotations

from .._exports.catalog import CatalogEntry
from .._stores.base import Store

PINNED = "pinned"
LONGEST_REASON = 256  # bytes that are read of it


def pin_of(store: Store, entry: CatalogEntry) -> str | None:
    """Why it is pinned, which may be '', or None: it is not."""
    key = entry.key(PINNED)
    info = store.stat(key)
    if info is None:
        return None
    reason = bytearray(min(info.size, LONGEST_REASON))
    store.read_into(key, 0, memoryview(reason))
    text = bytes(reason).decode(errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
