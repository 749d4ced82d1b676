# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dead runs left on a VM is undone, and whose work is given up with it is told."""

from __future__ import annotations

from typing import Collection, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.naming import attempt_of
from ..._providers.base import Provider
from ..._providers.spec import VmSpec
from ..jobs.running_job import RunningJob


def clean_up_machine(
    provider: Provider, vm: VmSpec, job: RunningJob, own: Collection[str], dead: Collection[str] = ()
) -> None:
    """`own`: attempts in the store of this job. Of what is given up there `resumed` tells; the rest is whole. `dead`:
    attempts of which that store knows that they are over.

    Raises `busy` for a run that lives.
    """
    for undone in provider.clean_up(vm, dead=dead):
        job.log("warning", undone.sentence)
        if undone.given_up and undone.attempt not in own:
            job.warn(undone.warning)


def clean_up_behind_commits(provider: Provider, vm: VmSpec, job: RunningJob, exports: Sequence[CatalogEntry]) -> None:
    """What runs left that were killed once their export was whole: nobody goes on with it. What stays is a warning."""
    try:
        undone = provider.clean_up(vm, held_by=[attempt_of(entry.manifest.export_id) for entry in exports])
    except (VmferryError, OSError) as error:
        if not isinstance(error, VmferryError) or error.kind != "busy":  # else whoever works on the VM cleans it up
            job.warn(f"What dead runs left on this host could not all be removed: {error}")
        return
    for one in undone:
        job.log("warning", one.sentence)
