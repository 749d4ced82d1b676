# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of what is joined, as zlib sums up all of it."""

from __future__ import annotations

import zlib
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._crc import CRC32, behind_zeros, joined


@pytest.mark.parametrize("length", [0, 1, 7, 65537, 3_000_001])
def test_sums_are_joined_as_zlib_would_sum_up_all(length: int) -> None:
    first, second = b"in front", Random(5).randbytes(length)
    assert joined(CRC32, zlib.crc32(first), zlib.crc32(second), length) == zlib.crc32(first + second)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 65536])
def test_zeros_behind_a_run_need_not_be_there(count: int) -> None:
    register = behind_zeros(CRC32, zlib.crc32(b"in front") ^ 0xFFFFFFFF, count)
    assert register ^ 0xFFFFFFFF == zlib.crc32(b"in front" + bytes(count))
