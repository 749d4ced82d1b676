# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`qemu-nbd` on an image that nobody vouches for: it reads one open file, and can do little else.

It gets no path but a descriptor, and every node it opens is spelled out by the caller. It may write no file; its
memory, its CPU time and its open files are bounded; it gains no privileges, and has no network where the kernel lets us
say so.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ContextManager, Mapping, Sequence

from .child_server import Server, program
from .qemu_nbd import QEMU_UTILS, SHARED, STOP_TIMEOUT, UTIL_LINUX, run

_WITHOUT_NETWORK = (("--net",), ("--user", "--map-current-user", "--net"))  # as root, and as anybody else
_PROBE_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Confinement:
    """rlimits: bytes of address space, seconds of CPU time, open files."""

    memory: int = 2 << 30
    cpu_seconds: int = 600
    files: int = 256

    @classmethod
    def of_disk(cls, size: int) -> Confinement:
        """Time enough to decompress all of it, slowly."""
        return cls(cpu_seconds=600 + size // (8 << 20))


def serve_confined(
    node: Mapping[str, Any],
    image: Path,
    descriptor: int,
    *,
    socket_dir: Path,
    snapshot_id: str = "",
    confinement: Confinement | None = None,
) -> ContextManager[Server]:
    """Serves `node` until the context is left, read-only; `image` is only a name in messages.

    `node`: a whole block node, whose file is `inherited_file(descriptor)`. Otherwise as `serve` of `qemu_nbd`.
    """
    limits = confinement or Confinement()
    command = [
        *_without_network(),
        program("prlimit", UTIL_LINUX),
        f"--as={limits.memory}",
        f"--cpu={limits.cpu_seconds}",
        f"--nofile={limits.files}",
        "--fsize=0",
        "--core=0",
        program("setpriv", UTIL_LINUX),
        "--no-new-privs",
        "--pdeathsig=TERM",  # the last one: what changes credentials takes it back
        program("qemu-nbd", QEMU_UTILS),
        "--read-only",
        "--persistent",
        f"--shared={SHARED}",
        *([f"--load-snapshot=snapshot.id={snapshot_id}"] if snapshot_id else []),
        "--",
        "json:" + json.dumps(node),
    ]
    return run(command, image, socket_dir, STOP_TIMEOUT, [descriptor])


def inherited_file(descriptor: int) -> str:
    """The name of the very file that the descriptor is of, whatever its path names by now."""
    return f"/proc/self/fd/{descriptor}"


def _without_network() -> Sequence[str]:
    """Nothing where neither root's way nor that of others is open: then there is still no node with a network."""
    unshare = program("unshare", UTIL_LINUX)
    for options in _WITHOUT_NETWORK:
        probe = [unshare, *options, program("prlimit", UTIL_LINUX)]
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            probe, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_PROBE_TIMEOUT
        )
        if not done.returncode:
            return [unshare, *options]
    return []
