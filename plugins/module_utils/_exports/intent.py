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
    progress: Mapping[str, Any] = field(default_factory=dict)  # as in the job's record, at the last beat

    def renewed(self, now: float, progress: Mapping[str, Any]) -> Intent:
        return replace(self, lease_until=now + LEASE, progress=progress)

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
        progress=own.mapping("progress"),
    )
