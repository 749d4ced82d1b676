# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which exports go, and which stay whatever happens."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.parameters import env_fallback
from ansible.module_utils.errors import AnsibleFallbackNotFound

from .._exports.naming import is_export_id
from .._exports.retention_rules import Limits, Protections
from .argspec import ArgumentSpec, TaskArguments, invalid
from .values import count, duration, optional_duration, size

LIMITS = ("export", "max_age", "max_count", "max_total_size", "min_free")
COUNTS = ("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def retention_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "export": {"type": "list", "elements": "str"},
            "max_age": {"type": "str", "fallback": (filled_env, ["VMFERRY_CLEANUP_MAX_AGE"])},
            "max_count": {"type": "int", "fallback": (filled_env, ["VMFERRY_CLEANUP_MAX_COUNT"])},
            "max_total_size": {"type": "str"},
            "min_free": {"type": "str"},
            **{name: {"type": "int", "default": 1 if name == "keep_last" else 0} for name in COUNTS},
            "preserve": {"type": "list", "elements": "str", "default": []},
            "min_retention": {"type": "str"},
        }
    )


def filled_env(*variables: str) -> Any:
    """An empty variable, as a template leaves one that had nothing for it, is no number."""
    found = env_fallback(*variables)
    if not found:
        raise AnsibleFallbackNotFound
    return found


def limits(arguments: TaskArguments) -> Limits:
    def read(option: str, parse: Any) -> Any:
        return None if arguments[option] is None else parse(option, arguments[option])

    for export in arguments["export"] or ():
        if not is_export_id(export):
            raise invalid(f"export names {export!r}, which is no export's id.", "See export_info for the ids.")
    return Limits(
        exports=read("export", lambda option, ids: tuple(ids)),
        max_age=read("max_age", duration),
        max_count=read("max_count", lambda option, number: count(option, number, 1)),
        max_total_size=read("max_total_size", size),
        min_free=read("min_free", size),
    )


def protections(arguments: TaskArguments) -> Protections:
    if not all(arguments["preserve"]):
        raise invalid("preserve has an empty pattern.", "Write globs like 'before-*', or leave it out.")
    return Protections(
        **{name: count(name, arguments[name], 0) for name in COUNTS},
        preserve=tuple(arguments["preserve"]),
        min_retention=optional_duration("min_retention", arguments["min_retention"]),
    )
