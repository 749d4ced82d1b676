# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An import of files removes its own alone: it was taken for dead, somebody used its names, its note lies."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files import import_session
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.held_note import HeldNote
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.provider import ImageProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.parts import FilesystemParts
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

from .shelf import refused
from .test_imports_to_files_again import bring, note_of
from .written import WritingShelf

NOTE = "vmferry-import-web.json"


@pytest.fixture
def shelf(writing: WritingShelf) -> WritingShelf:
    """With an image to be imported."""
    writing.raw("web.raw")
    return writing


def die(shelf: WritingShelf) -> None:
    """In the eyes of everybody else."""
    told = json.loads((shelf.written / NOTE).read_text())
    told.update(owner={}, lease_until=time.time() - 10, written_at=0)
    (shelf.written / NOTE).write_text(json.dumps(told))


def paused(monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> None:
    """Before the second file of an import appears."""
    real, asked = HeldNote.make, []

    def make(held: HeldNote, key: str, complete: Any) -> Any:
        asked.append(key)
        if len(asked) == 2:
            monkeypatch.setattr(HeldNote, "make", real)
            meanwhile()
        return real(held, key, complete)

    monkeypatch.setattr(HeldNote, "make", make)


@pytest.mark.parametrize("disk_format", ["qcow2", "ovf"])
def test_the_vm_of_whoever_took_an_import_for_dead_stays(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch, disk_format: str
) -> None:
    shelf.ova("two.ova")

    def other_host() -> None:
        die(shelf)
        assert shelf.bring(shelf.at("two.ova"), disk_format=disk_format)["changed"]
        whole.extend(shelf.files())

    whole: list[str] = []
    paused(monkeypatch, other_host)
    refused(lambda: shelf.bring(shelf.at("two.ova"), disk_format=disk_format), "conflict", "took this import of web")
    assert (len(whole), shelf.files()) == (4, whole)


def test_an_import_whose_files_were_removed_meanwhile_writes_no_more(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.ova("two.ova")

    def cleaned_up() -> None:
        die(shelf)
        bring(shelf, name="other", disk_format="ova")

    paused(monkeypatch, cleaned_up)
    refused(lambda: shelf.bring(shelf.at("two.ova")), "conflict", "took this import of web")
    assert shelf.files() == ["other.ova"]


def test_an_import_renews_no_note_but_its_own(shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[bytes] = []

    def another(session: Any, *given: Any) -> None:
        note = shelf.written / NOTE
        note.write_bytes(note.read_bytes().replace(session._note.attempt.encode(), b"00000000"))
        texts.append(note.read_bytes())
        session._flow.sleep(60)

    monkeypatch.setattr(HeldNote, "beat", 0.01)
    monkeypatch.setattr(import_session.FileImport, "take", another)
    refused(lambda: bring(shelf), "conflict", "took this import of web")
    assert (shelf.written / NOTE).read_bytes() == texts[0]


def test_a_file_that_took_the_name_of_one_that_was_removed_by_hand_stays(shelf: WritingShelf) -> None:
    note_of(shelf, lease_until=time.time() - 10)
    shutil.rmtree(shelf.written / "web")
    (shelf.written / "web").mkdir()
    (shelf.written / "web" / "web-disk1.qcow2").write_bytes(b"theirs")
    bring(shelf, name="other", disk_format="ova")
    assert shelf.files() == ["other.ova", "web/web-disk1.qcow2"]


def test_a_file_of_which_nobody_knows_who_wrote_it_stays_and_is_told_of(shelf: WritingShelf) -> None:
    disk, sums = "web/web-disk1.qcow2", "web/web.mf"
    note_of(shelf, lease_until=time.time() - 10, made={disk: "", sums: ""})
    (shelf.written / sums).unlink()
    provider = ImageProvider(open_filesystem(shelf.written.as_uri(), {}), is_path=True)
    ((name, said),) = provider.clean_up_imports()
    assert (name, disk in said, "somebody else's" in said) == ("web", True, True)
    refused(lambda: bring(shelf), "conflict", f"{disk} exists already")
    assert shelf.files() == [NOTE, disk]
    (shelf.written / disk).unlink()
    assert bring(shelf, disk_format="ova")["changed"]
    assert shelf.files() == ["web.ova"]


KEYS = ["web/web.ovf", "web/web-disk1.qcow2"]
LIES = (
    {"keys": [*KEYS, "web.ovation/precious.qcow2"], "made": {"web.ovation/precious.qcow2": ""}},
    {"keys": ["web.ova", "web.ova-backup.qcow2"], "made": {}},
    {"keys": ["web/web-disk1.qcow2"], "made": {}},
    {"keys": [*KEYS, "web/../precious.qcow2"], "made": {}},
    {"keys": KEYS, "made": {"web/theirs": ""}},
    {"keys": KEYS, "made": {KEYS[1]: 5}},
    {"keys": KEYS, "made": [KEYS[1]]},
)


@pytest.mark.parametrize("lie", LIES, ids=range(len(LIES)))
def test_a_note_that_names_what_no_import_of_its_vm_writes_is_believed_in_nothing(
    shelf: WritingShelf, lie: dict[str, Any]
) -> None:
    note_of(shelf, lease_until=time.time() - 10, **lie)
    before = shelf.files()
    assert bring(shelf, name="other", disk_format="ova")["changed"]
    refused(lambda: bring(shelf), "invalid_config", NOTE)
    assert shelf.files() == ["other.ova", *before]


@pytest.mark.parametrize("disk_format", ["ova", "ovf", "qcow2"])
def test_what_is_in_place_although_that_failed_goes_too(
    shelf: WritingShelf, monkeypatch: pytest.MonkeyPatch, disk_format: str
) -> None:
    place, fsync, armed = FilesystemParts._place, os.fsync, []

    def placed(parts: Any, *given: Any) -> None:
        place(parts, *given)
        armed.extend([1] * parts._key.endswith((".ova", "disk1.vmdk", "disk1.qcow2")))

    def failing(descriptor: int) -> None:
        if armed and armed.pop():
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(FilesystemParts, "_place", placed)
        patched.setattr(os, "fsync", failing)
        refused(
            lambda: bring(shelf, disk_format=disk_format, transfer={"max_retries": 0}), "internal", "input/output error"
        )
    assert shelf.files() == []
    assert bring(shelf, disk_format=disk_format)["changed"]


def test_what_was_sent_of_a_note_is_removed_once_nobody_can_be_at_it(shelf: WritingShelf) -> None:
    old, new = (shelf.written / f"{NOTE}.{number:016x}.part" for number in (1, 2))
    for path in (old, new):
        path.write_bytes(b"{")
    os.utime(old, (time.time() - 3600,) * 2)
    bring(shelf, name="other", disk_format="ova")
    assert shelf.files() == ["other.ova", new.name]


@pytest.mark.parametrize("pattern", ["*/*.qcow2", "w*/web-disk1.qcow2", "we?/*"])
def test_a_pattern_stands_for_nothing_that_is_half_written(shelf: WritingShelf, pattern: str) -> None:
    note_of(shelf)
    refused(lambda: shelf.told(pattern), "busy", "is being written by an import, or by one that died")


def test_a_vm_whose_name_leaves_no_room_for_a_note_is_found_by_it(shelf: WritingShelf) -> None:
    name = "x" * 185
    shelf.raw(f"{name}.raw")
    assert [vm["name"] for vm in shelf.vms(f"{name}.raw")] == [name]
