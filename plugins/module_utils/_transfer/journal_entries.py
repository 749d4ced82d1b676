# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of a journal: entries one behind the other, each sealed with a hash over itself and all before it.

So what is torn, or stands behind something torn, or belongs to another journal, is not there.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Iterator, Tuple

from .._blocks import Part, PartReceipt
from .digests import Digests

_ENTRY = struct.Struct("<4sI")  # magic, bytes of the payload that follows; behind it the seal
_COUNTS = struct.Struct("<II?Q")  # windows, receipts, whether it is the last entry, bytes of the object
_WINDOW = struct.Struct("<QI")  # where the object ends with it, leaves
_RECEIPT = struct.Struct("<IQQ32sH")  # number, offset, size, proof, bytes of the tag that follows
_MAGIC = b"VFJ1"
_SEAL = 32


@dataclass(frozen=True)
class JournalHeader:
    """What has to be the same for an export to go on: then its image is laid out in the same places."""

    binding: str  # whatever else the caller says must not change
    size: int  # bytes, of the disk
    window: int
    part: int
    first: int  # bytes, of part 1 and of the others
    other: int
    token: str  # of the object's writer
    extents: str  # SHA-256, in hex, of the packed map

    def to_json(self) -> bytes:
        return json.dumps({"schema": 1, **asdict(self)}).encode()

    @classmethod
    def parse(cls, text: bytes) -> JournalHeader | None:
        try:
            fields = json.loads(text)
            if fields.pop("schema") != 1:
                return None
            header = cls(**fields)
            numbers = (header.size, header.window, header.part, header.first, header.other)
            words = (header.binding, header.token, header.extents)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        fits = all(isinstance(one, int) and one >= 0 for one in numbers) and all(isinstance(one, str) for one in words)
        return header if fits else None

    @property
    def seal(self) -> bytes:
        return sha256(self.to_json()).digest()


@dataclass(frozen=True)
class KnownWindow:
    """A window that was laid out: its leaves' digests, and where the object ended behind it."""

    end: int
    digests: Digests


@dataclass(frozen=True)
class Entry:
    """What was laid out, and what the store took, since the entry before. `closed`: the object has `end` bytes."""

    windows: Tuple[KnownWindow, ...]
    receipts: Tuple[PartReceipt, ...]
    closed: bool = False
    end: int = 0


def pack_entry(entry: Entry, before: bytes) -> tuple[bytes, bytes]:
    """The entry, and its seal, which the next one is sealed with."""
    pieces = [_COUNTS.pack(len(entry.windows), len(entry.receipts), entry.closed, entry.end)]
    for window in entry.windows:
        pieces += [_WINDOW.pack(window.end, len(window.digests)), _mask(window.digests)]
        pieces += [digest for digest in window.digests if digest is not None]
    for receipt in entry.receipts:
        part, tag = receipt.part, receipt.etag.encode()
        pieces += [_RECEIPT.pack(part.number, part.offset, part.size, receipt.proof, len(tag)), tag]
    payload = b"".join(pieces)
    seal = sha256(before + payload).digest()
    return _ENTRY.pack(_MAGIC, len(payload)) + payload + seal, seal


def read_entries(data: bytes, before: bytes) -> Iterator[tuple[Entry, bytes, int]]:
    """Each sound entry, its seal and where it ends; none behind the first that is not sound."""
    at = 0
    while len(data) - at >= _ENTRY.size + _SEAL:
        magic, length = _ENTRY.unpack_from(data, at)
        start, end = at + _ENTRY.size, at + _ENTRY.size + length
        payload, seal = data[start:end], data[end : end + _SEAL]
        if magic != _MAGIC or seal != sha256(before + payload).digest():
            return
        try:
            entry = _unpack(payload)
        except (struct.error, ValueError):
            return
        before, at = seal, end + _SEAL
        yield entry, seal, at


def _unpack(payload: bytes) -> Entry:
    window_count, receipt_count, closed, end = _COUNTS.unpack_from(payload)
    at = _COUNTS.size
    windows, receipts = [], []
    for _unused in range(window_count):
        window, at = _window(payload, at)
        windows.append(window)
    for _unused in range(receipt_count):
        number, offset, size, proof, tag = _RECEIPT.unpack_from(payload, at)
        at += _RECEIPT.size
        receipts.append(PartReceipt(Part(number, offset, size), proof, payload[at : at + tag].decode()))
        at += tag
    if at != len(payload):
        raise ValueError("the entry has another length than its content")
    return Entry(tuple(windows), tuple(receipts), closed, end)


def _window(payload: bytes, at: int) -> tuple[KnownWindow, int]:
    end, count = _WINDOW.unpack_from(payload, at)
    at += _WINDOW.size
    bits = -(-count // 8)
    mask = int.from_bytes(payload[at : at + bits], "little")
    at += bits
    if len(payload) < at:
        raise ValueError("the entry ends within a window")
    digests: list[bytes | None] = []
    for number in range(count):
        digests.append(payload[at : at + 32] if mask >> number & 1 else None)
        at += 32 * (mask >> number & 1)
    return KnownWindow(end, digests), at


def _mask(digests: Digests) -> bytes:
    """A bit for each leaf that is not all zeros."""
    bits = sum(1 << number for number, digest in enumerate(digests) if digest is not None)
    return bits.to_bytes(-(-len(digests) // 8), "little")
