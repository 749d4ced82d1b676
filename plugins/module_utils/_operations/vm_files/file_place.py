# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The place below which the files of VMs are."""

from __future__ import annotations

from dataclasses import dataclass

from ..._stores.base import Store


@dataclass(frozen=True)
class FilePlace:
    """`is_path`: its objects are files of this host. `keeps_metadata`: they have words beside their bytes."""

    store: Store
    is_path: bool
    keeps_metadata: bool
