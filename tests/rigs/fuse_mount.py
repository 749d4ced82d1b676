# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""FUSE file systems in a process of their own. Needs root.

The mount is gone when the block ends, and also when the test process is killed: the file system's process dies with it,
and a guard unmounts. (`auto_unmount` does not where the socket of the dying process is closed before its file system.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .mounting import Guard, unmount
from .server_process import STOP_TIMEOUT, end_with_parent

START_TIMEOUT = 30.0  # seconds; a bridge is there in half of one


def options(source: str, subtype: str) -> dict[str, object]:
    """For `mfusepy.FUSE`. Inode numbers are the file system's own, and nothing is remembered about names: tests look
    behind its back."""
    return {
        "foreground": True,
        "fsname": source,
        "subtype": subtype,
        "use_ino": True,
        "attr_timeout": 0,
        "entry_timeout": 0,
        "negative_timeout": 0,
        "default_permissions": True,
        "allow_other": True,
    }


@contextmanager
def mounted(module: str, arguments: Sequence[str], point: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module *arguments point` serves a file system at `point`."""
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests), "FUSE_LIBRARY_NAME": "fuse3"}
    guard = Guard(point)  # before there is anything to unmount
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, str(point)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=end_with_parent,
        )
    try:
        _wait_until_mounted(process, point, log)
        yield process
    finally:
        end(process, point)
        guard.unmount()


def end(process: subprocess.Popen[bytes], point: Path) -> None:
    """Unmounted, and its process gone; may be repeated."""
    if is_mounted(point):
        unmount(point)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_mounted(point: Path) -> bool:
    """Also where nobody serves it any more, and every look at it fails."""
    escaped = str(point).replace(" ", "\\040")
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return any(line.split()[4] == escaped for line in mounts.splitlines())


def _wait_until_mounted(process: subprocess.Popen[bytes], point: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if is_mounted(point):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing was mounted at {point}:\n{log.read_text(errors='replace')[-4000:]}")
