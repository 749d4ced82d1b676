# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What volumes and snapshots hold: blocks of 512 KiB in one file, shared by all that have them, and no hole."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

BLOCK = 512 << 10
GIB = 1 << 30
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True, eq=False)
class Block:
    """Written once. Two writes of the same bytes are two blocks, as EBS tells what was written, not what differs."""

    at: int
    checksum: bytes  # SHA-256


Content = dict[int, Block]  # by index; what is not there was never written, and reads as zeros


class Blocks:
    """Thread-safe. The file only grows."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._end = 0
        self._lock = threading.Lock()

    def add(self, data: bytes) -> Block:
        assert len(data) == BLOCK
        with self._lock:
            at, self._end = self._end, self._end + BLOCK
        if data == _ZEROS:
            os.ftruncate(self._file, max(os.fstat(self._file).st_size, at + BLOCK))
        else:
            os.pwrite(self._file, data, at)
        return Block(at, sha256(data).digest())

    def read(self, block: Block) -> bytes:
        return os.pread(self._file, BLOCK, block.at).ljust(BLOCK, b"\0")

    def load(self, path: Path) -> Content:
        """A disk's image, whose holes and blocks of zeros are holes."""
        content: Content = {}
        with path.open("rb") as file:
            for index in _stored(file.fileno(), path.stat().st_size):
                data = os.pread(file.fileno(), BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
                if data != _ZEROS:
                    content[index] = self.add(data)
        return content

    def write(self, content: Content, offset: int, data: bytes) -> None:
        for index in range(offset // BLOCK, -(-(offset + len(data)) // BLOCK)):
            start = index * BLOCK
            first, last = max(offset - start, 0), min(offset + len(data) - start, BLOCK)
            held = bytearray(self.read(content[index]) if index in content else _ZEROS)
            held[first:last] = data[start + first - offset : start + last - offset]
            content[index] = self.add(bytes(held))

    def discard(self, content: Content, offset: int, length: int) -> None:
        """Whole blocks are given back, and of others the bytes are zeros."""
        whole = range(-(-offset // BLOCK), (offset + length) // BLOCK)
        for index in whole:
            content.pop(index, None)
        ends = [(offset, offset + length)]
        if len(whole):
            ends = [(offset, whole.start * BLOCK), (whole.stop * BLOCK, offset + length)]
        for first, last in ends:
            if first < last and first // BLOCK in content:
                self.write(content, first, bytes(last - first))

    def bytes_of(self, content: Content, length: int) -> Iterator[bytes]:
        for index in range(-(-length // BLOCK)):
            data = self.read(content[index]) if index in content else _ZEROS
            yield data[: min(BLOCK, length - index * BLOCK)]


@dataclass
class Stored:
    """A snapshot's data. `polls`: how often it is still told to be pending before it is completed."""

    size: int  # GiB
    content: Content
    lineage: str  # of a volume, or of snapshots made of each other
    owner: str
    polls: int = 0
    open: bool = False  # to be written to by EBS direct, until it is completed
    written: set[int] = field(default_factory=set)
    parent: str = ""
    token: str = ""  # by which the client told it from others
    asked: str = ""
    failed: bool = False

    @property
    def state(self) -> str:
        if self.failed:
            return "error"
        return "pending" if self.open or self.polls > 0 else "completed"


@dataclass
class Disks:
    blocks: Blocks
    volumes: dict[str, Content] = field(default_factory=dict)
    snapshots: dict[str, Stored] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    polls: int = 1  # of a snapshot that is made from now on
    page: int = 10_000  # blocks that a page has at most, whatever was asked


def _stored(file: int, size: int) -> Iterator[int]:
    """Indexes of blocks that are not holes."""
    at = done = 0
    while at < size:
        try:
            first = os.lseek(file, at, os.SEEK_DATA)
        except OSError:  # there is a hole up to the end
            return
        at = os.lseek(file, first, os.SEEK_HOLE)
        for index in range(max(first // BLOCK, done), -(-at // BLOCK)):
            yield index
            done = index + 1
