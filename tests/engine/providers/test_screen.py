# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a screen is its guest's own, and what is read of its pictures."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.picture import Picture, read_picture
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.screen import Screen

BLACK, GREY = b"\0\0\0", b"\xaa\xaa\xaa"
WIDTH, HEIGHT = 400, 40  # of which a word is enough and a dot is not
NAUGHT = b"\0" * 3


def pixmap(rows: Iterable[str]) -> bytes:
    """A picture with a grey pixel for each letter."""
    lines = [row.ljust(WIDTH) for row in rows]
    lines += [" " * WIDTH] * (HEIGHT - len(lines))
    pixels = b"".join(BLACK if letter == " " else GREY for line in lines for letter in line)
    return b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT) + pixels


WAITING = pixmap(["", "", "", "display not active"])
EMPTY = pixmap([])
CURSOR = pixmap(["_"])
FIRMWARE = pixmap(["SeaBIOS (version 1.16.2)"])
BOOTING = pixmap(["SeaBIOS (version 1.16.2)", "", "Booting from Hard Disk..."])
FAILED = pixmap(["SeaBIOS (version 1.16.2)", "", "Booting from Hard Disk...", "No bootable device."])
LOGIN = pixmap(["", "", "", "", "login: "])
DESKTOP = b"P6\n64 48\n255\n" + bytes(range(256)) * 36


def verdicts(*shown: bytes) -> list[bool]:
    left = iter([WAITING, *shown])
    screen = Screen(lambda: next(left))
    return [screen.is_its_own() for _picture in shown]


def test_a_screen_that_was_cleared_and_written_to_is_the_guests_own_at_the_second_look() -> None:
    assert verdicts(WAITING, EMPTY, CURSOR, FIRMWARE, BOOTING, EMPTY, LOGIN, LOGIN) == [False] * 7 + [True]
    assert verdicts(FIRMWARE, DESKTOP, LOGIN) == [False, False, True]


@pytest.mark.parametrize("shown", [FIRMWARE, BOOTING, FAILED, EMPTY, CURSOR, WAITING])
def test_what_a_firmware_shows_for_ever_is_not(shown: bytes) -> None:
    assert not any(verdicts(CURSOR, FIRMWARE, *[shown] * 9))


def test_a_picture_between_two_modes_is_not_enough() -> None:
    assert not any(verdicts(FIRMWARE, LOGIN, EMPTY, LOGIN, FIRMWARE, LOGIN, WAITING))


def filtered(kind: int, row: bytes, above: bytes, channels: int) -> bytes:
    """As RFC 2083 has it, from the side of the writer."""
    found = bytearray()
    for place, value in enumerate(row):
        left = row[place - channels] if place >= channels else 0
        up, corner = above[place], above[place - channels] if place >= channels else 0
        nearest = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
        guess = (0, left, up, (left + up) // 2, nearest)[kind]
        found.append((value - guess) % 256)
    return bytes([kind]) + bytes(found)


def png(rows: list[bytes], channels: int, kind: Callable[[int], int]) -> bytes:
    above, packed = bytes(len(rows[0])), b""
    for number, row in enumerate(rows):
        packed += filtered(kind(number), row, above, channels)
        above = row
    header = struct.pack(">IIBBBBB", len(rows[0]) // channels, len(rows), 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"IDAT", zlib.compress(packed)[:9]),
        (b"IDAT", zlib.compress(packed)[9:]),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, None])
def test_a_png_is_read_whatever_filter_its_rows_went_through(kind: int | None, channels: int) -> None:
    chance = random.Random(7)
    rows = [chance.randbytes(17 * channels) for _row in range(11)]
    file = png(rows, channels, lambda number: number % 5 if kind is None else kind)
    pixels = b"".join(rows)
    wanted = tuple(pixels[place : place + 3] for place in range(0, len(pixels), channels))
    assert read_picture(file) == Picture((17, 11), wanted)


def test_of_a_large_picture_pixels_of_all_columns_are_looked_at() -> None:
    width, height = 1920, 1080
    row = b"".join(struct.pack(">I", column)[1:] for column in range(width))
    found = read_picture(b"P6 %d %d 255\n" % (width, height) + row * height)
    assert 1 << 15 < len(found.pixels) < 1 << 17
    assert len(set(found.pixels)) > width // 2


ONE_PIXEL = png([NAUGHT], 3, lambda _row: 0)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"GIF89a",
        FIRMWARE[:-1],
        b"P6 0 7 255\n",
        ONE_PIXEL[:8],
        ONE_PIXEL[:33],
        ONE_PIXEL.replace(b"IDAT", b"tEXt"),
    ],
)
def test_another_format_is_told(file: bytes) -> None:
    with pytest.raises(VmferryError) as caught:
        read_picture(file)
    assert caught.value.kind == "unsupported"
