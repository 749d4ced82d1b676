# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a placement that only some providers know. The others refuse them, and never pass them over."""

from __future__ import annotations

from typing import Iterator

from .._errors import VmferryError
from .base import Placement
from .finding import Finding

IN_AN_INVENTORY = ("folder", "cluster", "host", "resource_pool", "disk_provisioning", "keep_uuid")


def unknown_options(placement: Placement, provider: str) -> Iterator[Finding]:
    """Of a provider that has no inventory of folders and pools, and makes disks in one way."""
    for name in IN_AN_INVENTORY:
        if getattr(placement, name):
            text = f"placement.{name} means nothing to the provider {provider}."
            yield Finding("error", text, "Leave it out.", "unsupported")


def insist_on_known(placement: Placement, provider: str) -> None:
    for finding in unknown_options(placement, provider):
        raise VmferryError("unsupported", finding.message, finding.hint)
