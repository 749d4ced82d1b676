# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digest file: a JSON line, then one record for each chunk of 64 leaves that has something to say.

A record is three big-endian 64-bit words, `chunk number, stored leaves, zero leaves` (the last two are bitmaps, lowest
bit first), and the digests of the stored leaves in order, SHA-256 or, of
an encrypted export, HMAC-SHA-256. A leaf in neither bitmap is zero in a full export,
and the parent's in an increment.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import Callable, Dict, FrozenSet, Iterable, Iterator, Mapping, Tuple

from .._blocks import LEAF
from .._errors import VmferryError

FORMAT = "vmferry-digests"
VERSION = 1
ALGORITHM, KEYED = "sha256", "hmac-sha256"  # KEYED: over the leaf's number, 64 bits, and the leaf
CHUNK_LEAVES = 64
DIGEST_SIZE = 32
_WORDS = struct.Struct(">QQQ")
_HEADER_LIMIT = 4096  # bytes; the line we write has under 200
_READ_AHEAD = 65536
Read = Callable[[int], bytes]  # up to so many bytes, none at the end


@dataclass(frozen=True)
class DigestHeader:
    size: int  # bytes of the disk
    layered: bool  # an increment: what it does not say, its parent does
    algorithm: str = ALGORITHM


@dataclass(frozen=True)
class Record:
    chunk: int
    stored: Mapping[int, bytes]  # position in the chunk → digest
    zeros: FrozenSet[int]

    @property
    def leaves(self) -> Dict[int, bytes]:
        """Both kinds; b"" for zeros."""
        return {**dict.fromkeys(self.zeros, b""), **self.stored}


def digest_file_bound(data_bound: int, disk_size: int) -> int:
    """Bytes that no digest file of a full export exceeds, given how many bytes of leaves may hold data."""
    leaves, chunks = -(-data_bound // LEAF), -(-disk_size // (LEAF * CHUNK_LEAVES))
    return _HEADER_LIMIT + leaves * DIGEST_SIZE + min(leaves, chunks) * _WORDS.size


def pack_header(header: DigestHeader) -> bytes:
    line = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": header.algorithm,
        "leaf": LEAF,
        "chunk": LEAF * CHUNK_LEAVES,
        "size": header.size,
        "layered": header.layered,
    }
    return json.dumps(line).encode() + b"\n"


def pack_record(record: Record) -> bytes:
    digests = b"".join(record.stored[position] for position in sorted(record.stored))
    return _WORDS.pack(record.chunk, _bitmap(record.stored), _bitmap(record.zeros)) + digests


class DigestReader:
    """Reads a digest file once, forwards, in little memory. Trusts nothing: raises `checksum_mismatch`."""

    def __init__(self, read: Read, name: str = "the digest file", algorithm: str = ALGORITHM) -> None:
        """`algorithm`: that the manifest names."""
        self._read, self._name, self._ahead, self._algorithm = read, name, b"", algorithm
        self.header = self._read_header()
        self._leaf_count = -(-self.header.size // LEAF)

    def __iter__(self) -> Iterator[Record]:
        last = -1
        while words := self._take(_WORDS.size, may_end=True):
            chunk, stored_bits, zero_bits = _WORDS.unpack(words)
            stored, zeros = _positions(stored_bits), frozenset(_positions(zero_bits))
            here = min(CHUNK_LEAVES, self._leaf_count - chunk * CHUNK_LEAVES)
            if chunk <= last or here < 1 or (stored_bits | zero_bits) >> here or stored_bits & zero_bits:
                raise self._damaged(f"chunk {chunk} cannot follow chunk {last}" if chunk <= last else f"chunk {chunk}")
            data = self._take(DIGEST_SIZE * len(stored))
            yield Record(chunk, {p: data[n * DIGEST_SIZE : (n + 1) * DIGEST_SIZE] for n, p in enumerate(stored)}, zeros)
            last = chunk

    def _read_header(self) -> DigestHeader:
        while b"\n" not in self._ahead and len(self._ahead) < _HEADER_LIMIT:
            more = self._read(_READ_AHEAD)
            if not more:
                break
            self._ahead += more
        line, newline, self._ahead = self._ahead.partition(b"\n")
        try:
            found = json.loads(line) if newline else None
        except ValueError as error:
            raise self._damaged("its first line is not JSON") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise self._damaged("its first line is not that of a digest file")
        known = {"version": VERSION, "algorithm": self._algorithm, "leaf": LEAF, "chunk": LEAF * CHUNK_LEAVES}
        for name, value in known.items():
            if found.get(name) != value:
                raise VmferryError(
                    "unsupported",
                    f"{self._name} has {name} {found.get(name)!r}; this version reads {value!r}.",
                    "Use a newer version of the collection.",
                )
        size = found.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise self._damaged("it has no size")
        return DigestHeader(size, found.get("layered") is True, self._algorithm)

    def _take(self, count: int, may_end: bool = False) -> bytes:
        while len(self._ahead) < count:
            more = self._read(_READ_AHEAD)
            if not more:
                if may_end and not self._ahead:
                    return b""
                raise self._damaged("it ends in the middle of a record")
            self._ahead += more
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def _damaged(self, what: str) -> VmferryError:
        return VmferryError(
            "checksum_mismatch",
            f"{self._name} is damaged: {what}.",
            "The export cannot be proved; use another copy of it.",
        )


def merged_leaves(files: Iterable[DigestReader]) -> Iterator[Tuple[int, Dict[int, bytes]]]:
    """The leaves of a chain, oldest file first: each leaf as the newest file that has it says."""
    records = merge(*files, key=lambda record: record.chunk)  # stable: oldest first within a chunk
    for chunk, layers in groupby(records, key=lambda record: record.chunk):
        yield chunk, {position: digest for layer in layers for position, digest in layer.leaves.items()}


def _bitmap(positions: Iterable[int]) -> int:
    return sum(1 << position for position in positions)


def _positions(bitmap: int) -> list[int]:
    return [position for position in range(CHUNK_LEAVES) if bitmap >> position & 1]
