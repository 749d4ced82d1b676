# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage to good bytes, as hypothesis draws and shrinks it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

FORMS = (">Q", "<Q", ">I", "<I", ">H", "<H", "B")
NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    512,
    4096,
    65536,
    1 << 20,
    1 << 31,
    (1 << 32) - 1,
    1 << 50,
    1 << 62,
    1 << 63,
)
TEXTS = ("", "/etc/shadow", "../x", 'json:{"driver":"nbd"}', "nbd://h/x", "\0", "\ud800", "9" * 400, "x" * 5000, "…")
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 1 << 64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    [], {}, [[]], [{}], {"": None}, *TEXTS,
)  # fmt: skip
Patch = tuple[str, int, int]


def patches(length: int, places: Sequence[int] = ()) -> st.SearchStrategy[list[Patch]]:
    """Numbers put over bytes: at `places`, where a format's tables are, in its head, at its end, or anywhere."""
    near = st.sampled_from(places or (0,)).flatmap(lambda at: st.integers(at, at + 64))
    anywhere = (
        st.integers(0, min(512, length)) | near | st.integers(max(0, length - 1536), length) | st.integers(0, length)
    )
    values = st.sampled_from(NUMBERS) | st.integers(0, 1 << 20) | st.just(length) | st.integers(0, (1 << 64) - 1)
    return st.lists(st.tuples(st.sampled_from(FORMS), anywhere, values), max_size=6)


def patched(data: bytes, changes: Sequence[Patch]) -> bytes:
    changed = bytearray(data)
    for form, at, value in changes:
        size = struct.calcsize(form)
        if at + size <= len(changed):
            struct.pack_into(form, changed, at, value & ((1 << 8 * size) - 1))
    return bytes(changed)


def cuts(length: int) -> st.SearchStrategy[int]:
    """How much is left. Most are whole: what is cut off is soon told."""
    return st.just(length) | st.just(length) | st.integers(0, length)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], places: Sequence[int] = ()) -> bytes:
    data = draw(st.sampled_from(seeds))
    return patched(data, draw(patches(len(data), places)))[: draw(cuts(len(data)))]


@st.composite
def damaged_json(draw: st.DrawFn, seed: bytes) -> bytes:
    """A document with values of other kinds, without some, or of which the bytes are damaged."""
    document = json.loads(seed)
    for _unused in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_slots(document))))
        kind = draw(st.sampled_from(("put", "put", "remove", "deepen")))
        if kind == "put":
            scalars = st.sampled_from(SCALARS)
            drawn = draw(scalars | scalars | st.integers(-(1 << 65), 1 << 65) | st.text(max_size=20))
            holder[key] = deepcopy(drawn)
        elif kind == "remove":
            del holder[key]
        else:
            holder[key] = _deep(holder[key], draw(st.sampled_from((2, 40, 500))))
        if not list(_slots(document)):
            break
    text = json.dumps(document).encode()
    return patched(text, draw(patches(len(text)))) if draw(st.integers(0, 4)) == 0 else text


def _slots(value: Any) -> Any:
    """Every place in a document, as what holds it and the key in that."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _slots(value[key])


def _deep(value: Any, levels: int) -> Any:
    for _unused in range(levels):
        value = [value]
    return value
