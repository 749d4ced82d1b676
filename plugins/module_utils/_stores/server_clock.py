# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What time it is for a server: what it keeps, or forgets, it does by its own clock."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


class ServerClock:
    """By the `Date` of its answers (RFC 9110, 6.6.1), as far as there was one; else this host's."""

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds

    def learn(self, date: str) -> None:
        try:
            self._ahead = parsedate_to_datetime(date).timestamp() - time.time()
        except (TypeError, ValueError):
            return

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self._ahead
