# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `disk_snapshot_info` does."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from .._providers.open import open_provider
from .jobs.requests import ProviderSpec


def list_snapshots(provider: ProviderSpec, vm: str, name: str) -> dict[str, Any]:
    """All of a VM, or the one of that name if there is one."""
    with closing(open_provider(provider.name, provider.settings)) as opened:
        spec = opened.describe(vm)
        found = opened.snapshots(spec).list()
    chosen = [snapshot.as_dict() for snapshot in found if name in ("", snapshot.name)]
    return {"changed": False, "vm": {"id": spec.id, "name": spec.name}, "snapshots": chosen}
