# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The intent: written before anything else of an export, so that whatever a killed run leaves can be found and undone.

An intent without a manifest is an export under way, or dead. It is under way while its lease holds, or while the
process that wrote it can be seen to live.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Mapping

from .._transfer.owner import SILENCE
from .fields import Fields
from .naming import is_export_id

INTENT = "intent.json"
JOURNAL = "journal/"  # a folder beside it, of what the next run needs to go on if this one is killed
CANCEL = "cancel"  # beside it, from whoever wants the job to stop; holds the reason
LEASE = SILENCE  # seconds; renewed every BEAT
BEAT = 15.0


@dataclass(frozen=True)
class Intent:
    export_id: str
    job_id: str
    vm_id: str
    vm_name: str
    started_at: float  # seconds since the epoch, as all times here
    lease_until: float
    owner: Mapping[str, Any]  # host, boot id, pid namespace, pid, start time of the process
    parent: str = ""
    token: str = ""  # by which the provider may know its point in time, until it is told to forget it
    window: float = 0.0  # seconds for which a run that died leaves everything to the next one
    held_until: float = 0.0  # should it be dead by now
    written_at: float = 0.0  # by the clock that the other times are of; 0.0: not told
    progress: Mapping[str, Any] = field(default_factory=dict)  # as in the job's record, at the last beat

    def renewed(self, now: float, progress: Mapping[str, Any]) -> Intent:
        held = self._held_from(now)
        return replace(self, written_at=now, lease_until=now + LEASE, held_until=held, progress=progress)

    def left(self, now: float) -> Intent:
        """By a run that ended: nobody has to wait for the lease."""
        return replace(self, owner={}, written_at=now, lease_until=0.0, held_until=self._held_from(now))

    def _held_from(self, now: float) -> float:
        return now + self.window if self.window else 0.0

    def to_json(self) -> bytes:
        return json.dumps({"schema": 1, **asdict(self)}, indent=1).encode() + b"\n"


def read_intent(text: bytes, where: str) -> Intent:
    own = Fields.parse(text, where)
    export_id = own.text("export_id")
    if not is_export_id(export_id):
        raise own.lie("has an export_id of another shape")
    owner = own.mapping("owner")
    return Intent(
        export_id=export_id,
        job_id=own.text("job_id"),
        vm_id=own.text("vm_id"),
        vm_name=own.text("vm_name"),
        started_at=own.decimal("started_at"),
        lease_until=own.decimal("lease_until"),
        owner=owner,
        parent=own.text("parent", ""),
        token=own.text("token", ""),
        window=own.decimal("window", 0.0),
        held_until=own.decimal("held_until", 0.0),
        written_at=own.decimal("written_at", 0.0),
        progress=own.mapping("progress"),
    )
