# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AWS's own description of an instance, kept beside its disks. User data, which may hold secrets, is not asked for."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping

from ..._errors import VmferryError
from ..spec import VmSpec
from .asking import instances_of
from .session import Session

FILE = "instance.json"
# What differs from day to day, while the machine stays what it is.
_PASSING = (
    "State", "StateReason", "StateTransitionReason", "LaunchTime", "UsageOperationUpdateTime", "PublicIpAddress",
    "PublicDnsName", "ClientToken",
)  # fmt: skip


def native_files(session: Session, vm: VmSpec) -> Dict[str, bytes]:
    """By file name. Raises `not_found` where it is gone meanwhile."""
    told = instances_of(session, f"Describing {vm.name}", "instance-id", [vm.id])
    if not told:
        text = f"{vm.name} ({vm.id}) is gone: AWS does not tell of it any more."
        raise VmferryError("not_found", text, "Look with vm_info whether it was terminated.")
    return {FILE: json.dumps(_lasting(told[0]), indent=1, sort_keys=True, default=str).encode() + b"\n"}


def _lasting(instance: Mapping[str, Any]) -> Dict[str, Any]:
    kept = {name: value for name, value in instance.items() if name not in _PASSING}
    kept["NetworkInterfaces"] = [
        {name: value for name, value in nic.items() if name not in ("Association", "Status")}
        for nic in instance.get("NetworkInterfaces") or ()
    ]
    return kept
