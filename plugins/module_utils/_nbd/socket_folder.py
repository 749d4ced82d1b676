# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder for a server's socket, that says whose it is: one of a process that was killed goes with the next."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

OLD = 600.0  # seconds; a server that another container begins may not listen yet
_OURS = re.compile(r"vmferry-nbd-([0-9]+)-[0-9a-z_]+")


@contextmanager
def socket_folder() -> Iterator[Path]:
    """That only this user can enter, in the folder for temporary files; it goes when the context is left."""
    below = Path(tempfile.gettempdir())
    _remove_those_of_the_dead(below)
    folder = Path(tempfile.mkdtemp(prefix=f"vmferry-nbd-{os.getpid()}-", dir=below))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_those_of_the_dead(below: Path) -> None:
    """Of this user's alone, and none of a process of another container: a server that runs there is seen by its socket,
    which takes connections. A pid that was used again keeps a folder until that process ends, too."""
    for path in below.glob("vmferry-nbd-*"):
        found = _OURS.fullmatch(path.name)
        try:
            seen = path.lstat()
        except OSError:
            continue
        mine = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid()
        if found is None or not mine or time.time() - seen.st_mtime < OLD:
            continue
        if not Path(f"/proc/{found[1]}").exists() and not _is_served(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_served(folder: Path) -> bool:
    for path in folder.glob("*"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
            try:
                tried.connect(str(path))
            except OSError:
                continue
            return True
    return False
