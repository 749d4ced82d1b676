# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that die at a failpoint, each in a process of its own that a server forks: it has loaded all they need."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any, Union

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import start_watchdog
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ImportRequest,
    SnapshotRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.failpoints import VARIABLE

PATIENCE = 180.0  # seconds; a busy machine takes three times as long as a quiet one
Request = Union[ExportRequest, ImportRequest, SnapshotRequest]
_WORK: dict[type, Callable[[Any, bool], object]] = {
    ExportRequest: export_vm,
    ImportRequest: import_vm,
    SnapshotRequest: manage_snapshots,
}


class NoWatchdog:
    """In the place of a start watchdog, an interpreter of its own that is needed only where it is what is tested."""

    def __init__(self, *_unused: object) -> None:
        pass

    def finish(self) -> None:
        pass


def start_server() -> None:
    """To be called before a test's mark is in the environment: what it forks would seem to be left behind."""
    multiprocessing.set_forkserver_preload([__name__, f"{__package__}.loaded"])
    _run(os.getpid, ())


def die_at(failpoint: str, request: Request, *, alone: bool = False) -> None:
    """Do what is asked in another process, which is killed at that point. `alone`: as with the power of its whole host,
    so that no start watchdog of it lives on."""
    ended = _run(_work, (failpoint, dict(os.environ), request, alone))
    assert ended == -signal.SIGKILL, f"it never came to {failpoint}, but ended with {ended}"


def _run(work: Callable[..., object], arguments: tuple[object, ...]) -> int | None:
    process = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    process.start()
    process.join(PATIENCE)
    ended = process.exitcode
    if ended is None:
        process.kill()
    return ended


def _work(failpoint: str, environment: dict[str, str], request: Request, alone: bool) -> None:
    os.environ.update(environment)
    os.environ[VARIABLE] = failpoint
    if alone:
        setattr(start_watchdog, "StartWatchdog", NoWatchdog)  # noqa: B010
    _WORK[type(request)](request, False)
