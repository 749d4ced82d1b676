# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts that are gone when the block ends, and when the process is killed in it. Needs root.

with mounted_tmpfs(folder) as mounted:
    mounted.unmount()       # in the middle of a test, whoever uses it
    mounted.mount_again()   # empty
with mounted_ext4(folder, image, size):
    ...
with mounted_xfs(folder, image):
    ...
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

# Waits until the other end of its input is closed, by us or by our end.
_GUARD = 'cat >/dev/null; exec umount --lazy "$0"'


class Guard:
    """Unmounts what is mounted at `point`, when it is told to and when this process is killed."""

    def __init__(self, point: Path) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", _GUARD, str(point)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def unmount(self) -> bool:
        """Out of sight at once, also where a failed test has files open below it. False where nothing was mounted."""
        self._process.communicate()
        return not self._process.returncode


class Mounted:
    def __init__(self, point: Path, source: str, arguments: Sequence[str]) -> None:
        self.point, self.source, self._arguments = point, source, arguments
        self.mount_again()

    def mount_again(self) -> None:
        subprocess.run(["mount", *self._arguments, self.source, str(self.point)], check=True)
        self._guard: Guard | None = Guard(self.point)

    def unmount(self) -> None:
        """May be repeated."""
        guard, self._guard = self._guard, None
        if guard is not None and not guard.unmount():
            raise RuntimeError(f"{self.point} was not unmounted")


@contextmanager
def mounted_tmpfs(point: Path, options: str = "size=64m") -> Iterator[Mounted]:
    with _mounted(point, f"vmferry-{token_hex(4)}", ["-t", "tmpfs", "-o", options]) as mounted:
        yield mounted


@contextmanager
def mounted_ext4(point: Path, image: Path, size: int) -> Iterator[Mounted]:
    """A disk of so many bytes in a new file, with ext4 on it that reserves nothing for root."""
    with image.open("xb") as file:
        file.truncate(size)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(image)], check=True)
    with _mounted(point, str(image), ["-t", "ext4", "-o", "loop"]) as mounted:
        yield mounted


@contextmanager
def mounted_xfs(point: Path, image: Path) -> Iterator[Mounted]:
    """The smallest disk that it takes, of which few blocks are ever written. Its files can share blocks."""
    with image.open("xb") as file:
        file.truncate(320 * 1024**2)
    subprocess.run(["/sbin/mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    with _mounted(point, str(image), ["-t", "xfs", "-o", "loop"]) as mounted:
        yield mounted


@contextmanager
def _mounted(point: Path, source: str, arguments: Sequence[str]) -> Iterator[Mounted]:
    mounted = Mounted(point, source, arguments)
    try:
        yield mounted
    finally:
        mounted.unmount()


def unmount(point: Path) -> None:
    """Of what another process has mounted."""
    subprocess.run(["umount", "--lazy", str(point)], check=True)
