# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which name a new snapshot gets, which of ours are too many, and in which order several are removed."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Mapping, Sequence

from .._errors import VmferryError
from .snapshots import Snapshot

DEFAULT_NAME = "vmferry-{date}T{time}Z"
FIELD = re.compile(r"\{([^{}]*)\}")
UNUSABLE = re.compile(r"^[.-]|[/\x00-\x1f\x7f]")
LONGEST_NAME = 128  # characters; it becomes the name of a file


def named(template: str, vm: str, job: str, now: datetime) -> str:
    """The name that a template stands for, of a snapshot that anybody may have made: it follows no rules of ours."""
    fields = _fields(vm, job, now)
    return FIELD.sub(lambda match: fields.get(match[1], match[0]), template)


def filled(template: str, vm: str, job: str, now: datetime) -> str:
    """The same for a new one. Raises `invalid_config`."""
    fields = _fields(vm, job, now)
    unknown = [field for field in FIELD.findall(template) if field not in fields]
    if unknown:
        known = ", ".join(f"{{{field}}}" for field in fields)
        raise VmferryError("invalid_config", f"name has {{{unknown[0]}}}, which is not known.", f"Known are {known}.")
    name = named(template, vm, job, now)
    if not name or len(name) > LONGEST_NAME or UNUSABLE.search(name):
        hint = f"It has up to {LONGEST_NAME} characters, no '/' among them, and begins with neither '.' nor '-'."
        raise VmferryError("invalid_config", f"{name!r} cannot be the name of a snapshot.", hint)
    return name


def _fields(vm: str, job: str, now: datetime) -> Mapping[str, str]:
    return {"vm": vm, "job": job, "date": now.strftime("%Y%m%d"), "time": now.strftime("%H%M%S")}


def surplus(snapshots: Sequence[Snapshot], keep: int) -> list[Snapshot]:
    """The oldest of ours, all but so many; those whose removal had begun are kept by no number."""
    ours = [snapshot for snapshot in snapshots if snapshot.ours]
    whole = [snapshot for snapshot in ours if snapshot.whole]
    doomed = whole[: max(0, len(whole) - max(0, keep))]
    return [snapshot for snapshot in ours if snapshot in doomed or not snapshot.whole]


def in_removal_order(chosen: Sequence[Snapshot]) -> list[Snapshot]:
    """The newest first, as one may lie inside the other. Overlays alone: the oldest first, so that no data is copied
    into an image that is merged next.
    """
    if all(snapshot.method == "external" for snapshot in chosen):
        return list(chosen)
    return list(reversed(chosen))
