# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for what AWS does after it has answered."""

from __future__ import annotations

import time
from typing import Callable, Optional, TypeVar

from ..._errors import VmferryError
from ..._transfer.flow import Flow

Found = TypeVar("Found")
LOOK_FIRST, LOOK_LAST = 0.5, 10.0  # seconds between two looks: the first, and at most
_SLOWER = 1.5
KNOWN_WITHIN = 60.0  # seconds until all of AWS knows what it has just made: what is not found then is gone


def wait_for(flow: Flow, look: Callable[[], Optional[Found]], limit: float, what: str) -> Found:
    """What `look` returns once that is something. Raises `timeout` after so many seconds.

    What is not found is looked for again, for a while: AWS may not know everywhere yet what it has just made.
    """
    began = time.monotonic()
    deadline, known_by = began + limit, began + min(limit, KNOWN_WITHIN)
    pause = LOOK_FIRST
    while True:
        missing: Optional[VmferryError] = None
        try:
            found = look()
        except VmferryError as error:
            if error.kind != "not_found":
                raise
            found, missing = None, error
        if found is not None:
            return found
        soon = time.monotonic() + pause
        if missing is not None and soon > known_by:
            raise missing
        if soon > deadline:
            hint = "Look at its state in the console of AWS, and try again."
            raise VmferryError("timeout", f"Waiting for {what} took longer than {limit:.0f} s.", hint)
        flow.sleep(pause)
        pause = min(LOOK_LAST, pause * _SLOWER)
