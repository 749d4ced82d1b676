# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A vCenter, or an ESXi host, on loopback: `with VSphere() as vsphere: ...`."""

from __future__ import annotations

from rigs.vsphere.found import Call, Leftovers
from rigs.vsphere.server import Disk, VSphere

__all__ = ["Call", "Disk", "Leftovers", "VSphere"]
