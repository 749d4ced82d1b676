# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other rooms' roles, played in memory: sources, sinks, part writers and two simple image formats."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Event, Lock
from typing import Callable, Iterator, Sequence

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import (
    LEAF,
    Extent,
    ImageOutput,
    ObjectInfo,
    Part,
    PartReceipt,
    Piece,
)

Hook = Callable[[], object]


def nothing() -> None:
    return None


class MemorySource:
    """`before_read` may fail or wait; it gets the number of reads so far."""

    def __init__(
        self,
        data: bytes,
        extents: Sequence[Extent] | None = None,
        before_read: Callable[[int], object] = lambda number: None,
    ) -> None:
        self.data, self._extents, self._before_read = data, extents, before_read
        self._reads, self._lock = 0, Lock()

    @property
    def size(self) -> int:
        return len(self.data)

    def extents(self) -> Iterator[Extent]:
        if self._extents is not None:
            yield from self._extents
        elif self.data:
            yield Extent(0, len(self.data), "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        with self._lock:
            self._reads += 1
            number = self._reads
        self._before_read(number)
        for offset, piece in pieces:
            piece[:] = self.data[offset : offset + len(piece)]

    def close(self) -> None:
        pass


class MemorySink:
    def __init__(self, size: int, reads_zero: bool = False, before_write: Hook = nothing) -> None:
        self.data = bytearray(size if reads_zero else b"\xee" * size)
        self._reads_zero, self._before_write = reads_zero, before_write
        self.zeroed: list[tuple[int, int]] = []
        self.flushed = 0

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def reads_zero(self) -> bool:
        return self._reads_zero

    def write(self, pieces: Sequence[Piece]) -> None:
        self._before_write()
        for offset, piece in pieces:
            self.data[offset : offset + len(piece)] = piece

    def zero(self, offset: int, length: int) -> None:
        self.zeroed.append((offset, length))
        self.data[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Rules:
    max_parts: int = 10_000
    min_part: int = 1
    max_part: int = 5 << 30
    max_object: int = 5 << 40
    joins_pieces: bool = False


class MemoryParts:
    """An object store (parts), or a file (any offset). It outlives the process that is played to be killed."""

    token = "memory"

    def __init__(self, any_offset: bool = False, before_write: Hook = nothing) -> None:
        self._any_offset, self._before_write = any_offset, before_write
        self.parts: dict[int, tuple[Part, bytes]] = {}
        self.pieces: dict[int, dict[int, bytes]] = {}
        self.sent_at_once: set[int] = set()  # bytes of pieces
        self.file = bytearray()
        self.object: bytes | None = None
        self.aborted = False
        self.receipts: Sequence[PartReceipt] = ()
        self._lock = Lock()

    @property
    def any_offset(self) -> bool:
        return self._any_offset

    def write_at(self, offset: int, data: memoryview) -> None:
        assert self._any_offset
        self._before_write()
        with self._lock:
            self.file.extend(bytes(max(0, offset + len(data) - len(self.file))))
            self.file[offset : offset + len(data)] = data

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        self._before_write()
        with self._lock:
            self.sent_at_once.add(len(data))
            self.pieces.setdefault(part.number, {})[number] = bytes(data)

    def join_pieces(self, part: Part) -> str:
        with self._lock:
            pieces = self.pieces.pop(part.number)
        assert sorted(pieces) == list(range(1, len(pieces) + 1))
        return self.write_part(part, memoryview(b"".join(pieces[number] for number in sorted(pieces))))

    def write_part(self, part: Part, data: memoryview) -> str:
        assert not self._any_offset
        assert len(data) == part.size
        self._before_write()
        with self._lock:
            self.parts[part.number] = (part, bytes(data))
        return f"etag-{part.number}"

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        self.receipts = tuple(receipts)
        if self._any_offset:
            self.file.extend(bytes(size - len(self.file)))
            self.object = bytes(self.file)
        else:
            assert [receipt.etag for receipt in receipts] == [f"etag-{n}" for n in range(1, len(receipts) + 1)]
            assert set(self.parts) == {receipt.part.number for receipt in receipts}
            self.object = b"".join(self.parts[number][1] for number in sorted(self.parts))
            assert len(self.object) == size
        return ObjectInfo("object", size)

    def confirms(self, receipt: PartReceipt) -> bool:
        part = receipt.part
        if self._any_offset:
            stored = bytes(self.file[part.offset : part.offset + part.size]).ljust(part.size, b"\0")
        else:
            held, stored = self.parts.get(part.number, (None, b""))
            if held != part or receipt.etag != f"etag-{part.number}":
                return False
        return naive_proof(stored) == receipt.proof

    def leave(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


class RawImage:
    """The disk itself; zeros are holes. `bound` lets a test say how long it may get."""

    codec = None
    encrypts = False

    def __init__(self, size: int, output: ImageOutput) -> None:
        self._size, self._output, self._at = size, output, 0

    @property
    def head_size(self) -> int:
        return 0

    @property
    def size_bound(self) -> int:
        return self._size

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        self._skip_to(offset)
        whole = min(len(run), self._size - offset) // LEAF * LEAF
        if whole:
            self._output.emit(run[:whole], digests[: whole // LEAF])
        if whole < len(run):
            self._output.emit(run[whole : self._size - offset])
        self._at = min(offset + len(run), self._size)

    def zero(self, offset: int, length: int) -> None:
        pass

    def finish(self) -> None:
        self._skip_to(self._size)

    def head(self) -> bytes:
        return b""

    def _skip_to(self, offset: int) -> None:
        if offset > self._at:
            self._output.hole(offset - self._at)
            self._at = offset


@dataclass
class PackedImage:
    """Data leaves one behind the other; the head, known last, is a table of where they belong."""

    size: int
    output: ImageOutput
    data_bound: int
    tables: int = 0  # blocks of metadata to emit behind each run, as a format with inline tables does
    head_size: int = 4 * LEAF
    placed: list[tuple[int, int, int]] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)
    codec: None = None
    encrypts: bool = False
    reads_runs: bool = True  # an export that goes on lays out leaves that it knows by their digests alone

    def __post_init__(self) -> None:
        self._next = self.head_size

    @property
    def size_bound(self) -> int:
        return self.head_size + self.data_bound * (1 + self.tables)

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        assert len(run) == len(digests) * LEAF
        if self.reads_runs:
            assert [sha256(run[n * LEAF : (n + 1) * LEAF]).digest() for n in range(len(digests))] == list(digests)
        self.placed.append((offset, self._next, len(run)))
        self.output.emit(run, digests)
        self._next += len(run)
        for _unused in range(self.tables):
            self.output.emit(memoryview(bytes([0xAB]) * LEAF))
            self._next += LEAF

    def zero(self, offset: int, length: int) -> None:
        self.zeros.append((offset, length))

    def finish(self) -> None:
        pass

    def head(self) -> bytes:
        return json.dumps([self.size, self.placed]).encode().ljust(self.head_size)


def unpacked(image: bytes, head_size: int = 4 * LEAF) -> bytes:
    size, placed = json.loads(image[:head_size])
    disk = bytearray(size + LEAF)
    for offset, host, length in placed:
        disk[offset : offset + length] = image[host : host + length]
    assert not any(disk[size:])
    return bytes(disk[:size])


class Gate:
    """Holds threads until it is opened; tells when the first one has come."""

    def __init__(self) -> None:
        self.reached, self._open = Event(), Event()

    def wait(self, *_unused: object) -> None:
        self.reached.set()
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


def naive_root(disk: bytes) -> str:
    """The digest root by the definition, read aloud."""
    leaves = [sha256(disk[at : at + LEAF]).digest() for at in range(0, len(disk), LEAF)]
    chunks = [sha256(b"".join(leaves[at : at + 64])).digest() for at in range(0, len(leaves), 64)]
    return sha256(b"".join(chunks)).hexdigest()


def naive_proof(part: bytes) -> bytes:
    return sha256(b"".join(sha256(part[at : at + LEAF]).digest() for at in range(0, len(part), LEAF))).digest()
