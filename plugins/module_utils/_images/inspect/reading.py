# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inspection under way: bounded reads, and the objections that add up."""

from __future__ import annotations

import struct
from typing import Any, Callable, List, NoReturn, Tuple

from .words import Limits, Objection

ReadAt = Callable[[int, memoryview], None]
SECTOR = 512
LONGEST_AHEAD, NEAR = 1 << 20, 256 << 10  # bytes in one request, and between two that belong together
LONGEST_NAME = 4096  # bytes; PATH_MAX of Linux


class ReadAhead:
    """Of reads that follow each other closely, larger and larger ones are made: an image can have tens of thousands of
    small tables in a row, and a store takes its time for each request.
    """

    def __init__(self, read_at: ReadAt, size: int) -> None:
        """`size`: of the file."""
        self._read_at, self._size = read_at, size
        self._held, self._start, self._expected, self._step = bytearray(), 0, -1, 0

    def __call__(self, offset: int, buffer: memoryview) -> None:
        at, length = offset - self._start, len(buffer)
        if not 0 <= at <= len(self._held) - length:
            follows = 0 <= offset - self._expected <= NEAR and self._expected > 0
            self._step = min(max(2 * self._step, length), LONGEST_AHEAD) if follows else 0
            count = max(length, min(self._step, self._size - offset))
            if count == length:
                self._read_at(offset, buffer)
                self._expected = offset + length
                return
            held = bytearray(count)
            self._read_at(offset, memoryview(held))
            self._held, self._start, at = held, offset, 0
        buffer[:] = memoryview(self._held)[at : at + length]
        self._expected = offset + length


class Hopeless(Exception):
    """There is nothing more to be understood. The objection is noted already."""


class Examination:
    """`size`: of the file."""

    def __init__(self, read_at: ReadAt, size: int, limits: Limits, *, header_only: bool = False) -> None:
        self._read_at, self.size = ReadAhead(read_at, size), size
        self.limits, self.header_only = limits, header_only
        self.objections: List[Tuple[Objection, str]] = []
        self._walked = 0

    def object(self, name: Objection, seen: str) -> None:
        """`seen` ends a sentence that begins with "it". Each name is told once."""
        if not self.objects(name):
            self.objections.append((name, seen))

    def objects(self, name: Objection) -> bool:
        return any(known == name for known, _unused in self.objections)

    def refuse(self, name: Objection, seen: str) -> NoReturn:
        self.object(name, seen)
        raise Hopeless(seen)

    def demand(self, fits: bool, seen: str, name: Objection = "damaged") -> None:
        if not fits:
            self.refuse(name, seen)

    def read(self, offset: int, length: int, what: str) -> bytes:
        self.demand(length <= self.limits.table, f"has {what} of {length} bytes", "tables")
        if offset < 0 or offset + length > self.size:
            self.refuse("truncated", f"ends before the end of {what}")
        data = bytearray(length)
        if length:
            self._read_at(offset, memoryview(data))
        return bytes(data)

    def start(self, length: int) -> bytes:
        """The first bytes, as many as there are."""
        return self.read(0, min(length, self.size), "its start")

    def words(self, form: str, offset: int, what: str) -> Tuple[Any, ...]:
        layout = struct.Struct(form)
        return layout.unpack(self.read(offset, layout.size, what))

    def table(self, offset: int, length: int, what: str) -> bytes:
        """One of many: all of them together are bounded, too."""
        self._walked += length
        self.demand(self._walked <= self.limits.walked, "has more tables than would be read", "tables")
        return self.read(offset, length, what)

    def disk_size(self, size: int) -> int:
        if size > self.limits.virtual_size:
            self.refuse("virtual_size", f"is of a disk of {size} bytes, more than {self.limits.virtual_size}")
        return size

    def name(self, offset: int, length: int, what: str) -> str:
        self.demand(0 < length <= LONGEST_NAME, f"names {what} in {length} bytes")
        return self.read(offset, length, f"the name of {what}").decode("utf-8", "replace")


def is_power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def ceiling(number: int, unit: int) -> int:
    return -(-number // unit)
