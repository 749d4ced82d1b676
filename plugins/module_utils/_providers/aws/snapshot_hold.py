# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Until when the snapshots of an export are held once its process died: a tag says so, and is renewed as it lives."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import Callable, Mapping, Optional

from ..._errors import VmferryError
from .snapshot_owner import HELD

SHORTEST = 60.0  # seconds between two renewals

Tag = Callable[[Mapping[str, str]], object]


class SnapshotHold:
    def __init__(self, tag: Tag) -> None:
        self._tag = tag
        self._seconds = 0.0
        self._ended = Event()
        self._keeper: Optional[Thread] = None

    def begin(self, seconds: float) -> None:
        """From now on, for so long after this process died. Raises what `tag` does."""
        self.end()
        self._seconds = seconds
        if seconds <= 0:
            return
        self._renew()
        self._ended = ended = Event()
        self._keeper = Thread(target=self._keep, args=(ended,), name="vmferry-aws-hold", daemon=True)
        self._keeper.start()

    def end(self) -> None:
        """Nothing is renewed any more."""
        self._ended.set()
        self._keeper = None

    def until(self) -> Mapping[str, str]:
        """The tag of one that ends now."""
        return {HELD: str(int(time.time() + self._seconds))}

    @property
    def _interval(self) -> float:
        return max(SHORTEST, self._seconds / 3)

    def _renew(self) -> None:
        self._tag({HELD: str(int(time.time() + self._seconds + self._interval))})

    def _keep(self, ended: Event) -> None:
        while not ended.wait(self._interval):
            try:
                self._renew()
            except VmferryError:
                continue  # there is as much time left as one more renewal takes
