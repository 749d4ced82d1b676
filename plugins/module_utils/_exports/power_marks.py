# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That an export has a guest shut down, and owes it its start: written before the guest is asked, gone once it runs.

The marks lie at the root of the store, so that one listing finds them whatever became of the export, which may be
committed or removed long before its guest is started again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Mapping

from .fields import Fields
from .naming import attempt_of, is_export_id

POWER = ".vmferry-power-"
_LIMIT = 65536  # bytes; what we write has under 1000


@dataclass(frozen=True)
class PowerMark:
    """Times are seconds since the epoch."""

    provider: str
    site: str  # of the provider: elsewhere another VM may have the same id, as a copy of it has
    origin: str  # the export that the VM was made of, if any: one that was made anew since is another
    vm_id: str
    vm_name: str
    job_id: str
    folder: str  # of the attempt, a key of the store
    asked_at: float
    owner: Mapping[str, Any] = field(default_factory=dict)  # as in an intent
    was_off: bool = False  # whether the guest was seen to be off; until then it was only asked
    given_up: bool = False  # by its run, which lives on or ended in order, and could not start it

    @property
    def key(self) -> str:
        return f"{marks_of(self.provider, self.vm_id)}{attempt_of(self.folder)}"

    def to_json(self) -> bytes:
        return json.dumps({"schema": 1, **asdict(self)}, indent=1).encode() + b"\n"


def marks_of(provider: str, vm_id: str) -> str:
    """What the keys of a VM's marks begin with. An id may have any letters, so that it is no part of a key itself."""
    return f"{POWER}{sha256(f'{provider} {vm_id}'.encode()).hexdigest()[:16]}-"


def read_power_mark(text: bytes, where: str) -> PowerMark:
    """Raises `invalid_config`."""
    own = Fields.parse(text[:_LIMIT], where)
    folder = own.text("folder")
    if not is_export_id(folder.rpartition("/")[2]):
        raise own.lie("names a folder that is no export's")
    return PowerMark(
        provider=own.text("provider"),
        site=own.text("site"),
        origin=own.text("origin"),
        vm_id=own.text("vm_id"),
        vm_name=own.text("vm_name"),
        job_id=own.text("job_id"),
        folder=folder,
        asked_at=own.decimal("asked_at"),
        owner=own.mapping("owner"),
        was_off=own.truth("was_off"),
        given_up=own.truth("given_up"),
    )
