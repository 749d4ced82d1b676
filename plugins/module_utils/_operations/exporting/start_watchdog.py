# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that outlives a killed export, and starts the guest that the export had shut down.

It is told all it needs, secrets too, by a pipe whose other end only the export holds. The end of the pipe without a
word before means that the export is dead, however it died. What it has of this collection it loads at its start: the
archive in which Ansible ships it is gone when the export is.
"""

from __future__ import annotations

import json
import os
import pkgutil
import selectors
import subprocess
import sys
import time
from contextlib import closing, suppress
from importlib import import_module
from typing import Any, Mapping

from ..._errors import VmferryError
from ..._exports.power_marks import PowerMark, read_power_mark
from ..._transfer.failpoints import VARIABLE
from ..attempts.owed_starts import OwedStart, settle
from ..jobs.requests import ProviderSpec, StoreSpec

TITLE = "vmferry-start-watchdog"
READY_LIMIT = 180.0  # seconds, for an interpreter and its imports, compiled anew, on a host that is busy
END_LIMIT = 10.0
PATIENCE = 3600.0  # seconds for which it is tried; a vCenter, or libvirtd, may be down for maintenance
AGAIN, SELDOM = 1.0, 30.0  # seconds from one try to the next, at first and at last
_ROOMS = ("_aws", "_http", "_nbd", "_transfer", "_stores")  # and that of its provider
# Its arguments: what it is called in lists of processes. The path comes first, or nothing of ours could be imported.
_BOOTSTRAP = """\
import json, os, sys
line = b""
while not line.endswith(b"\\n"):
    piece = os.read(0, 1)
    if not piece:
        sys.exit(0)
    line += piece
sys.path[:] = json.loads(line)
from {package}.start_watchdog import watch
watch()
"""


class StartWatchdog:
    """Lives from its making until `finish`."""

    def __init__(self, provider: ProviderSpec, store: StoreSpec, mark: PowerMark) -> None:
        """Returns when it is ready. Raises `internal` where it cannot be started."""
        program = _BOOTSTRAP.format(package=__package__)
        try:
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [sys.executable, "-I", "-c", program, f"{TITLE}:{mark.key}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a kill of the export's process group or session must not reach it
                cwd="/",
                env={name: value for name, value in os.environ.items() if name != VARIABLE},  # it does not die with it
            )
        except OSError as error:
            raise _not_started() from error
        told = {
            "provider": [provider.name, dict(provider.settings)],
            "store": [store.url, dict(store.settings)],
            "key": mark.key,
        }
        try:
            self._send(json.dumps([os.path.abspath(path) for path in sys.path]).encode() + b"\n")  # noqa: PTH100
            self._send(json.dumps(told).encode() + b"\n")
            answer = self._answer()
        except OSError:
            answer = b""
        if answer != b"r":
            self.finish()
            raise _not_started()

    def finish(self) -> None:
        """Nobody has to start anything any more."""
        with suppress(OSError):
            self._send(b"done\n")
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> bytes:
        """Empty where it ended, or says nothing for too long."""
        pipe = self._process.stdout
        if pipe is None:
            return b""
        with selectors.DefaultSelector() as waiting:
            waiting.register(pipe, selectors.EVENT_READ)
            return os.read(pipe.fileno(), 1) if waiting.select(READY_LIMIT) else b""

    def _send(self, data: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(data)
            self._process.stdin.flush()


def _not_started() -> VmferryError:
    hint = f"Can {sys.executable} start another process?"
    return VmferryError("internal", "The watchdog that would start the VM again did not start.", hint)


def watch() -> None:
    """The process itself."""
    line = _line()
    if not line:
        return
    told = json.loads(line)
    _load(told["provider"][0])
    os.write(1, b"r")
    if not os.read(0, 1):
        _start(told)


def _line() -> bytes:
    """No more of the pipe than that: what comes behind is the word that ends it. Nothing where nobody writes it."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            return b""
        line += piece
    return line


def _load(provider: str) -> None:
    """All of it: what is imported only where it is needed would not be there any more."""
    above = __name__.rpartition("._operations.")[0]
    import_module(f"{above}._operations.vm_files.open")
    for room in (*_ROOMS, f"_providers.{provider}"):
        module = import_module(f"{above}.{room}")
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            with suppress(ImportError):  # of an SDK that is not installed, and not needed therefore
                import_module(found.name)


def _start(told: Mapping[str, Any]) -> None:
    """Where its settings are wrong by now, or the store is gone, the mark tells the next run."""
    from ..._stores.open import open_store
    from ..vm_files.open import open_provider

    deadline, pause = time.monotonic() + PATIENCE, AGAIN
    while True:
        with suppress(VmferryError, OSError), closing(open_store(*told["store"])) as store:
            try:
                mark = read_power_mark(store.get(told["key"]), told["key"])
            except VmferryError as error:
                if error.kind in ("not_found", "invalid_config"):
                    return
                raise
            with closing(open_provider(*told["provider"])) as provider:
                settle(store, provider, OwedStart(mark))
        if time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(SELDOM, 1.5 * pause)
