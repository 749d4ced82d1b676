# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an attempt lives, by its intent: alive, or dead and held for a run that may go on with it, or over.

Whether it was committed meanwhile, only its manifest tells, and of that whoever takes the attempt over asks last.
"""

from __future__ import annotations

import time
from dataclasses import replace

from ..._errors import WAIT_OR_FOLLOW, VmferryError
from ..._exports.intent import Intent
from ..._stores.base import Store
from ..._transfer.owner import is_owner_alive


def in_use(store: Store, intent: Intent) -> VmferryError:
    host, pid = intent.owner.get("hostname", "another host"), intent.owner.get("pid", "unknown")
    return VmferryError(
        "busy",
        f"{intent.vm_name} is being exported to {store.url} by job {intent.job_id} "
        f"(process {pid} on {host}, for {int(time.time() - intent.started_at)} s).",
        f"{WAIT_OR_FOLLOW} A job that died is cleaned up by the next run once its lease is over.",
    )


def is_over(intent: Intent, now: float | None = None) -> bool:
    """Dead, and no longer held for a run that may go on with it. `now`: by the clock that counts; None: this host's."""
    return is_dead(intent, now) and intent.held_until < (time.time() if now is None else now)


def is_dead(intent: Intent, now: float | None = None) -> bool:
    """By its process, where this host can tell; else the lease decides."""
    alive = is_owner_alive(intent.owner)
    return intent.lease_until < (time.time() if now is None else now) if alive is None else not alive


def by_clock_of_store(intent: Intent, modified: float) -> Intent:
    """As if its host had looked at the clock by which it was `modified`. Its own may have been wrong."""
    if not intent.written_at:
        return intent
    ahead = intent.written_at - modified
    lease, held = (until and until - ahead for until in (intent.lease_until, intent.held_until))
    return replace(intent, written_at=modified, lease_until=lease, held_until=held)
