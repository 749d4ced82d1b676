# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that dead exports had shut down, as what a cleanup finds."""

from __future__ import annotations

from functools import partial
from typing import Iterator, Sequence

from ..._providers.base import Provider
from ..._stores.base import Store
from ..attempts.owed_starts import OFF, owed_starts, settle
from .orphans import Orphan


def guests_to_start(provider: Provider, store: Store, vms: Sequence[str]) -> Iterator[Orphan]:
    """Of this store's exports, at this provider. `vms`: names or ids; empty: all. What runs again is no finding."""
    owed = [one for one in owed_starts(store) if one.is_at(provider)]
    machines = {vm.id: vm for vm in provider.vms()} if owed else {}
    for one in owed:
        vm, mark = machines.get(one.mark.vm_id), one.mark
        if vms and not {mark.vm_name, mark.vm_id, mark.vm_name if vm is None else vm.name} & set(vms):
            continue
        if vm is None:
            gone = f"{one.reason} It is not there any more."
            yield Orphan("power", mark.vm_name, gone, partial(store.delete, mark.key))
            continue
        if vm.power_state not in OFF and one.may_go_off:
            continue
        reason = one.reason if vm.power_state in OFF else f"{one.reason} It runs again."
        yield Orphan("power", vm.name, reason, partial(settle, store, provider, one))
