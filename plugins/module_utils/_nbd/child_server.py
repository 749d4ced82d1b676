# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An NBD server as a child process, watched until it serves and until it has ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from threading import Event, Thread
from typing import Callable, Sequence

from .._errors import VmferryError
from .connection import describe_export
from .transport import Address

MAX_SOCKET_PATH = 107  # bytes, sun_path of Linux
POLL = 0.01  # seconds


@dataclass(frozen=True)
class Server:
    address: Address
    pid: int
    export: str = ""


class ChildServer:
    """A process that the kernel ends with us, if the command sees to it (PR_SET_PDEATHSIG).

    That fires when the *thread* that forked is gone, so a thread of the child's own forks it and then waits for it.
    `complaint` makes an error of what it said before it ended.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        complaint: Callable[[str], VmferryError],
        inherited: Sequence[int] = (),
    ) -> None:
        self._name, self._command, self._complaint, self._inherited = name, command, complaint, inherited
        self._process: subprocess.Popen[str] | None = None
        self._failure: OSError | None = None
        self._said = ""
        self._started = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise VmferryError("internal", f"{name} could not be started: {self._failure}.") from self._failure

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0  # the constructor raised otherwise

    def wait_until_serving(self, address: Address, what: str, seconds: float) -> None:
        """Not only until it accepts: `qemu-nbd` listens before it opens the image, and greets after."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                describe_export(address, idle_timeout=seconds)
                return
            except VmferryError as error:
                self._thread.join(POLL)
                if not self._thread.is_alive():
                    raise self._complain() from error
                if time.monotonic() > deadline:
                    message = f"{self._name} did not open {what} within {seconds:.0f} s."
                    raise VmferryError("timeout", message) from error

    def stop(self, patience: float) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._thread.is_alive() and self._process is not None:
                self._process.send_signal(number)
                self._thread.join(patience)

    def demand_success(self) -> None:
        """A server that was told to stop, and could not write everything, says so by its exit status."""
        if self._process is not None and self._process.returncode:
            raise self._complain()

    def _run(self) -> None:
        try:
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,  # a Ctrl-C is ours to handle: it must not end the server under a read
                pass_fds=self._inherited,
            )
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        self._said = self._process.communicate()[1]

    def _complain(self) -> VmferryError:
        said = self._said.strip().replace(f"{self._name}: ", "")
        return self._complaint(said or f"exit status {self._process and self._process.returncode}")


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise VmferryError("invalid_config", f"The program {name} is not installed.", f"Install {package}.")
    return found
