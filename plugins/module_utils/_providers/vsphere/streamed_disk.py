# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is sent as one stream, read as if it were read in any order.

An export reads a disk in windows, in order, by several threads, so that one may come a few windows too early. Whoever
comes reads the stream as far as he needs, and leaves the grains of others where they find them, packed as they came:
they are unpacked by whoever takes them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from contextlib import contextmanager
from threading import Lock
from typing import Callable, Iterator, List, Optional, Protocol, Sequence, Tuple

from ..._blocks import LEAF, Extent, Piece
from ..._errors import VmferryError
from ..._images.mapped import check_bounds
from ..._images.vmdk.grains import PackedGrain, VmdkStream, inflated

LEFT_FOR_OTHERS = 24 << 20  # bytes of packed grains; what a run that goes on with another skips is not asked for at all
_AGAIN = "Run the task again."
PASSES = 4  # from the beginning, at the most: an increment that turns out to be impossible is read again as a full one


class ByteStream(Protocol):
    """As `DiskStream` has them."""

    @property
    def size(self) -> int: ...

    @property
    def sha1(self) -> str: ...

    def read(self, count: int) -> bytes: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class StreamedDisk:
    """Plays BlockSource. `begin` begins a stream, once it is read; `size`: of the disk."""

    def __init__(self, size: int, begin: Callable[[], ByteStream], where: str) -> None:
        self.size, self.where, self._begin = size, where, begin
        self._reading = Lock()  # the stream, and all that is known of it
        self._stream: Optional[ByteStream] = None
        self._grains: Iterator[PackedGrain] = iter(())
        self._next: Optional[PackedGrain] = None  # read already, and behind all that was asked for
        self._left: OrderedDict[int, memoryview] = OrderedDict()  # by offset, for those who come late
        self._left_bytes = 0
        self._taken = _Ranges()
        self._passes = 0
        self._closed = False
        self._failed: Optional[VmferryError] = None
        self.passed = 0  # bytes of the disk up to which the stream was read
        self.is_whole = False  # it was read to its end, and that is the disk's

    def extents(self) -> Iterator[Extent]:
        """Nobody knows before where there is data."""
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        check_bounds(pieces, self.size, self.where)
        for offset, buffer in pieces:
            if buffer:
                self._fill(offset, buffer)

    def close(self) -> None:
        self._closed = True
        stream = self._stream
        if stream is not None:
            stream.close()

    def interrupt(self) -> None:
        """Whoever waits for the stream looks whether it can still come."""
        stream = self._stream
        if stream is not None:
            stream.interrupt()

    def finish(self) -> None:
        """Reads on to the end, if anything was read at all: only there it tells that it was whole."""
        with self._reading:
            self._refuse_closed()
            if self._stream is not None and not self.is_whole:
                self._left.clear()
                self._left_bytes = 0
                self._read_to(self.size, keep=False)

    @property
    def proof(self) -> Optional[Tuple[str, int]]:
        """The SHA-1 in hex and the bytes of the stream that was read to its end."""
        return (self._stream.sha1, self._stream.size) if self._stream is not None and self.is_whole else None

    def _fill(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        at = offset
        for start, packed in self._take(offset, end):
            grain_end = min(start + LEAF, self.size)
            grain = inflated(packed)
            if grain is None or len(grain) < grain_end - start:
                text = f"{self.where} has a grain at byte {start} that cannot be unpacked."
                raise VmferryError("checksum_mismatch", text, "It was damaged on its way. Run the task again.")
            begin, stop = max(start, offset), min(grain_end, end)
            buffer[at - offset : begin - offset] = bytes(begin - at)
            buffer[begin - offset : stop - offset] = grain[begin - start : stop - start]
            at = stop
        buffer[at - offset :] = bytes(end - at)

    def _take(self, offset: int, end: int) -> List[Tuple[int, memoryview]]:
        """The grains in which anything of this range lies, in order."""
        with self._reading:
            self._refuse_closed()
            if self._stream is None or self._taken.touches(offset, end):
                self._start_over()
            self._read_to(end, keep=True)
            first = offset // LEAF * LEAF
            whole = offset == first and (end % LEAF == 0 or end == self.size)
            found = []
            for start in range(first, end, LEAF):
                packed = self._left.get(start)
                if packed is not None:
                    found.append((start, packed))
                    if whole:
                        del self._left[start]
                        self._left_bytes -= len(packed)
            if whole:
                self._taken.add(offset, end)
            return found

    def _start_over(self) -> None:
        self._passes += 1
        if self._passes > PASSES:
            raise VmferryError("internal", f"{self.where} can be read in order only, and {PASSES} times at the most.")
        if self._stream is not None:
            self._stream.close()
        self._left.clear()
        self._left_bytes, self.passed, self.is_whole = 0, 0, False
        self._taken, self._next = _Ranges(), None
        with self._told():
            self._stream = stream = self._begin()
        self._refuse_closed()  # whoever closes meanwhile has not seen it
        with self._told():
            image = VmdkStream(stream.read, self.where)
            if image.size != self.size:
                text = f"{self.where} has {self.size} bytes, and vSphere sends one of {image.size}."
                raise VmferryError("conflict", text, "Run the task again.", retryable=True)
            self._grains = iter(image)

    def _read_to(self, end: int, keep: bool) -> None:
        """Until all grains before `end` are here; at the disk's end to that of the stream."""
        with self._told():
            while not self.is_whole and (self.passed < end or end == self.size):
                grain = self._next or next(self._grains, None)
                self._next = None
                if grain is None:
                    self.passed, self.is_whole = self.size, True
                elif grain.offset >= end and end < self.size:
                    self._next, self.passed = grain, end
                else:
                    self.passed = min(grain.offset + LEAF, self.size)
                    if keep:
                        self._left[grain.offset] = grain.packed
                        self._left_bytes += len(grain.packed)
                        self._make_room()

    def _make_room(self) -> None:
        """What is dropped makes whoever asks for it start over, which nobody does in an export."""
        while self._left_bytes > LEFT_FOR_OTHERS:
            start, packed = self._left.popitem(last=False)
            self._left_bytes -= len(packed)
            self._taken.add(start, min(start + LEAF, self.size))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A stream that only ended too early is no disk that is wrong."""
        try:
            yield
        except VmferryError as error:
            self._failed = self._explained(error)  # nobody reads on behind it, or what is missing would be zeros
            raise self._failed from error
        except BaseException as error:
            self._failed = VmferryError("internal", f"{self.where} broke off: {type(error).__name__}.", _AGAIN)
            raise

    def _explained(self, error: VmferryError) -> VmferryError:
        if self._closed:
            return VmferryError("cancelled", f"{self.where} was closed.")
        if error.kind == "invalid_config":
            hint = "The line broke, or another program sends it. Run the task again."
            return VmferryError("network", error.message, hint)
        return VmferryError(error.kind, error.message, error.hint, retryable=error.retryable)

    def _refuse_closed(self) -> None:
        if self._failed is not None:
            raise self._failed
        if self._closed:
            if self._stream is not None:
                self._stream.close()
            raise VmferryError("cancelled", f"{self.where} was closed.")


class _Ranges:
    """Of the disk; neighbours are one."""

    def __init__(self) -> None:
        self._starts: List[int] = []
        self._ends: List[int] = []

    def touches(self, start: int, end: int) -> bool:
        at = bisect_left(self._ends, start + 1)
        return at < len(self._starts) and self._starts[at] < end

    def add(self, start: int, end: int) -> None:
        first = bisect_left(self._ends, start)
        last = first
        while last < len(self._starts) and self._starts[last] <= end:
            start, end = min(start, self._starts[last]), max(end, self._ends[last])
            last += 1
        self._starts[first:last], self._ends[first:last] = [start], [end]
