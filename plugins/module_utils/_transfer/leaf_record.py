# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read, leaf by leaf, kept for the length of a job: to be compared with what was written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Callable, Dict, Iterator, Tuple

from .._blocks import LEAF
from .._errors import VmferryError
from .digest_check import DigestCheck
from .digest_file import CHUNK_LEAVES
from .digests import Digests, DigestTree, plain_hash

DIGEST = 32  # bytes of a SHA-256
_CHUNK = CHUNK_LEAVES * DIGEST  # bytes of a chunk's digests
_HOLE = bytes(DIGEST)  # a leaf of zeros; no leaf has this digest


class LeafRecord:
    """Plays LeafCheck, and objects to nothing: each leaf's SHA-256 is written at its place in a file without a name.

    32 bytes for each 64 KiB that are not zeros, which memory would not hold of a disk of many terabytes. The kernel
    removes the file with the process. Raises `no_space` where `folder` cannot take it.
    """

    tells_all = False
    leaf_hash = staticmethod(plain_hash)

    def __init__(self, size: int, folder: Path) -> None:
        self.size, self._folder = size, folder
        self._file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - `__exit__` closes it

    def __enter__(self) -> LeafRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def expect(self, first: int, count: int) -> Digests:
        return [None] * count

    def expect_zeros(self, first: int, count: int) -> None:
        """Holes are zeros."""

    def compare(self, first: int, found: Digests, expected: Digests) -> None:
        """Thread-safe: no two threads have the same leaves."""
        if not any(found):
            return
        data = memoryview(b"".join(digest or _HOLE for digest in found))
        at = first * DIGEST
        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, at)
                data, at = data[written:], at + written
        except OSError as error:
            kind = "no_space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "internal"
            raise VmferryError(
                kind,  # type: ignore[arg-type]
                f"Digests of what was read cannot be kept in {self._folder}: {error.strerror}.",
                "Free some space there, set state_dir to another folder, or set verify: none.",
            ) from error

    def finish(self) -> str:
        """The root, in hex, as an export of the same data has it."""
        tree = DigestTree(self.size)
        for chunk, leaves in self._records():
            tree.add(chunk, leaves)
        return tree.root()

    def check(self, disk: str, damaged: Callable[[int], object]) -> DigestCheck:
        """Of the same data read from somewhere else. `damaged` is told the number of each leaf that differs."""
        return DigestCheck(self.size, self._records(), self.finish(), disk, damaged)

    def _records(self) -> Iterator[Tuple[int, Dict[int, bytes]]]:
        """As `DigestCheck` takes them: chunks that are not all zeros, in their order."""
        descriptor, chunk = self._file.fileno(), 0
        end = os.fstat(descriptor).st_size
        while chunk * _CHUNK < end:
            try:
                chunk = max(chunk, os.lseek(descriptor, chunk * _CHUNK, os.SEEK_DATA) // _CHUNK)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole is left
                    return
                raise
            data = os.pread(descriptor, _CHUNK, chunk * _CHUNK)
            digests = (data[at : at + DIGEST] for at in range(0, len(data), DIGEST))
            leaves = {position: digest for position, digest in enumerate(digests) if digest != _HOLE}
            if leaves:
                yield chunk, leaves
            chunk += 1


def place_of(leaf: int, size: int) -> str:
    """For sentences: `bytes 65536 to 131072`."""
    return f"bytes {leaf * LEAF} to {min((leaf + 1) * LEAF, size)}"
