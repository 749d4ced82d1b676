# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes that are known from the start: cut, digested and noted so that the next run can go on."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Part, PartReceipt
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import move_bytes as move_bytes_module
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.move_bytes import Cut, move_bytes
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_journal import (
    KEPT,
    ObjectJournal,
    Place,
    remove_old_journals,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.part_sizes import PartSizes
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

PART = 4 * LEAF
CUT = Cut(PartSizes(PART, PART), 3)
DATA = Random(3).randbytes(9 * LEAF + 77)


class Memory:
    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)
        self.read: list[int] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.read.append(offset)
        buffer[:] = self.data[offset : offset + len(buffer)]


class Writer:
    """Takes parts, or bytes at any offset."""

    token = "t"

    def __init__(self, any_offset: bool, size: int) -> None:
        self.any_offset = any_offset
        self.whole = bytearray(size)
        self.parts: list[int] = []
        self.written = 0

    def write_at(self, offset: int, data: memoryview) -> None:
        self.whole[offset : offset + len(data)] = data
        self.written += len(data)

    def write_part(self, part: Part, data: memoryview) -> str:
        self.write_at(part.offset, data)
        self.parts.append(part.number)
        return f"e{part.number}"


def move(data: bytes, any_offset: bool, **options: Any) -> tuple[Any, Any, DiskProgress]:
    writer, progress = Writer(any_offset, len(data)), DiskProgress("x", len(data))
    moved = move_bytes(Memory(data), writer, CUT, Flow(), progress, **options)  # type: ignore[arg-type]
    return moved, writer, progress


@pytest.mark.parametrize("any_offset", [True, False])
@pytest.mark.parametrize("size", [0, 1, LEAF, PART, PART + 1, len(DATA)])
def test_every_byte_goes_to_its_place_and_is_digested_in_order(any_offset: bool, size: int) -> None:
    seen: list[bytes] = []
    moved, writer, progress = move(DATA[:size], any_offset, seen=lambda offset, digests: seen.extend(digests))
    assert bytes(writer.whole) == DATA[:size]
    assert moved.sha256 == sha256(DATA[:size]).hexdigest()
    assert seen == [sha256(DATA[at : min(at + LEAF, size)]).digest() for at in range(0, size, LEAF)]
    assert [receipt.part.number for receipt in moved.receipts] == list(range(1, len(moved.receipts) + 1))
    assert sum(receipt.part.size for receipt in moved.receipts) == size
    assert (progress.bytes_read, progress.bytes_sent, progress.bytes_settled) == (size, size, size)


def test_zeros_are_not_written_where_nothing_was_before() -> None:
    data = bytes(2 * LEAF) + DATA[:LEAF] + bytes(3 * LEAF) + DATA[:5]
    _moved, writer, _progress = move(data, True)
    assert (bytes(writer.whole), writer.written) == (data, LEAF + 5)
    assert move(data, True, sparse=False)[1].written == len(data)
    assert move(data, False)[1].written == len(data)


def test_a_part_that_is_there_is_not_sent_and_one_that_is_another_is() -> None:
    first = move(DATA, False)[0]
    kept = {receipt.part.number: receipt for receipt in first.receipts[:2]}
    moved, writer, progress = move(DATA, False, kept=kept)
    assert (sorted(writer.parts), moved.bytes_kept, moved.sha256) == ([3], 2 * PART, first.sha256)
    assert progress.bytes_sent == len(DATA) - 2 * PART
    changed = DATA[: PART + 10] + b"!" + DATA[PART + 11 :]
    moved, writer, _progress = move(changed, False, kept=kept)
    assert (sorted(writer.parts), moved.sha256) == ([2, 3], sha256(changed).hexdigest())


def test_what_was_received_is_read_where_it_is_and_not_from_the_source() -> None:
    kept = {1: move(DATA, True)[0].receipts[0]}
    here = Memory(DATA)
    source = Memory(bytes(PART) + DATA[PART:])
    moved = move_bytes(
        source,
        Writer(True, len(DATA)),  # type: ignore[arg-type]
        CUT,
        Flow(),
        DiskProgress(),
        kept=kept,
        kept_source=here,
    )
    assert (moved.sha256, here.read, 0 in source.read) == (sha256(DATA).hexdigest(), [0], False)


def test_what_was_received_and_is_damaged_is_received_again() -> None:
    first = move(DATA, True)[0]
    kept = {receipt.part.number: receipt for receipt in first.receipts}
    here = Memory(DATA[:PART] + b"?" + DATA[PART + 1 :])
    moved, writer, progress = move(DATA, True, kept=kept, kept_source=here)
    assert (moved.sha256, moved.bytes_kept) == (first.sha256, len(DATA) - PART)
    assert (bytes(writer.whole[PART : 2 * PART]), progress.bytes_sent) == (DATA[PART : 2 * PART], PART)


def test_no_byte_is_hashed_twice_unless_somebody_wants_its_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    class Counting:
        def __init__(self, data: bytes | memoryview = b"") -> None:
            self._sum = sha256()
            self.update(data)

        def update(self, data: bytes | memoryview) -> None:
            hashed.append(len(data))
            self._sum.update(data)

        def digest(self) -> bytes:
            return self._sum.digest()

        def hexdigest(self) -> str:
            return self._sum.hexdigest()

    monkeypatch.setattr(move_bytes_module, "sha256", Counting)
    for any_offset in (True, False):
        hashed.clear()
        assert move(DATA, any_offset)[0].sha256 == sha256(DATA).hexdigest()
        assert sum(hashed) == len(DATA)
    hashed.clear()
    move(DATA, False, seen=lambda offset, digests: None)
    assert sum(hashed) == 2 * len(DATA)


def test_a_journal_is_of_one_transfer_at_a_time(tmp_path: Path) -> None:
    journal = ObjectJournal.open(tmp_path, "file:///x")
    with pytest.raises(VmferryError) as refused:
        ObjectJournal.open(tmp_path, "file:///x")
    assert refused.value.kind == "busy"
    ObjectJournal.open(tmp_path, "file:///y").close()
    journal.close()
    ObjectJournal.open(tmp_path, "file:///x").close()
    assert list((tmp_path / "transfers").iterdir()) == []


def test_what_is_torn_in_a_journal_is_not_there(tmp_path: Path) -> None:
    journal = ObjectJournal.open(tmp_path, "file:///x")
    journal.begin("b", "t", PART, Place("file:///", "x"), "job")
    for number in (1, 2):
        journal.took(PartReceipt(Part(number, (number - 1) * PART, PART), b"p" * 32, f'"{number}" X=1'))
    (path,) = (tmp_path / "transfers").iterdir()
    text = path.read_bytes()
    for length in range(len(text)):
        path.write_bytes(text[:length])
        begun, _fits = journal.begun("b", 60.0)
        assert begun is None or set(begun.receipts) <= {1, 2}
        assert begun is None or length < len(text.split(b"\n")[0]) or begun.token == "t"
    path.write_bytes(text)
    begun, fits = journal.begun("b", 60.0)
    assert begun is not None
    assert (fits, begun.known, begun.receipts[2].etag) == (True, 2 * PART, '"2" X=1')
    assert journal.begun("other", 60.0)[1] is False
    os.utime(path, (1, 1))
    assert journal.begun("b", 60.0)[1] is False
    journal.close()


def test_old_journals_go(tmp_path: Path) -> None:
    journal = ObjectJournal.open(tmp_path, "file:///x")
    journal.begin("b", "t", PART, Place("file:///", "x"), "job")
    journal.close()
    remove_old_journals(tmp_path)
    (path,) = (tmp_path / "transfers").iterdir()
    os.utime(path, (path.stat().st_mtime - KEPT - 60, path.stat().st_mtime - KEPT - 60))
    remove_old_journals(tmp_path)
    assert not path.exists()
