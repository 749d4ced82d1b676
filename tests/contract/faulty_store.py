# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store of which each so-manieth call goes wrong, whatever it is and whatever store it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

Trouble = Literal["error", "lost answer", "half", "twice"]
TROUBLES: tuple[Trouble, ...] = ("error", "lost answer", "half", "twice")
_ONCE = {"leave", "close", "token", "any_offset"}
_OPENS = {"open_parts", "resume_parts"}  # what it opens twice, nobody would close


class Troubles:
    def __init__(self, trouble: Trouble, every: int) -> None:
        self._trouble, self._every = trouble, every
        self._calls, self._lock = 0, threading.Lock()
        self.hit: list[str] = []

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*what: Any, **how: Any) -> Any:
            if not self._is_due(name):
                return function(*what, **how)
            return self._spoilt(name, function, what, how)

        return call

    def _is_due(self, name: str) -> bool:
        if name in _ONCE or (name in _OPENS and self._trouble in ("lost answer", "twice")):
            return False
        with self._lock:
            self._calls += 1
            due = self._calls % self._every == 0
            self.hit += [name] if due else []
        return due

    def _spoilt(self, name: str, function: Callable[..., Any], what: tuple[Any, ...], how: dict[str, Any]) -> Any:
        if self._trouble == "error":
            raise _broke(name)
        if self._trouble == "half":
            if name in ("write_part", "write_at", "read_into"):
                *first, data = what
                if name != "write_part":
                    function(*first, data[: len(data) // 2])
            raise _broke(name)
        if self._trouble == "twice":
            function(*what, **how)
        answer = function(*what, **how)
        if self._trouble == "lost answer":
            raise _broke(name)
        return answer


class FaultyStore:
    """Not a `Store` by its type: whatever a store has, this has."""

    def __init__(self, store: Any, troubles: Troubles) -> None:
        self._store, self._troubles = store, troubles

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found
        if name in ("list", "list_folders"):
            return lambda *what: self._listed(found, name, what)
        called = self._troubles.around(name, found)
        if name in _OPENS:
            return lambda *what, **how: _wrapped(called(*what, **how), self._troubles)
        return called

    def _listed(self, function: Callable[..., Iterator[Any]], name: str, what: tuple[Any, ...]) -> Iterator[Any]:
        for item in function(*what):
            yield self._troubles.around(name, lambda item=item: item)()


def faulty(store: Store, trouble: Trouble, every: int = 3) -> tuple[Store, Troubles]:
    troubles = Troubles(trouble, every)
    return cast(Store, FaultyStore(store, troubles)), troubles


def _wrapped(writer: Any, troubles: Troubles) -> Any:
    return None if writer is None else FaultyStore(writer, troubles)


def _broke(name: str) -> VmferryError:
    return VmferryError("network", f"The connection broke in {name}.")
