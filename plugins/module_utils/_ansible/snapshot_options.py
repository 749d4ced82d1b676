# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of which snapshot an export is, if it is of one."""

from __future__ import annotations

from .._operations.jobs.requests import SnapshotOptions
from .argspec import ArgumentSpec, TaskArguments, invalid
from .values import count, duration, label

OF_A_NEW_ONE = ("name", "memory", "keep")


def snapshot_arguments() -> ArgumentSpec:
    return ArgumentSpec(
        {
            "snapshot": {
                "type": "dict",
                "options": {
                    "name": {"type": "str"},
                    "source": {"type": "str"},
                    "memory": {"type": "bool", "default": False},
                    "keep": {"type": "int", "default": 0},
                },
            },
        }
    )


def snapshot_options(arguments: TaskArguments) -> SnapshotOptions | None:
    asked = arguments["snapshot"]
    if asked is None:
        return None
    for name in ("name", "source"):
        if asked[name] == "":  # a template that came to nothing must not turn one kind into the other
            raise invalid(f"snapshot.{name} is empty.", "Leave it out, or give it a name.")
    options = SnapshotOptions(
        name=label("snapshot.name", asked["name"]),
        source=label("snapshot.source", asked["source"]),
        memory=asked["memory"],
        keep=count("snapshot.keep", asked["keep"], 0),
    )
    if options.source and (options.name or options.memory or options.keep):
        said = next(name for name in OF_A_NEW_ONE if getattr(options, name))
        hint = "Leave out snapshot.source to have a new one made."
        raise invalid(f"snapshot.{said} is of a snapshot that is made, and snapshot.source of one that is there.", hint)
    if options.source and arguments["max_age"] is not None:
        hint = "An export of the same snapshot is not made twice as it is."
        raise invalid("max_age does not go with snapshot.source, whose age is what it is.", hint)
    return options


def shutdown_timeout(arguments: TaskArguments) -> float | None:
    """Seconds. Of an export of the VM itself, which is off then."""
    if arguments["shutdown_timeout"] is None:
        return None
    if arguments["consistency"] != "powered_off":
        raise invalid("shutdown_timeout is given, and consistency is not powered_off.", "Set consistency: powered_off.")
    if arguments["snapshot"] is not None:
        hint = "Leave one of them out: a snapshot is made of a VM as it is."
        raise invalid("shutdown_timeout and snapshot do not go together.", hint)
    return duration("shutdown_timeout", arguments["shutdown_timeout"], "Write for example 90s or 5m.")
