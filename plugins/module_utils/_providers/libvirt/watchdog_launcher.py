# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the watchdog as a process of its own, also where this package lies in a zip that is gone before it ends."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ..._errors import VmferryError
from . import watchdog  # so that the file is shipped with this one

START_TIMEOUT = 20.0  # seconds, for an interpreter and one import on a busy host
END_TIMEOUT = 10.0
# The program arrives by the pipe too: no file of it has to exist, and no process list shows ten kilobytes of it.
BOOTSTRAP = """\
import os, sys
left, program = int(sys.argv[2]), b""
while left:
    piece = os.read(0, left)
    if not piece:
        sys.exit(0)
    program, left = program + piece, left - len(piece)
exec(compile(program, "vmferry-watchdog", "exec"), {"__name__": "__main__"})
"""


class WatchdogProcess:
    """Lives from `start` until `finish`; without that it undoes everything, once this process ends or abandons it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(cls, *, uri: str, uuid: str, folder: Path, socket: str, reserve: int) -> WatchdogProcess:
        """Returns when it is ready to act. `reserve`: bytes that must stay free where the scratch files are."""
        program = pkgutil.get_data(__package__ or "", "watchdog.py")
        if program is None:
            raise VmferryError("internal", f"The program of {watchdog.__name__} cannot be read.")
        command = [sys.executable, "-I", "-c", BOOTSTRAP, f"vmferry-watchdog:{folder.name}", str(len(program))]
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a kill of the exporter's process group or session must not reach it
            cwd="/",
        )
        started = cls(process)
        settings = {
            "uri": uri,
            "uuid": uuid,
            "folder": str(folder),
            "socket": socket,
            "reserve": reserve,
            "path": [entry for entry in sys.path if os.path.isdir(entry)],  # noqa: PTH112 - of an isolated interpreter
        }
        started._send(program + json.dumps(settings).encode() + b"\n")
        started._wait_until_ready(folder / "watchdog")
        return started

    def tell(self, event: str) -> None:
        """`freeze`, `thawed`, `begin`, `begun`: each before it is done, or after it is undone."""
        self._send(json.dumps(event).encode() + b"\n")

    def finish(self) -> None:
        """Nothing is left to undo."""
        with suppress(VmferryError):  # it ended by itself
            self.tell("done")
        self._end(END_TIMEOUT)

    def abandon(self) -> None:
        """It goes on alone: what could not be undone here is undone as soon as libvirt can be reached."""
        self._end(0)

    def _end(self, patience: float) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)

    def _send(self, data: bytes) -> None:
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(data)
                pipe.flush()
        except (BrokenPipeError, ValueError) as error:
            raise VmferryError("internal", "The watchdog of the backup job died.", "Try again.") from error

    def _wait_until_ready(self, sign: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not sign.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.abandon()
                hint = f"Can {sys.executable} -I import libvirt?"
                raise VmferryError("internal", "The watchdog of the backup job did not start.", hint)
            time.sleep(0.02)
