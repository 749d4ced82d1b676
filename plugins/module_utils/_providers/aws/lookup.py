# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances found by what users call them: an id, or the name that their tag gives them."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Sequence

from ..._errors import VmferryError
from ..spec import VmSpec
from .asking import instances_of, literal
from .describe import specs
from .filters import THERE
from .session import Session
from .tags import NAME, tags_of

SHOWN = 5  # of instances that have the same name
_VOLUME = re.compile(r"vol-([0-9a-f]{8}|[0-9a-f]{17})")
_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")


def described(session: Session, vms: Sequence[str]) -> List[VmSpec]:
    """In the order asked for. Raises `not_found`, and `conflict` where several have the same name."""
    doing = f"Describing {vms[0]}" if len(vms) == 1 else f"Describing {len(vms)} instances"
    wanted = list(dict.fromkeys(vms))
    ids = {one: _id_in(one, session.region) for one in wanted}
    names = [one for one in wanted if not ids[one]]
    found = instances_of(session, doing, "instance-id", [one for one in ids.values() if one])
    found += instances_of(session, doing, f"tag:{NAME}", [literal(name) for name in names])
    there = [instance for instance in found if instance["State"]["Name"] in THERE]
    chosen = {one: _one(session, one, ids[one], there) for one in wanted}
    known = {vm.id: vm for vm in specs(session, doing, list(chosen.values()))}
    return [known[chosen[one]["InstanceId"]] for one in vms]


def _id_in(called: str, region: str) -> str:
    """Of an id, or of the path of an instance, which is its id behind its region; '' of a name."""
    place, slash, last = called.rpartition("/")
    return last if _ID.fullmatch(last) and place == (region if slash else "") else ""


def _one(session: Session, called: str, known_as: str, there: Sequence[Any]) -> Any:
    """An id is nobody else's name, whatever the others are called."""
    fits: Dict[str, Any] = {
        instance["InstanceId"]: instance
        for instance in there
        if (instance["InstanceId"] == known_as if known_as else tags_of(instance).get(NAME) == called)
    }
    if len(fits) > 1:
        more = f" and {len(fits) - SHOWN} more" if len(fits) > SHOWN else ""
        raise VmferryError(
            "conflict",
            f"{len(fits)} instances in {session.region} are called {called}: {', '.join(sorted(fits)[:SHOWN])}{more}.",
            "Name the one that is meant by its id.",
        )
    for instance in fits.values():
        return instance
    if _VOLUME.fullmatch(called):
        raise VmferryError(
            "not_found",
            f"{called} is a volume, and no instance: an export is of a machine, with hardware to restore its disks to.",
            f"Name the instance that it is attached to, and disks: [{called}]. A volume that is attached to none can "
            "be attached to one that is stopped, for as long as it is exported.",
        )
    raise VmferryError(
        "not_found",
        f"There is no instance {called} in {session.region}, or none that these credentials may see.",
        "Check the region and the account; vmferry.migrate.vm_info lists what is there.",
    )
