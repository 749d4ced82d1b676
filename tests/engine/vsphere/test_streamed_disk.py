# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is sent as one stream is read by several threads as if it could be read anywhere, and never wrongly."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import streamed_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.streamed_disk import StreamedDisk

from ..images.disks import mixed
from ..images.other_formats import written

WINDOW = 4 * LEAF
COUNT = 24  # windows
SIZE = COUNT * WINDOW - 512
RUNS = [
    Extent(0, 3 * LEAF, "data"),
    Extent(3 * LEAF, 6 * LEAF, "zero"),
    Extent(9 * LEAF, 40 * LEAF, "data"),
    Extent(49 * LEAF, 20 * LEAF, "zero"),
    Extent(69 * LEAF, SIZE - 69 * LEAF, "data"),
]


class Stream:
    """What a server sends; `met` is asked before each read, with how much was sent."""

    def __init__(self, data: bytes, met: Callable[[int], object] = lambda _sent: None) -> None:
        self._file, self._met, self.size, self.closed = io.BytesIO(data), met, 0, threading.Event()
        self._sum = hashlib.sha1()

    @property
    def sha1(self) -> str:
        return self._sum.hexdigest()

    def read(self, count: int) -> bytes:
        self._met(self.size)
        if self.closed.is_set():
            raise VmferryError("cancelled", "closed")
        found = self._file.read(min(count, 30_000))
        self._sum.update(found)
        self.size += len(found)
        return found

    def interrupt(self) -> None:
        raise AssertionError("nobody asked for it")

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written("vmdk", tmp_path_factory.mktemp("stream") / "image", SIZE, RUNS, mixed).read_bytes()


@pytest.fixture(scope="module")
def disk(image: bytes) -> bytes:
    found = bytearray(-(-SIZE // 512) * 512)
    for run in RUNS:
        if run.kind == "data":
            found[run.offset : run.end] = mixed(run.offset, run.length, 1)
    return bytes(found)


def source(data: bytes, **options: Any) -> StreamedDisk:
    return StreamedDisk(SIZE, lambda: Stream(data, **options), "scsi0:0 of web")


def window(of: StreamedDisk, number: int, count: int = 1) -> bytes:
    start = number * WINDOW
    buffer = bytearray(b"\xee" * min(count * WINDOW, SIZE - start))
    half = len(buffer) // 2 // LEAF * LEAF
    view = memoryview(buffer)
    of.read_into([(start, view[:half]), (start + half, view[half:])])
    return bytes(buffer)


def at(disk: bytes, number: int, count: int = 1) -> bytes:
    return disk[number * WINDOW : (number + count) * WINDOW]


def test_disk_is_read_in_order_and_the_stream_to_its_end(image: bytes, disk: bytes) -> None:
    opened = source(image)
    assert list(opened.extents()) == [Extent(0, SIZE, "data")]
    assert opened.proof is None
    assert b"".join(window(opened, number) for number in range(COUNT)) == disk
    assert opened.proof == (hashlib.sha1(image).hexdigest(), len(image))


def test_nothing_is_asked_for_before_it_is_read(image: bytes) -> None:
    asked = []
    opened = StreamedDisk(SIZE, lambda: asked.append(1) or Stream(image), "scsi0:0 of web")  # type: ignore[func-returns-value]
    list(opened.extents())
    opened.finish()
    assert asked == []
    window(opened, 0)
    assert asked == [1]


@pytest.mark.parametrize("seed", range(4))
def test_threads_may_come_a_few_windows_too_early(image: bytes, disk: bytes, seed: int) -> None:
    opened, random = source(image), Random(seed)
    for first in range(0, COUNT, 6):
        numbers = list(range(first, first + 6))
        random.shuffle(numbers)
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda number: window(opened, number), numbers)) == [at(disk, one) for one in numbers]
    assert opened._passes == 1
    assert opened._left_bytes == 0


def test_what_a_run_skips_takes_little_memory(image: bytes, disk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_disk, "LEFT_FOR_OTHERS", 3 * LEAF)
    opened = source(image)
    assert window(opened, 20) == at(disk, 20)
    assert opened._left_bytes <= 3 * LEAF
    assert window(opened, 22) == at(disk, 22)
    assert opened._passes == 1


def test_what_was_dropped_or_taken_is_read_from_the_beginning_again(
    image: bytes, disk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_disk, "LEFT_FOR_OTHERS", 3 * LEAF)
    opened = source(image)
    assert window(opened, 20) == at(disk, 20)
    assert window(opened, 3) == at(disk, 3)
    assert window(opened, 4) == at(disk, 4)
    assert window(opened, 4) == at(disk, 4)
    assert opened._passes == 3
    assert window(opened, 0) == at(disk, 0)
    with pytest.raises(VmferryError, match="in order only") as often:
        window(opened, 0)
    assert often.value.kind == "internal"


def test_parts_of_a_grain_may_be_read_more_than_once(image: bytes, disk: bytes) -> None:
    opened = source(image)
    for start, length in [(0, 512), (100, LEAF), (0, 512), (8 * LEAF + 5, 2 * LEAF)]:
        buffer = bytearray(length)
        opened.read_into([(start, memoryview(buffer))])
        assert bytes(buffer) == disk[start : start + length]
    assert opened._passes == 1


@pytest.mark.parametrize("cut", [100, 512, 70_000, -70_000, -2048, -1100, -512])
def test_stream_that_ends_early_is_never_a_disk(image: bytes, disk: bytes, cut: int) -> None:
    opened = source(image[:cut])
    read: list[bytes] = []
    with pytest.raises(VmferryError) as broken:
        read.extend(window(opened, number) for number in range(COUNT))
    assert read == [at(disk, number) for number in range(len(read))]
    assert (broken.value.kind, broken.value.retryable) == ("network", True)
    for again in (lambda: window(opened, 23), lambda: window(opened, 0), opened.finish):
        with pytest.raises(VmferryError) as still:
            again()
        assert still.value.message == broken.value.message
    assert opened.proof is None


def test_stream_that_breaks_in_a_way_nobody_knows_is_never_zeros(image: bytes, disk: bytes) -> None:
    def met(sent: int) -> None:
        if sent > len(image) // 2:
            raise MemoryError

    opened = source(image, met=met)
    with pytest.raises(MemoryError):
        all(window(opened, number) for number in range(COUNT))
    for again in (lambda: window(opened, 23), opened.finish):
        with pytest.raises(VmferryError, match="MemoryError"):
            again()
    assert opened.proof is None


def test_stream_of_another_size_is_refused(tmp_path: Path) -> None:
    other = written("vmdk", tmp_path / "image", SIZE + LEAF, [Extent(0, SIZE + LEAF, "data")]).read_bytes()
    with pytest.raises(VmferryError, match="vSphere sends one of") as refused:
        window(source(other), 0)
    assert refused.value.kind == "conflict"


def test_grain_that_was_damaged_is_told(image: bytes) -> None:
    damaged = bytearray(image)
    damaged[len(image) // 2 : len(image) // 2 + 100] = bytes(100)
    opened = source(bytes(damaged))
    with pytest.raises(VmferryError) as told:
        all(window(opened, number) for number in range(COUNT))
    assert told.value.kind in ("checksum_mismatch", "network")


def test_what_nobody_read_is_read_to_its_end_before_it_counts(image: bytes) -> None:
    opened = source(image[:-512])
    window(opened, 0)
    with pytest.raises(VmferryError) as broken:
        opened.finish()
    assert broken.value.kind == "network"
    whole = source(image)
    window(whole, 0)
    whole.finish()
    assert whole.proof == (hashlib.sha1(image).hexdigest(), len(image))


def test_closing_wakes_who_reads_and_who_waits(image: bytes) -> None:
    waits, opened = threading.Event(), []

    def begin() -> Stream:
        def met(sent: int) -> None:
            if sent > len(image) // 2:
                waits.set()
                assert stream.closed.wait(60)

        stream = Stream(image, met)
        return stream

    opened.append(StreamedDisk(SIZE, begin, "scsi0:0 of web"))
    errors: list[VmferryError] = []

    def read(number: int) -> None:
        try:
            window(opened[0], number)
        except VmferryError as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in (23, 22, 21)]
    threads[0].start()
    assert waits.wait(60)
    for thread in threads[1:]:
        thread.start()
    opened[0].close()
    opened[0].close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [error.kind for error in errors] == ["cancelled"] * 3


def test_what_is_beyond_the_disk_is_refused(image: bytes) -> None:
    with pytest.raises(VmferryError, match="beyond its disk"):
        source(image).read_into([(SIZE - 10, memoryview(bytearray(20)))])
