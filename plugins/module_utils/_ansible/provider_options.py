# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which provider a task means, and how to reach it."""

from __future__ import annotations

from typing import Collection

from ansible.module_utils.common.parameters import env_fallback

from .._operations.jobs.requests import ProviderSpec
from .argspec import ArgumentSpec, TaskArguments, invalid, without_unset

PROVIDERS = ("libvirt",)


def provider_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "provider": {"type": "str", "choices": list(PROVIDERS)},
            "libvirt": {
                "type": "dict",
                "apply_defaults": True,  # or the environment is not asked when the whole dict is left out
                "options": {
                    "uri": {
                        "type": "str",
                        "default": "qemu:///system",
                        "fallback": (env_fallback, ["LIBVIRT_DEFAULT_URI"]),
                    },
                    "scratch_dir": {"type": "path"},
                },
            },
        }
    )


def provider_spec(arguments: TaskArguments) -> ProviderSpec:
    described = [name for name in PROVIDERS if arguments.given(name)]
    name = chosen_provider(arguments["provider"], described)
    return ProviderSpec(name, without_unset(arguments[name]))


def optional_provider(arguments: TaskArguments) -> ProviderSpec | None:
    return provider_spec(arguments) if arguments["provider"] or any(map(arguments.given, PROVIDERS)) else None


def chosen_provider(named: str | None, described: Collection[str]) -> str:
    """`described` are the providers that the task has settings for. Exactly one of them needs no naming."""
    if named:
        return named
    if len(described) == 1:
        return next(iter(described))
    if described:
        raise invalid(
            f"The task has connection settings for {' and '.join(sorted(described))} and does not say which it means.",
            "Set provider to the one that has the VM.",
        )
    raise invalid(
        "The task names no provider and has connection settings for none.",
        f"Set provider to one of: {', '.join(PROVIDERS)}.",
    )
