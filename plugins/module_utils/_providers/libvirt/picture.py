# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of a screen, as hypervisors write them: PNG (RFC 2083), or portable pixmaps of older versions."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Iterator

from ..._errors import VmferryError

PNG = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")  # of a PNG: width, height, depth, kind of colour, …, …, interlaced
CHANNELS = {2: 3, 6: 4}  # by the kind of colour: RGB, RGBA
PIXMAP = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")
LARGEST = 1 << 25  # pixels; 8K has as many
BARE = 4000  # measured on a text screen: a cursor is one pixel in 14400, a login prompt one in 1600
LOOKED_AT = 1 << 16  # pixels of a picture, spread evenly


@dataclass(frozen=True)
class Picture:
    """`pixels`: not all of them; those of two pictures of one size are of the same places."""

    size: tuple[int, int]
    pixels: tuple[bytes, ...]

    @property
    def is_bare(self) -> bool:
        """Of one colour, or with a cursor alone: a single word is more."""
        return (len(self.pixels) - Counter(self.pixels).most_common(1)[0][1]) * BARE < len(self.pixels)

    def still_has(self, other: Picture) -> bool:
        """At least half of what stands out in the other one, which is not bare."""
        if self.size != other.size:
            return False
        ground = Counter(other.pixels).most_common(1)[0][0]
        standing_out = [(mine, its) for mine, its in zip(self.pixels, other.pixels) if its != ground]
        return sum(mine == its for mine, its in standing_out) * 2 >= len(standing_out)


def read_picture(file: bytes) -> Picture:
    """Raises `unsupported` for what is neither of the two."""
    try:
        size, data, channels = _png(file) if file.startswith(PNG) else _pixmap(file)
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        text = "The hypervisor gives pictures of the screen in a format that is not known here."
        raise VmferryError("unsupported", text, "Set boot.serial or boot.agent.") from error
    count = size[0] * size[1]
    step = max(1, count // LOOKED_AT)
    step += step > 1 and size[0] % step == 0  # or only some columns would be looked at
    places = range(0, count * channels, step * channels)
    return Picture(size, tuple(data[place : place + 3] for place in places))


def _pixmap(file: bytes) -> tuple[tuple[int, int], bytes, int]:
    header = PIXMAP.match(file)
    if header is None:
        raise ValueError
    size = _checked(int(header[1]), int(header[2]))
    data = file[header.end() :]
    if len(data) < 3 * size[0] * size[1]:
        raise ValueError
    return size, data, 3


def _png(file: bytes) -> tuple[tuple[int, int], bytes, int]:
    chunks = list(_chunks(file))
    width, height, depth, kind, _compression, _filter, interlaced = HEADER.unpack(chunks[0][1])
    size, channels = _checked(width, height), CHANNELS.get(kind, 0)
    if depth != 8 or not channels or interlaced:
        raise ValueError
    stride = width * channels
    packed = b"".join(data for name, data in chunks if name == b"IDAT")
    lines = zlib.decompressobj().decompress(packed, (stride + 1) * height)
    if len(lines) != (stride + 1) * height:
        raise ValueError
    rows, above = [], bytes(stride)
    for start in range(0, len(lines), stride + 1):
        above = _unfiltered(lines[start], lines[start + 1 : start + 1 + stride], above, channels)
        rows.append(above)
    return size, b"".join(rows), channels


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG)
    while place < len(file):
        length, name = struct.unpack_from(">I4s", file, place)
        yield name, file[place + 8 : place + 8 + length]
        place += length + 12


def _unfiltered(kind: int, row: bytes, above: bytes, channels: int) -> bytes:
    if kind == 0:
        return row
    if kind == 1:
        return _summed(row, channels)
    if kind == 2:
        return bytes([(one + up) & 255 for one, up in zip(row, above)])
    if kind not in (3, 4):
        raise ValueError
    done = bytearray(channels) + row  # with a pixel of zeros before the first
    before = bytes(channels) + above
    for place in range(channels, len(done)):
        left, up = done[place - channels], before[place]
        guess = (left + up) // 2 if kind == 3 else _paeth(left, up, before[place - channels])
        done[place] = (done[place] + guess) & 255
    return bytes(done[channels:])


def _summed(row: bytes, channels: int) -> bytes:
    done = bytearray(len(row))
    for channel in range(channels):
        done[channel::channels] = bytes([total & 255 for total in accumulate(row[channel::channels])])
    return bytes(done)


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    by_left, by_up, by_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner


def _checked(width: int, height: int) -> tuple[int, int]:
    if not 0 < width * height <= LARGEST:
        raise ValueError
    return width, height
