# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads that work a queue of windows off together, until it is empty or one of them fails."""

from __future__ import annotations

from threading import Thread
from typing import Callable

from .flow import Flow, Stopped


def run_workers(flow: Flow, count: int, work: Callable[[], None]) -> None:
    """`count` threads run `work`; returns when all have ended, and raises the first error of any of them."""

    def guarded() -> None:
        try:
            work()
        except Stopped:
            pass
        except BaseException as error:  # raised again below, in the thread that asked
            flow.stop(error)

    threads = [Thread(target=guarded, name=f"worker-{number}", daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if flow.error:
        raise flow.error
