# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A crew of threads that all run the same work until it is done, or until the first of them fails."""

from __future__ import annotations

import time
from threading import Thread
from typing import Callable

from .flow import Flow, Stopped
from .last_words import LAST_WORDS, is_silence


def run_workers(flow: Flow, count: int, work: Callable[[], object], patient: bool = False) -> None:
    """Returns when every thread has ended; raises the flow's first error, whichever thread it came from.

    Threads that still wait for what does not answer are left behind then; none is where the caller is `patient`, since
    each of them sees to that itself.
    """
    running = set(range(count))

    def guarded(number: int) -> None:
        try:
            work()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that asked
            flow.stop(error)
        finally:
            with flow.changing():
                running.discard(number)

    threads = [Thread(target=guarded, args=(number,), name=f"vmferry-{number}", daemon=True) for number in range(count)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError as error:  # the process may have no more threads
        flow.stop(error)
    with flow.shielded():
        flow.wait(lambda: not running or flow.error is not None)
    deadline = None if patient or not is_silence(flow.error) else time.monotonic() + LAST_WORDS
    for thread in started:
        thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
    if flow.error is not None:
        raise flow.error
