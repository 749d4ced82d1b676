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
    """Of this store's exports, on this provider. `vms`: names or ids; empty: all. What runs again is no finding."""
    owed = [one for one in owed_starts(store) if one.mark.provider == provider.name]
    machines = {vm.id: vm for vm in provider.vms()} if owed else {}
    for one in owed:
        vm = machines.get(one.mark.vm_id)
        if vm is None or (vm.power_state not in OFF and one.may_go_off) or (vms and not {vm.name, vm.id} & set(vms)):
            continue
        reason = one.reason if vm.power_state in OFF else f"{one.reason} It runs again."
        yield Orphan("power", vm.name, reason, partial(settle, store, provider, one))
