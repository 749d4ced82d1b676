# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal that is damaged, gone or wrong costs bytes, and neither a run nor the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal_entries import (
    JournalHeader,
    KnownWindow,
    pack_entry,
    read_entries,
)

from .exports import MIB, Bench, compare
from .test_resume import kill


def lie(journal: Path) -> None:
    """With a sound seal: one digest is another's."""
    header = JournalHeader.parse((journal / "disk-0.journal").read_bytes())
    assert header is not None
    chapter, seal, packed = journal / "disk-0.journal-0", header.seal, b""
    for entry, _unused, _unused_end in read_entries(chapter.read_bytes(), header.seal):
        wrong = [KnownWindow(first.end, (bytes(32), *first.digests[1:])) for first in entry.windows[:1]]
        data, seal = pack_entry(replace(entry, windows=(*wrong, *entry.windows[1:])), seal)
        packed += data
    chapter.write_bytes(packed)


def cut(journal: Path) -> None:
    chapter = journal / "disk-0.journal-0"
    chapter.write_bytes(chapter.read_bytes()[:-1])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a digest is wrong": lie,
    "its last byte is gone": cut,
    "it has another map": lambda journal: (journal / "disk-0.extents").write_bytes(b"\0"),
    "nobody can read what was begun": lambda journal: (journal / "attempt.json").write_bytes(b"{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_cannot_be_gone_by_is_not_and_the_export_is_made_in_the_same_run(
    bench: Bench, off: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = bench.rig.directory / f"{off}.qcow2"
    kill(bench, monkeypatch, "journal-closed", vm=off)
    (journal,) = (bench.folder / "store").rglob("journal")
    DAMAGES[damage](journal)
    ahead = bench.export(off, check_mode=True)
    result = bench.export(off)
    resumed = result["resumed"]
    goes_on = damage in ("its last byte is gone", "it has another map")
    told = [finding["message"] for finding in ahead["findings"] if "unfinished export" in finding["message"]]
    assert len(told) == 1
    assert ("would go on" in told[0]) == (goes_on or damage == "a digest is wrong"), "which only shows later"
    assert (resumed["export"] == result["export"]["id"]) == goes_on
    if damage == "its last byte is gone":
        assert 0 < resumed["bytes_sent"] <= 20 * MIB
    if not goes_on:
        assert resumed["reason"]
    compare(bench.stored(result), "qcow2", disk, "qcow2")
    assert bench.import_("back", placement={"disk_format": "qcow2"})["changed"], "its digests are true"
    bench.rig.connect().lookupByName("back").undefine()
    bench.assert_nothing_left(off, runs=False)


@pytest.mark.parametrize("name", ["vm.json", "native/domain.xml"])
def test_where_a_small_file_of_what_was_left_is_damaged_or_gone_the_export_begins_anew(
    bench: Bench, off: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(bench, monkeypatch, "journal-written:1", vm=off)
    (found,) = (bench.folder / "store").glob(f"*/*/{name}")
    if name == "vm.json":
        found.unlink()
    else:
        found.write_bytes(found.read_bytes()[:-1] + b"?")
    made = bench.export(off)
    assert "a small file of it is damaged or gone" in made["resumed"]["reason"]
    assert bench.verify(export=made["export"]["id"])["problems"] == []
    bench.assert_nothing_left(off, runs=False)
