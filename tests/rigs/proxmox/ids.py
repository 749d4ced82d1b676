# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids of machines, a thousand for each rig."""

from __future__ import annotations

import secrets

COUNT = 1000


def new_range() -> int:
    """The first. It has nine digits, as none of Proxmox VE's own choice has."""
    return 100_000_000 + secrets.randbelow(899_999) * COUNT
