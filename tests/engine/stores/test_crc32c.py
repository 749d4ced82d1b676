# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksum of a whole from those of its parts, against one computed bit by bit."""

from __future__ import annotations

import random
from functools import reduce

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.crc32c import combined, decoded, encoded

CHECK = 0xE3069283  # of "123456789": https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-32-iscsi


def bit_by_bit(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _unused in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_what_is_compared_with_is_the_checksum_that_everybody_knows() -> None:
    assert bit_by_bit(b"123456789") == CHECK


@pytest.mark.parametrize("sizes", [(0, 0), (0, 9), (9, 0), (1, 1), (4, 5), (1000, 1), (1, 1000), (255, 4096)])
def test_two_runs_make_the_checksum_of_both(sizes: tuple[int, int]) -> None:
    first, second = (random.Random(size).randbytes(size) for size in sizes)
    assert combined(bit_by_bit(first), bit_by_bit(second), len(second)) == bit_by_bit(first + second)


def test_many_runs_of_many_lengths_make_the_checksum_of_all() -> None:
    source = random.Random(7)
    runs = [source.randbytes(source.randrange(0, 200)) for _unused in range(50)]
    whole = reduce(lambda crc, run: combined(crc, bit_by_bit(run), len(run)), runs, 0)
    assert whole == bit_by_bit(b"".join(runs))


def test_a_run_may_be_larger_than_any_memory() -> None:
    """Zeros behind a run, doubled: 5 TiB of them one way and the other."""
    crc, size, twice = CHECK, 0, CHECK
    for power in range(40):
        zeros = combined_zeros(1 << power)
        twice = combined(twice, zeros, 1 << power)
        size += 1 << power
    assert combined(crc, combined_zeros(size), size) == twice


def combined_zeros(size: int) -> int:
    """Of so many zero bytes, by halves."""
    if size == 1:
        return bit_by_bit(b"\0")
    half = combined_zeros(size // 2)
    both = combined(half, half, size // 2)
    return combined(both, bit_by_bit(b"\0"), 1) if size % 2 else both


def test_it_is_written_as_the_service_writes_it() -> None:
    assert encoded(CHECK) == "4waSgw=="
    assert decoded("4waSgw==") == CHECK


@pytest.mark.parametrize("text", ["", "4waSgw", "AAAA", "!!!!!!==", "4waSgwAA"])
def test_what_is_no_checksum_is_told_from_one(text: str) -> None:
    assert decoded(text) is None
