# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks that an import puts network cards into."""

from __future__ import annotations

from typing import Iterator

from .base import Placement
from .finding import Finding
from .spec import NicSpec, VmSpec


def mapped_network(nic: NicSpec, placement: Placement) -> str:
    """By MAC, which is exact, else by the network's name; '' where the task says nothing."""
    by_lower = {key.lower(): value for key, value in placement.network_map.items()}
    return by_lower.get(nic.mac.lower(), "") or placement.network_map.get(nic.network, "")


def unknown_networks(vm: VmSpec, placement: Placement) -> Iterator[Finding]:
    """Of the task's map."""
    known = {nic.network for nic in vm.nics} | {nic.mac.lower() for nic in vm.nics}
    for key in placement.network_map:
        if key not in known and key.lower() not in known:
            hint = f"It has {', '.join(sorted(known)) or 'no network card'}."
            yield Finding("error", f"network_map names {key}, which {vm.name} does not have.", hint, "invalid_config")
