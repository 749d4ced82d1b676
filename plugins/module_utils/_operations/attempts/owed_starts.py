# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that exports had shut down and did not start again, since their runs died: found in the store, and started."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Iterator

from ..._errors import VmferryError
from ..._exports.intent import INTENT, LEASE
from ..._exports.power_marks import POWER, PowerMark, marks_of, read_power_mark
from ..._providers.base import Provider
from ..._providers.spec import VmSpec
from ..._stores.base import Store
from ..._transfer.owner import is_owner_alive
from .litter import time_of_store

OFF = ("powered_off", "crashed")
# A guest that was asked, and that its run saw still running at its end, may go off late. One that is off a day later
# others shut down.
LATE = 3600.0  # seconds


@dataclass(frozen=True)
class OwedStart:
    """Of a run that is over."""

    mark: PowerMark

    @property
    def may_go_off(self) -> bool:
        """It was asked a short while ago, and nobody saw it off."""
        return not self.mark.was_off and time.time() - self.mark.asked_at < LATE

    @property
    def is_ours(self) -> bool:
        """Whether it was shut down by the run, if it is off: one that died while it waited did not see it go off."""
        return self.mark.was_off or not self.mark.given_up or self.may_go_off

    def is_at(self, provider: Provider) -> bool:
        """Elsewhere a copy of the VM may have its id."""
        return (self.mark.provider, self.mark.site) == (provider.name, provider.site)

    @property
    def reason(self) -> str:
        ended = "could not start it again" if self.mark.given_up else "died"
        return f"Job {self.mark.job_id} had shut down {self.mark.vm_name} for its export, and {ended}."

    @property
    def elsewhere(self) -> str:
        return f"{self.reason} That is started with the connection to {self.mark.site} alone."


def origin_of(vm: VmSpec) -> str:
    """The export that a VM was made of; ''."""
    made_of = vm.details.get("imported_from") or {}
    return str(made_of.get("export") or "")


def owed_starts(store: Store, provider: str = "", vm_id: str = "") -> Iterator[OwedStart]:
    """Of one VM of a provider, or of all. What cannot be read is no mark of ours, and left alone."""
    for info in list(store.list(marks_of(provider, vm_id) if vm_id else POWER)):
        try:
            mark = read_power_mark(store.get(info.key), store.object_url(info.key))
        except VmferryError as error:
            if error.kind not in ("not_found", "invalid_config"):
                raise
            continue
        if mark.key == info.key and _is_over(store, mark, info.modified):
            yield OwedStart(mark)


def settle(store: Store, provider: Provider, owed: OwedStart) -> str:
    """What was done, as a sentence; '' where the VM runs again, or was never off. Raises where it cannot be started,
    and `not_found`. The mark has to be of this provider's site."""
    mark = owed.mark
    vm, said = provider.describe(mark.vm_id), ""
    if origin_of(vm) != mark.origin:
        said = f"{vm.name} was made anew since, and is left as it is. {owed.reason}"
    elif vm.power_state in OFF and owed.is_ours:
        provider.start(vm)
        said = f"Started {vm.name}. {owed.reason}"
    elif owed.may_go_off:
        return ""  # and the mark stays, for whoever finds it off
    store.delete(mark.key)
    return said


def _is_over(store: Store, mark: PowerMark, modified: float) -> bool:
    """By its process, where this host can tell. Else the run lives while its intent is renewed; the mark is written
    anew right before the export commits, from where on there is no intent."""
    if mark.given_up:
        return True
    alive = is_owner_alive(mark.owner)
    if alive is not None:
        return not alive
    intent = store.stat(f"{mark.folder}/{INTENT}")
    last = max(modified, intent.modified if intent is not None else 0.0)
    return last + LEASE < min(time.time(), time_of_store(store))
