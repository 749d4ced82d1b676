# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gzip file of stored blocks: written in order with gaps, unpacked by Python's gzip, and read at any offset."""

from __future__ import annotations

import gzip
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.stored_gzip import (
    BLOCK,
    START,
    StoredGzip,
    file_bound,
    is_stored,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import ObjectInfo, Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.gzip_object import GzipObject
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.gapped_object import GappedObject

from .archives import reading

FRAME = BLOCK + 5
MIB = 1 << 20


class Rules:
    max_parts, min_part, max_part, max_object, joins_pieces = 10_000, MIB, 1 << 40, 1 << 50, False


class Collected:
    """Plays PartWriter."""

    token = ""

    def __init__(self, any_offset: bool) -> None:
        self.any_offset, self.data = any_offset, bytearray()

    def write_at(self, offset: int, data: memoryview) -> None:
        self.data.extend(bytes(max(0, offset + len(data) - len(self.data))))
        self.data[offset : offset + len(data)] = data

    def write_part(self, part: Part, data: memoryview) -> str:
        self.write_at(part.offset, data)
        return ""

    def complete(self, receipts: list[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        assert len(self.data) == size
        return ObjectInfo("x.ova.gz", size)


def written(pieces: list[tuple[bytes, bool]], any_offset: bool = True) -> bytes:
    """Each with whether it is a gap first. Gaps are filled in no order, the last of them first."""
    parts, gaps = Collected(any_offset), []
    size = sum(len(data) for data, _gap in pieces)
    file = GappedObject(parts, file_bound(size), MIB, Rules(), Flow())  # type: ignore[arg-type]
    whole = GzipObject(file)
    for data, is_gap in pieces:
        if is_gap:
            gaps.append((whole.reserve(len(data)), data))
        else:
            whole.write(data)
            whole.send(whole.take_ready())
    assert whole.size == size
    for gap, data in reversed(gaps):
        whole.fill(gap, data)
    whole.end()
    file.finish()
    assert len(parts.data) <= file_bound(size)
    return bytes(parts.data)


def refusal(data: bytes) -> str:
    with pytest.raises(VmferryError) as raised:
        StoredGzip(reading(data), len(data), "x.ova.gz")
    assert raised.value.kind == "invalid_config"
    return raised.value.message


def read(reader: StoredGzip, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    reader(offset, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("any_offset", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        [(1, False)],
        [(BLOCK, True)],
        [(3 * BLOCK + 7, True), (BLOCK - 7, False), (512, True), (MIB, False), (1, True)],
        [(BLOCK - 1, False), (2, True), (BLOCK - 1, False), (BLOCK, True), (BLOCK, False)],
    ],
    ids=["byte", "gap", "gaps-across-blocks", "gaps-at-their-edges"],
)
def test_gzip_unpacks_what_was_written_with_zeros_behind_it(sizes: list[tuple[int, bool]], any_offset: bool) -> None:
    chosen = Random(7)
    pieces = [(chosen.randbytes(size), is_gap) for size, is_gap in sizes]
    expected, data = b"".join(piece for piece, _gap in pieces), written(pieces, any_offset)
    assert gzip.decompress(data) == expected + bytes(-len(expected) % BLOCK)
    reader = StoredGzip(reading(data), len(data), "x.ova.gz")
    assert read(reader, 0, len(expected)) == expected


def test_any_run_of_it_is_read_and_nothing_but_its_blocks() -> None:
    content = Random(1).randbytes(40 * BLOCK)
    data, asked = written([(content, False)]), []

    def read_at(offset: int, buffer: memoryview) -> None:
        asked.append(len(buffer))
        buffer[:] = data[offset : offset + len(buffer)]

    reader, chosen = StoredGzip(read_at, len(data), "x.ova.gz"), Random(2)
    for size in (0, 1, 512, BLOCK, BLOCK + 1, 17 * BLOCK, 39 * BLOCK):
        offset = chosen.randrange(len(content) - size + 1)
        asked.clear()
        assert read(reader, offset, size) == content[offset : offset + size]
        assert sum(asked) <= size + BLOCK + 5 * (size // BLOCK + 2)
    for offset, size in ((-1, 1), (len(content), 1), (len(content) - 5, 6)):
        with pytest.raises(VmferryError, match="ends before"):
            read(reader, offset, size)


def test_what_is_not_whole_is_refused_and_a_block_that_is_another_one_when_it_is_read() -> None:
    content = Random(3).randbytes(3 * BLOCK)
    data = written([(content, False)])
    for damaged in (
        data[:-1],
        data[:-FRAME],
        data + b"\0",
        data[:-1] + b"\7",
        b"\0" + data[1:],
        b"",
        data[: len(START)],
    ):
        assert "not whole, or is damaged" in refusal(damaged)
    changed = bytearray(data)
    changed[len(START) + FRAME] = 1  # the second block says that it is the last
    reader = StoredGzip(reading(bytes(changed)), len(changed), "x.ova.gz")
    assert read(reader, 0, BLOCK) == content[:BLOCK]
    assert read(reader, 2 * BLOCK, BLOCK) == content[2 * BLOCK :]
    with pytest.raises(VmferryError, match="is damaged"):
        read(reader, 2 * BLOCK - 1, 1)


def test_only_what_says_so_is_taken_for_one() -> None:
    data = written([(b"x", False)])
    assert is_stored(reading(data), len(data))
    for other in (gzip.compress(bytes(100)), gzip.compress(Random(4).randbytes(BLOCK), 0), b"", START):
        assert not is_stored(reading(other), len(other))


def test_a_gap_is_filled_once_and_as_long_as_it_is() -> None:
    file = GappedObject(Collected(True), MIB, MIB, Rules(), Flow())  # type: ignore[arg-type]
    whole = GzipObject(file)
    gap = whole.reserve(10)
    with pytest.raises(VmferryError, match="9 bytes do not belong"):
        whole.fill(gap, bytes(9))
    whole.fill(gap, bytes(10))
    with pytest.raises(VmferryError, match="do not belong"):
        whole.fill(gap, bytes(10))
