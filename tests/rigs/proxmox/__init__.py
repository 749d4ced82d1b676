# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxmox VE on this machine, with real disks and real machines: `with ProxmoxServer() as pve: ...`. Needs root."""

from __future__ import annotations

from rigs.proxmox.server import Leftovers, ProxmoxServer

__all__ = ["Leftovers", "ProxmoxServer"]
