# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server as a child process: ready when its health check answers, gone when the block ends."""

from __future__ import annotations

import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

START_TIMEOUT = 60.0  # seconds; SeaweedFS takes 4 on an idle machine
STOP_TIMEOUT = 30.0
_PR_SET_PDEATHSIG = 1


def program(name: str) -> str:
    """Beside this interpreter, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither beside {sys.executable} nor on PATH")
    return found


@contextmanager
def running(
    command: Sequence[str],
    health_url: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=log.parent,
            preexec_fn=end_with_parent,
        )
    try:
        _wait_until_healthy(process, health_url, log)
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a test run that is killed leaves no server behind


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            _ask(url)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not become ready:\n{log.read_text(errors='replace')[-4000:]}")


def _ask(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "tcp":  # of a server that answers nobody whom it does not know
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    else:
        urllib.request.urlopen(url, timeout=5).close()
