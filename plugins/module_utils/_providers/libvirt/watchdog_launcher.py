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
from threading import Event, Lock, Thread
from typing import Any, Mapping, Sequence

from ..._errors import VmferryError
from . import watchdog  # so that the file is shipped with this one

START_TIMEOUT = 20.0  # seconds, for an interpreter and one import on a busy host
END_TIMEOUT = 10.0
LOOK_PAUSE = 1.0  # seconds between two looks whether it lives
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

SIGN = "watchdog"  # the file in which it says that it is ready, by its process
HOLD = "hold"  # and that in which stands how long it holds, for who goes on and is killed before it says so


class WatchdogProcess:
    """Lives from `start` until `finish`; without that it undoes everything, once this process ends or abandons it.

    One that is killed gets a successor, which hears all that was told before.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._told: list[object] = []
        self._changing, self._ended = Lock(), Event()
        self._failure: VmferryError | None = None
        self._process = self._launch()
        self._guard = Thread(target=self._guard_it, name="vmferry-watchdog", daemon=True)
        self._guard.start()

    @classmethod
    def start(
        cls,
        *,
        uri: str,
        uuid: str,
        folder: Path,
        socket: str = "",
        reserve: int = 0,
        held_reserve: int = 0,
        token: str = "",
        images: Sequence[str] = (),
    ) -> WatchdogProcess:
        """Returns when it is ready to act. `reserve`: bytes that must stay free where the scratch files are, and
        `held_reserve` once the exporter is dead; `token`: a checkpoint that it removes too, once nobody keeps it, and
        `images` those that may get its bitmaps.
        """
        settings = {
            "uri": uri,
            "uuid": uuid,
            "folder": str(folder),
            "socket": socket,
            "reserve": reserve,
            "held_reserve": held_reserve,
            "token": token,
            "images": list(images),
            "hold": _hold_so_far(folder),
            "path": [entry for entry in sys.path if os.path.isdir(entry)],  # noqa: PTH112 - of an isolated interpreter
        }
        return cls(folder, settings)

    def hold(self, seconds: float) -> None:
        """So long after this process died it leaves everything to a successor, as long as the scratch has room."""
        with suppress(OSError):  # a full scratch folder ends the job anyway
            _write_for_owner(self._folder / HOLD, str(seconds))
        self.tell({"hold": seconds})

    def tell(self, event: object) -> None:
        """`freeze`, `thawed`, `begin`, `begun`, `kept`: each before it is done, or after it is undone."""
        with self._changing:
            self._told.append(event)
            try:
                _send(self._process, _line(event))
            except VmferryError:
                self._process = self._successor()

    def check(self) -> None:
        """Raises where it died and could not be started again: nobody would undo the job, or end it in time."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Nothing is left to undo."""
        self._ended.set()
        with self._changing:
            with suppress(VmferryError):  # it ended by itself
                _send(self._process, _line("done"))
            _end(self._process, END_TIMEOUT)

    def abandon(self) -> None:
        """It goes on alone: what could not be undone here is undone as soon as libvirt can be reached."""
        self._ended.set()
        with self._changing:
            _end(self._process, 0)

    def _guard_it(self) -> None:
        while not self._ended.wait(LOOK_PAUSE):
            with self._changing:
                if self._ended.is_set() or self._process.poll() is None:
                    continue
                try:
                    self._process = self._successor()
                except VmferryError as error:
                    self._failure = error
                    return

    def _successor(self) -> subprocess.Popen[bytes]:
        _end(self._process, 0)
        try:
            return self._launch()
        except VmferryError as error:
            message = f"The watchdog of the backup job died, and has no successor. {error.message}"
            raise VmferryError("internal", message, error.hint) from error

    def _launch(self) -> subprocess.Popen[bytes]:
        program = pkgutil.get_data(__package__ or "", "watchdog.py")
        if program is None:
            raise VmferryError("internal", f"The program of {watchdog.__name__} cannot be read.")
        command = [sys.executable, "-I", "-c", BOOTSTRAP, _title(self._folder), str(len(program))]
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a kill of the exporter's process group or session must not reach it
            cwd="/",
        )
        try:
            told = b"".join(_line(event) for event in self._told)
            _send(process, program + _line(self._settings) + told)
            self._wait_until_ready(process)
        except VmferryError:
            _end(process, 0)
            raise
        return process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        sign = self._folder / SIGN
        while not (sign.exists() and sign.read_text(encoding="utf-8") == str(process.pid)):
            if process.poll() is not None or time.monotonic() > deadline:
                hint = f"Can {sys.executable} -I import libvirt?"
                raise VmferryError("internal", "The watchdog of the backup job did not start.", hint)
            time.sleep(0.02)


def is_watched(folder: Path) -> bool:
    """Whether a watchdog lives that will undo what was made with this folder."""
    try:
        pid = int((folder / SIGN).read_text(encoding="utf-8"))
        return _title(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False


def _write_for_owner(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _hold_so_far(folder: Path) -> float:
    try:
        return float((folder / HOLD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _title(folder: Path) -> str:
    return f"vmferry-watchdog:{folder.name}"


def _line(said: object) -> bytes:
    return json.dumps(said).encode() + b"\n"


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    try:
        if process.stdin is not None:
            process.stdin.write(data)
            process.stdin.flush()
    except (BrokenPipeError, ValueError) as error:
        raise VmferryError("internal", "The watchdog of the backup job died.", "Try again.") from error


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
