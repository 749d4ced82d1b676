# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How bytes move: the same for every module that moves some."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.common.parameters import env_fallback

from .._operations.jobs.requests import TransferOptions
from .._transfer.priority import WEIGHTS
from .._transfer.record import WATCHER
from .argspec import ArgumentSpec, TaskArguments, invalid
from .values import bandwidth, duration, duration_or_zero, job_id, optional_duration, progress_interval, size


def state_dir_arguments() -> ArgumentSpec:
    return ArgumentSpec({"state_dir": {"type": "path", "fallback": (env_fallback, ["VMFERRY_STATE_DIR"])}})


def transfer_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "parallel": {"type": "int"},
            "bandwidth_limit": {
                "type": "str",
                "default": "0",
                "fallback": (env_fallback, ["VMFERRY_BANDWIDTH_LIMIT"]),
            },
            "bandwidth_burst": {"type": "str"},
            "priority": {"type": "str", "choices": list(WEIGHTS), "default": "normal"},
            "max_retries": {"type": "int", "default": 3},
            "idle_timeout": {"type": "str", "default": "5m"},
            "max_duration": {"type": "str"},
            "job_id": {"type": "str"},
            "max_jobs": {"type": "int"},
            "controller_timeout": {"type": "str"},
            **_watching_arguments(),
        }
    ).merge(state_dir_arguments())


def _watching_arguments() -> dict[str, dict[str, Any]]:
    """For the action plugin, which has acted on them before the module starts, unless it stepped aside."""
    return {
        "progress": {"type": "str", "choices": ["lines", "none"], "default": "lines"},
        "progress_interval": {"type": "str", "default": "5s"},
        "credentials_from": {"type": "str", "choices": ["auto", "controller", "target"], "default": "auto"},
    }


def transfer_options(arguments: TaskArguments) -> TransferOptions:
    parallel, max_retries = arguments["parallel"], arguments["max_retries"]
    if parallel is not None and parallel < 1:
        raise invalid(f"parallel is {parallel}; at least 1 disk reader is needed.", "Leave it out for one per core.")
    if max_retries < 0:
        raise invalid(f"max_retries is {max_retries}; it counts from 0.", "Use 0 to fail on the first error.")
    max_jobs = arguments["max_jobs"]
    if max_jobs is not None and max_jobs < 1:
        raise invalid(f"max_jobs is {max_jobs}; at least 1 transfer must run.", "Leave it out for the provider's own.")
    progress_interval(arguments["progress_interval"])
    burst = arguments["bandwidth_burst"]
    return TransferOptions(
        parallel=parallel,
        bandwidth_limit=bandwidth("bandwidth_limit", arguments["bandwidth_limit"]),
        bandwidth_burst=None if burst is None else size("bandwidth_burst", burst),
        priority=arguments["priority"],
        max_retries=max_retries,
        idle_timeout=duration("idle_timeout", arguments["idle_timeout"]),
        max_duration=optional_duration("max_duration", arguments["max_duration"]),
        state_dir=arguments.text("state_dir"),
        job_id=job_id("job_id", arguments["job_id"]),
        max_jobs=max_jobs,
        controller_timeout=duration_or_zero("controller_timeout", arguments["controller_timeout"] or "0"),
        watcher=os.environ.get(WATCHER, ""),
    )
