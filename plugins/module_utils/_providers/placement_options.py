# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a placement that only some providers know. The others refuse them, and never pass them over."""

from __future__ import annotations

from typing import Iterator, Sequence

from .._errors import VmferryError
from .base import Placement
from .finding import Finding

IN_AN_INVENTORY = ("folder", "cluster", "host", "resource_pool", "disk_provisioning", "keep_uuid")
IN_A_CLOUD = (
    "stop_at",
    "instance_type",
    "subnet_id",
    "security_groups",
    "key_name",
    "iam_instance_profile",
    "volume_type",
    "encrypted",
    "kms_key_id",
)
ON_PROXMOX = ("vmid",)
_EVERY = (*IN_AN_INVENTORY, *IN_A_CLOUD, *ON_PROXMOX)


def unknown_options(placement: Placement, provider: str, names: Sequence[str] = _EVERY) -> Iterator[Finding]:
    """`names`: left out of a provider that has neither an inventory of folders and pools nor what clouds have."""
    for name in names:
        if getattr(placement, name):
            text = f"placement.{name} means nothing to the provider {provider}."
            yield Finding("error", text, "Leave it out.", "unsupported")


def insist_on_known(placement: Placement, provider: str, names: Sequence[str] = _EVERY) -> None:
    for finding in unknown_options(placement, provider, names):
        raise VmferryError("unsupported", finding.message, finding.hint)
