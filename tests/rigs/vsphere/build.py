# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator, compiled once for its sources and for the library that this machine has."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from rigs.guests_cache import cache_directory

SOURCES = Path(__file__).with_name("simulator")
LIBRARIES = Path("/usr/share/gocode")  # where Debian keeps Go's libraries
_GOVMOMI = LIBRARIES / "src/github.com/vmware/govmomi"
_KEY_DIGITS = 16


def simulator() -> Path:
    """The program. Takes a minute where nothing was compiled yet; who comes meanwhile waits for the first."""
    cache = cache_directory("vsphere")
    target = cache / f"simulator-{_key()}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(target, cache / "go")
    return target


def _key() -> str:
    """By content: a fresh clone finds what another one built."""
    key = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.go")):
        key.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for library in (_GOVMOMI / "simulator", _GOVMOMI / "vim25"):
        key.update(f"{library.stat().st_mtime_ns if library.exists() else 0}\0".encode())
    return key.hexdigest()[:_KEY_DIGITS]


def _build(target: Path, compiled: Path) -> None:
    if shutil.which("go") is None or not _GOVMOMI.exists():
        raise RuntimeError("no Go or no govmomi: install the packages of tests/rigs/vsphere/packages.txt")
    environment = {
        **os.environ,
        "GO111MODULE": "off",  # the libraries are Debian's; nothing is downloaded
        "GOPATH": str(LIBRARIES),
        "GOFLAGS": "",
        "GOCACHE": str(compiled),
    }
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / "simulator"
        # Without what only a debugger reads, it links faster and takes less room.
        command = ["go", "build", "-ldflags=-s -w", "-o", str(fresh), "."]
        done = subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the simulator of vSphere does not compile:\n{done.stderr}")
        fresh.replace(target)


if __name__ == "__main__":
    print(simulator())
