# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others tell a running job, through files in its folder: to stop, and that its controller still lives.

Files, because neither a signal nor a closed connection reaches a job reliably: whoever started it may be on another
host, or may have been killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Callable, Optional

CANCEL = "cancel"  # from somebody who does not want the job's work; holds the reason, one line
ABANDON = "abandon"  # from a controller that ends before the job: it stops, and may leave its work to the next one
LEASE = "lease"  # touched by the controller again and again
_LONGEST_REASON = 200


class Orders:
    """`controller_timeout` in seconds; 0: the job outlives its controller."""

    def __init__(
        self, folder: Path, controller_timeout: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._timeout, self._clock = folder, controller_timeout, clock
        self._seen = self._lease_time()
        self._heard_at = clock()
        self._seen_empty: set[str] = set()

    def reason_to_stop(self) -> str:
        """Empty while there is none."""
        return self._said_in(CANCEL) or self._said_in(ABANDON) or self._abandoned()

    @property
    def was_asked(self) -> bool:
        """By somebody who wants nothing of it: neither by silence, nor by a controller that had to end."""
        return bool(self._said_in(CANCEL))

    def _said_in(self, name: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                text = file.read(_LONGEST_REASON).decode("utf-8", "replace")
        except OSError:
            return ""
        if not text and name not in self._seen_empty:
            self._seen_empty.add(name)  # between its making and its writing: the next look shows who asked
            return ""
        printable = "".join(letter if letter.isprintable() else " " for letter in text).strip()
        return f"{printable or 'somebody'} asked for it"

    def _abandoned(self) -> str:
        """By this host's own steady clock: the lease's time is only looked at for having changed."""
        if not self._timeout:
            return ""
        now, seen = self._clock(), self._lease_time()
        if seen != self._seen:
            self._seen, self._heard_at = seen, now
        if now - self._heard_at <= self._timeout:
            return ""
        return f"its controller has not been heard of for {self._timeout:g} s, which is controller_timeout"

    def _lease_time(self) -> Optional[int]:
        try:
            return (self._folder / LEASE).stat().st_mtime_ns
        except OSError:
            return None


def ask_to_stop(folder: Path, who: str) -> None:
    """Whoever asks first is named. Raises OSError."""
    try:
        descriptor = os.open(folder / CANCEL, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(who + "\n")
