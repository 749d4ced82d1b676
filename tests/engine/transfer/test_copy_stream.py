# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream of pieces of several disks ends up on each of them, whatever order they come in; or nothing counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from random import Random

import pytest
from disks_in_memory import MemorySink

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_stream import (
    StreamedDisk,
    StreamedRun,
    copy_stream,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

LIMITS = Limits(3, 4 * LEAF, 8 << 20, 0)


def disk(seed: int, size: int) -> bytes:
    random = Random(seed)
    return b"".join(
        bytes(LEAF) if random.random() < 0.4 else random.randbytes(LEAF) for _leaf in range(-(-size // LEAF))
    )[:size]


DISKS = [disk(1, 61 * LEAF + 4096), disk(2, 9 * LEAF), bytes(3 * LEAF)]


def runs(disks: Sequence[bytes]) -> list[StreamedRun]:
    """Shuffled, of 4 KiB to a leaf."""
    random, found = Random(5), []
    for number, data in enumerate(disks):
        at = 0
        while at < len(data):
            piece = data[at : at + 4096 * random.randrange(1, 17)]
            found.append(StreamedRun(number, at, len(piece), memoryview(piece) if any(piece) else None))
            at += len(piece)
    random.shuffle(found)
    return found


@pytest.mark.parametrize("reads_zero", [False, True])
def test_every_byte_is_on_its_disk(reads_zero: bool) -> None:
    sinks = [MemorySink(len(data) + LEAF, reads_zero) for data in DISKS]
    told = [DiskProgress(total=len(data)) for data in DISKS]
    disks = [StreamedDisk(sink, len(data), one) for sink, data, one in zip(sinks, DISKS, told)]
    copy_stream(iter(runs(DISKS)), disks, limits=LIMITS, flow=Flow())
    for sink, data, progress in zip(sinks, DISKS, told):
        assert sink.data == data + bytes(LEAF)
        assert sink.flushed == 1
        assert not (reads_zero and sink.zeroed)
        stored = sum(run.length for run in runs(DISKS) if run.data is not None and DISKS[run.disk] is data)
        assert progress.bytes_read == progress.bytes_sent == progress.bytes_settled == progress.total == stored


def test_the_disk_that_is_read_is_told() -> None:
    told: list[int] = []
    disks = [
        StreamedDisk(MemorySink(len(data)), len(data), DiskProgress(), partial(told.append, number))
        for number, data in enumerate(DISKS)
    ]
    order = [run.disk for run in runs(DISKS)]
    copy_stream(iter(runs(DISKS)), disks, limits=LIMITS, flow=Flow())
    assert told == [disk for disk, _again in groupby(order)]


def test_a_stream_that_breaks_off_is_an_error_and_no_disk_is_done() -> None:
    def broken() -> Iterator[StreamedRun]:
        yield from runs(DISKS)[:20]
        raise VmferryError("invalid_config", "It breaks off.")

    sinks = [MemorySink(len(data)) for data in DISKS]
    disks = [StreamedDisk(sink, len(data), DiskProgress()) for sink, data in zip(sinks, DISKS)]
    with pytest.raises(VmferryError, match="breaks off"):
        copy_stream(broken(), disks, limits=LIMITS, flow=Flow())
    assert not any(sink.flushed for sink in sinks)


def test_a_sink_that_fails_ends_it() -> None:
    def fail() -> None:
        raise VmferryError("no_space", "It is full.")

    disks = [StreamedDisk(MemorySink(len(data), before_write=fail), len(data), DiskProgress()) for data in DISKS]
    with pytest.raises(VmferryError, match="full"):
        copy_stream(iter(runs(DISKS)), disks, limits=LIMITS, flow=Flow())


def test_nothing_is_taken_of_a_stream_whose_target_is_too_small() -> None:
    stream = iter(runs(DISKS[:1]))
    with pytest.raises(VmferryError, match="the disk needs"):
        copy_stream(stream, [StreamedDisk(MemorySink(LEAF), LEAF + 1, DiskProgress())], limits=LIMITS, flow=Flow())
    assert next(stream) == runs(DISKS[:1])[0]
