# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves in a store when it is killed between two steps that belong together. It harms nobody but the eye.

Only what is older than a lease by the store's own clock, so that nobody can be at it, on any host.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Callable, Sequence

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._exports.folding import FOLDING
from ..._exports.intent import CANCEL, INTENT, JOURNAL, LEASE
from ..._stores.base import Store

PROBE = ".vmferry-probe-"


def probe_key() -> str:
    return f"{PROBE}{secrets.token_hex(4)}"


def time_of_store(store: Store) -> float:
    """By its own clock, which is that of everything it says was modified."""
    key = probe_key()
    try:
        return store.put(key, b"vmferry").modified
    finally:
        store.delete(key)


def remove_litter(store: Store, committed: Sequence[str], now: float, log: Callable[[str, str], object]) -> None:
    """Old probes, and what lies beside a manifest and is no part of its export. `committed`: folders of one VM's.

    `now` by the store's clock. What cannot be removed is told to `log` and stays.
    """
    litter = _Litter(store, frozenset(committed), now - LEASE)
    steps: list[Callable[[], object]] = [litter.probes, litter.unfinished_probes]
    for above in sorted({folder.split("/")[0] for folder in committed}):
        steps += [partial(litter.intents, above), partial(litter.unfinished, above)]
    for step in steps:
        try:
            step()
        except VmferryError as error:
            log("warning", f"What killed runs left in {store.url} may still be there: {error}")


class _Litter:
    def __init__(self, store: Store, committed: frozenset[str], limit: float) -> None:
        self._store, self._committed, self._limit = store, committed, limit

    def probes(self) -> None:
        self._remove(PROBE, self._old)

    def unfinished_probes(self) -> None:
        self._store.abort_uploads(PROBE, self._old)

    def intents(self, above: str) -> None:
        marks = {f"{folder}/{name}" for folder in self._committed for name in (CANCEL, INTENT)}
        journals = tuple(f"{folder}/{JOURNAL}" for folder in self._committed)

        def is_mark(info: ObjectInfo) -> bool:
            return (info.key in marks or info.key.startswith(journals)) and self._old(info)

        self._remove(f"{above}/", is_mark)

    def unfinished(self, above: str) -> None:
        """But for what a cleanup sends to merge exports: if it was killed, the next one finishes that."""
        folding = {_folder(info.key) for info in self._store.list(f"{above}/") if info.key.endswith(f"/{FOLDING}")}

        def is_litter(info: ObjectInfo) -> bool:
            return _folder(info.key) in self._committed - folding and self._old(info)

        self._store.abort_uploads(f"{above}/", is_litter)

    def _remove(self, prefix: str, chosen: Callable[[ObjectInfo], bool]) -> None:
        for info in list(self._store.list(prefix)):
            if chosen(info):
                self._store.delete(info.key)

    def _old(self, info: ObjectInfo) -> bool:
        return info.modified < self._limit


def _folder(key: str) -> str:
    return "/".join(key.split("/")[:2])
