# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the disks of an export are read, or those of an import written, where a provider has several ways."""

from __future__ import annotations

from .._providers.base import VendorTask
from .argspec import ArgumentSpec, TaskArguments, invalid
from .values import duration

BY_TASK = "vendor_task"


def method_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "method": {"type": "str", "choices": ["auto", "direct", BY_TASK], "default": "auto"},
            "staging": {"type": "str"},
            "task_role": {"type": "str", "default": "vmimport"},
            "poll_interval": {"type": "str", "default": "10s"},
            "task_timeout": {"type": "str", "default": "2h"},
            "cleanup_staging": {"type": "bool", "default": True},
        }
    )


def vendor_task(arguments: TaskArguments, *, needs_role: bool) -> VendorTask | None:
    """None where another method is asked for."""
    if arguments["method"] != BY_TASK:
        if arguments["staging"]:
            hint = f"Leave staging out, or set method: {BY_TASK}."
            raise invalid(f"staging means nothing without method: {BY_TASK}.", hint)
        return None
    if not arguments["staging"]:
        hint = "Write for example s3://staging-bucket/vms."
        raise invalid("method: vendor_task needs staging, where the images lie that AWS writes or reads.", hint)
    if needs_role and not arguments["task_role"]:
        raise invalid("task_role is empty.", "Leave it out, or name the role of VM Import/Export.")
    return VendorTask(
        staging=arguments["staging"],
        poll_interval=duration("poll_interval", arguments["poll_interval"]),
        timeout=duration("task_timeout", arguments["task_timeout"]),
        cleanup=arguments["cleanup_staging"],
        role=arguments["task_role"],
    )
