# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A crew of threads that all run the same work until it is done, or until the first of them fails."""

from __future__ import annotations

from threading import Thread
from typing import Callable

from .flow import Flow, Stopped


def run_workers(flow: Flow, count: int, work: Callable[[], object]) -> None:
    """Returns when every thread has ended; raises the flow's first error, whichever thread it came from."""

    def guarded() -> None:
        try:
            work()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that asked
            flow.stop(error)

    threads = [Thread(target=guarded, name=f"vmferry-{number}", daemon=True) for number in range(count)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError as error:  # the process may have no more threads
        flow.stop(error)
    for thread in started:
        thread.join()
    if flow.error is not None:
        raise flow.error
