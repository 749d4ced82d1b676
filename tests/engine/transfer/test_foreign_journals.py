# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Journals that somebody else wrote, or a machine that died: what is none is not there, and nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal_entries import JournalHeader
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_journal import VERSION, ObjectJournal

HEAD = {"version": VERSION, "binding": "b", "token": "t", "part": 5, "store": "s", "key": "k", "job": "j"}
DEEP = b"[" * 100_000


def begun(folder: Path, text: bytes) -> object:
    path = folder / "objects" / "one.jsonl"
    path.parent.mkdir()
    path.write_bytes(text)
    journal = ObjectJournal.at(path, "s3://b/k")
    try:
        return journal.begun("b", 60.0)[0]
    finally:
        journal.close()


@pytest.mark.parametrize("head", [DEEP, json.dumps({**HEAD, "part": float("inf")}).encode(), b"[]", b"1"])
def test_an_objects_journal_that_is_none_is_not_there(tmp_path: Path, head: bytes) -> None:
    assert begun(tmp_path, head) is None


@pytest.mark.parametrize("line", [DEEP, b'[Infinity, 0, 5, "00", "e"]', b'[1, 0, 5, 7, "e"]', b"[1]", b'{"job": [1]}'])
def test_a_line_of_an_objects_journal_that_is_none_is_left_out(tmp_path: Path, line: bytes) -> None:
    found = begun(tmp_path, json.dumps(HEAD).encode() + b"\n" + line)
    assert getattr(found, "receipts", None) == {}


@pytest.mark.parametrize("text", [DEEP, b"\xff", b"null", b"[1]", b'{"schema": 1}', b'{"schema": 1, "size": NaN}'])
def test_a_disks_journal_without_a_sound_header_is_not_there(text: bytes) -> None:
    assert JournalHeader.parse(text) is None
