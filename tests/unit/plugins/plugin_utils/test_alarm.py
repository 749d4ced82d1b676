# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A call that hangs is ended, and a task's own timeout is kept."""

from __future__ import annotations

import signal
import time

import pytest

from ansible_collections.vmferry.migrate.plugins.plugin_utils.alarm import NoAnswer, at_most


class TaskTimeout(BaseException):
    pass


def ring(_number: int, _frame: object) -> None:
    raise TaskTimeout


def test_a_call_that_hangs_is_ended() -> None:
    with pytest.raises(NoAnswer), at_most(0.05):
        time.sleep(5)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(("limit", "ends_with"), [(0.05, NoAnswer), (5.0, TaskTimeout)])
def test_the_earlier_of_two_limits_counts(limit: float, ends_with: type[BaseException]) -> None:
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(ends_with), at_most(limit):
            time.sleep(5)
        if ends_with is NoAnswer:
            with pytest.raises(TaskTimeout):
                time.sleep(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
