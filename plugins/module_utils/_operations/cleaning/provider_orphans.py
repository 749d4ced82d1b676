# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dead runs of ours left on a provider, as far as this store can tell whose it is.

A change token belongs to a chain, and the same VM may have chains in other stores, which know it alone. So a token goes
only where this store knows its chain, or the attempt that made it. Tokens are listed before the store is read: an
attempt writes its intent before it makes a token, so each token's attempt is seen, alive or committed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Callable, Iterable, Iterator, Sequence

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.naming import attempt_of
from ..._providers.base import Provider
from ..._providers.spec import VmSpec
from .orphans import Orphan

TOKEN = re.compile(r"vmferry-([0-9a-f]{8})-([0-9a-f]{8})")  # the chain, the attempt


@dataclass(frozen=True)
class StoreView:
    """What a store says, read after the tokens. Attempts are the last 8 digits of an export's id, and of a token."""

    entries: Sequence[CatalogEntry]
    kept_attempts: frozenset[str]  # under way, or of an export whose manifest cannot be read
    dead_attempts: frozenset[str]  # and of exports that were deleted just now
    gone_chains: frozenset[str]


def provider_orphans(
    provider: Provider, vms: Sequence[str], view: Callable[[], StoreView], check_mode: bool
) -> Iterator[Orphan]:
    """`vms`: names or ids; empty: all. Check mode sees tokens only: what else there is is told as it is undone."""
    there, gone = provider.vms(), provider.gone_vms()
    machines = [vm for vm in [*there, *gone] if not vms or {vm.name, vm.id} & set(vms)]
    tokens = [(vm, list(provider.tokens(vm))) for vm in machines]
    seen = view()
    for vm, its_tokens in tokens:
        if not check_mode:
            yield from _undone(provider, vm, seen)
        for token in unwanted(its_tokens, seen, vm in gone):
            reason = f"No increment will ask what changed since {token}{', as the VM is gone' if vm in gone else ''}."
            yield Orphan("token", vm.name, reason, partial(provider.forget, vm, [token]))


def unwanted(tokens: Iterable[str], store: StoreView, gone: bool = False) -> list[str]:
    """Of a VM's tokens those that an export in this store was made with, and that no increment will stand on: none will
    where the VM is `gone`."""
    own = store.entries
    parents = {
        (entry.manifest.chain_id, entry.manifest.parent)
        for entry in own
        if not entry.manifest.snapshot  # which was taken without the token, so that its parent's is still asked for
    }
    newest = {
        entry.manifest.change_token
        for entry in own
        if (entry.manifest.chain_id, entry.manifest.export_id) not in parents
    }
    chains = {entry.manifest.chain_id for entry in own} | store.gone_chains
    # A full export that was to be an increment has a token that is named after the chain it left.
    attempts = {attempt_of(entry.manifest.export_id) for entry in own} | store.dead_attempts
    found = []
    for token in tokens:
        match = TOKEN.fullmatch(token)
        if match is None or (token in newest and not gone) or match[2] in store.kept_attempts:
            continue
        if match[1] in chains or match[2] in attempts:
            found.append(token)
    return found


def _undone(provider: Provider, vm: VmSpec, store: StoreView) -> Iterator[Orphan]:
    committed = [attempt_of(entry.manifest.export_id) for entry in store.entries]
    try:
        undone = provider.clean_up(vm, held_by=committed, dead=store.dead_attempts)
    except VmferryError as error:
        if error.kind != "busy":
            raise
        return
    for one in undone:
        yield Orphan("provider", vm.name, one.sentence, lambda: None)
