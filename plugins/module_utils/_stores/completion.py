# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The request that makes an object of its parts: once its answer is lost, only the object tells what became of it.

An upload's object carries a word of that upload alone among its metadata, so that it is told from any other.
"""

from __future__ import annotations

import time
from typing import Callable, Generic, Optional, TypeVar

from .._errors import Kind, VmferryError

UNANSWERED = ("timeout", "network")
SETTLE = 15.0  # seconds in which a request that was never answered may still take effect
_PAUSE = 0.5

Found = TypeVar("Found")


class Completion(Generic[Found]):
    def __init__(self, ours: Callable[[], Optional[Found]], over: Optional[Kind] = None) -> None:
        """`ours` looks for this upload's object. `over`: what a server answers when it is asked a second time, while
        the first is being carried out as well as afterwards."""
        self._ours, self._over = ours, over
        self.begun = self.unanswered = False

    def carry_out(self, request: Callable[[], object], fits: Callable[[Found], bool]) -> Optional[Found]:
        """What is there afterwards, fit or not, if it is ours. Of a request that failed nothing is told if the object
        that it was to make is there all the same."""
        self.begun = True
        try:
            request()
        except VmferryError as error:
            self.note(error)
            found = self.settled() if self.unanswered and error.kind == self._over else self._ours()
            if found is None or not fits(found):
                raise
            return found
        return self._ours()

    def note(self, error: VmferryError) -> None:
        self.unanswered = self.unanswered or error.kind in UNANSWERED

    def settled(self) -> Optional[Found]:
        """The object, as soon as it is there; None where it does not appear for a while."""
        deadline = time.monotonic() + SETTLE
        while (found := self._ours()) is None and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        return found
