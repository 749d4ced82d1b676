# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a failed export has made stays for the next run to go on with, in the store and on the host."""

from __future__ import annotations

from typing import Literal

from ..._errors import VmferryError
from ..._exports.naming import iso_time
from ..._transfer.journal import UnfitJournal

_PASSING = frozenset({"network", "timeout", "rate_limited", "no_space"})
Stake = Literal["nothing", "found", "made"]  # that a dead run had made, and nothing was added to yet; that grows


class TakenOver(VmferryError):
    """Another run has made the attempt its own: what is there is no longer this one's to remove."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("conflict", message, hint, retryable=True)


class NotResumable(VmferryError):
    """Why an export that died is begun anew."""

    def __init__(self, reason: str) -> None:
        super().__init__("conflict", reason)


class Keeping:
    """The failure that ends a run settles it, before anything is left or undone. All who have something of the export
    ask here, and what goes wrong behind that, or is asked for, changes nothing.
    """

    def __init__(self) -> None:
        self._stake: Stake = "nothing"
        self._settled: bool | None = None

    def is_at_stake(self, stake: Stake) -> None:
        self._stake, self._settled = stake, None

    def settle(self, keeps: bool) -> None:
        """The first word counts."""
        if self._settled is None:
            self._settled = keeps

    def keeps(self, cause: BaseException | None, ordered: bool) -> bool:
        """`ordered`: somebody asked the job to stop, and wants nothing of it."""
        return _may_go_on(self._stake, cause, ordered) if self._settled is None else self._settled


def _may_go_on(stake: Stake, cause: BaseException | None, ordered: bool) -> bool:
    """Where the store, the disk or the request were wrong, the next run would end where this one did. But what was
    only found is no worse for it: that goes where it cannot be gone on with, or is another's.
    """
    is_cancel = isinstance(cause, VmferryError) and cause.kind == "cancelled"
    if stake == "nothing" or isinstance(cause, (NotResumable, UnfitJournal, TakenOver)) or (is_cancel and ordered):
        return False
    return stake == "found" or is_cancel or (isinstance(cause, VmferryError) and cause.kind in _PASSING)


def tell_what_is_kept(error: BaseException, export_id: str, held_until: float) -> None:
    """In the result of the failed task. `held_until`: seconds since the epoch."""
    if isinstance(error, VmferryError) and "kept" not in error.done:
        until = iso_time(held_until)
        error.done = {**error.done, "kept": {"export": export_id, "until": until}}
        error.retryable = True  # whatever it was: the next run has less to do
        error.hint = f"{error.hint} Run the task again by {until}: it goes on where this one stopped.".strip()
