# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose the journal of an object is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.object_journal import ObjectJournal, Place

URL, PLACE = "s3://exports/a.iso", Place("s3://exports", "a.iso")


def test_a_journal_that_is_forgotten_takes_no_other_along(tmp_path: Path) -> None:
    first = ObjectJournal.open(tmp_path, URL)
    first.forget()
    second = ObjectJournal.open(tmp_path, URL)
    second.begin("binding", "token", 1, PLACE, "job")
    first.close()
    with pytest.raises(VmferryError) as refused:
        ObjectJournal.open(tmp_path, URL)
    assert refused.value.kind == "busy"
    begun = second.read()
    assert begun is not None
    assert begun.token == "token"
    second.close()


def test_a_journal_in_which_nothing_was_begun_leaves_no_file(tmp_path: Path) -> None:
    ObjectJournal.open(tmp_path, URL).close()
    assert not list(tmp_path.rglob("*.jsonl"))
