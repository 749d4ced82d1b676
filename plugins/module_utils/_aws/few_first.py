# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the few operations that are called the most, and one of all as soon as another is called."""

from __future__ import annotations

from threading import Lock
from typing import Any, Callable, Optional


class FewFirst:
    """Thread-safe, as clients are."""

    def __init__(self, few: Any, make_whole: Callable[[], Any]) -> None:
        self._few, self._make_whole = few, make_whole
        self._lock = Lock()
        self._whole: Optional[Any] = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._that_has(name), name)

    def can_paginate(self, operation_name: str) -> bool:
        return bool(self._that_has(operation_name).can_paginate(operation_name))

    def get_paginator(self, operation_name: str) -> Any:
        return self._that_has(operation_name).get_paginator(operation_name)

    def _that_has(self, name: str) -> Any:
        if self._whole is None and hasattr(self._few, name):
            return self._few
        with self._lock:
            if self._whole is None:
                self._whole = self._make_whole()
        return self._whole

    def close(self) -> None:
        for client in (self._few, self._whole):
            if client is not None:
                client.close()
