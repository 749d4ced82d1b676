# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was found is noted beside the export: it saves looking twice, and no failure is forgotten."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from stored_chain import SIZES, Level, StoredChain, make_chain

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import iso_time
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.verifications import VERIFIED
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.inspection import Inspection
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore

DAY = 86400.0
NEVER = {"manifest": "", "stored": "", "content": "", "boot": ""}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> StoredChain:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def chain(pristine: StoredChain, tmp_path: Path) -> StoredChain:
    shutil.copytree(pristine.store, tmp_path / "store")
    return StoredChain(tmp_path, pristine.ids, pristine.disks)


def age(chain: StoredChain, seconds: float) -> None:
    """Of all that is noted."""
    path = chain.path(2, VERIFIED)
    noted = json.loads(path.read_text())
    for one in (*noted["passed"], *noted["failed"]):
        one["verified_at"] = iso_time(time.time() - seconds)
    path.write_text(json.dumps(noted))


def damage(chain: StoredChain) -> None:
    chain.flip(0, "disk-0.qcow2", chain.place(0, "disk-0", 9))


def test_what_passed_is_told_by_export_info(chain: StoredChain) -> None:
    assert chain.told()["last_verified"] == {"at": "", "level": "", "passed": False, "problems": 0, "levels": NEVER}
    before = iso_time(time.time())
    result = chain.verify("content")
    told = chain.told()["last_verified"]
    assert (told["level"], told["passed"], told["problems"]) == ("content", True, 0)
    assert before <= told["at"] <= iso_time(time.time())
    assert told["levels"] == {**NEVER, "content": told["at"]}
    assert result["export"]["last_verified"] == told
    assert result["diff"]["before"] == {"export": chain.ids[2], "level": "", "at": "", "passed": False}
    assert result["diff"]["after"] == {"export": chain.ids[2], "level": "content", "at": told["at"], "passed": True}


def test_what_failed_is_told_as_well(chain: StoredChain) -> None:
    damage(chain)
    chain.problems("content")
    told = chain.told()["last_verified"]
    assert (told["level"], told["passed"], told["problems"]) == ("content", False, 1)
    assert told["levels"] == NEVER


@pytest.mark.parametrize(
    ("passed", "asked", "enough"),
    [
        ("manifest", "manifest", True),
        ("manifest", "stored", False),
        ("stored", "content", False),
        ("content", "content", True),
        ("content", "manifest", True),
    ],
)
def test_a_younger_pass_of_at_least_this_level_is_enough(
    chain: StoredChain, passed: Level, asked: Level, enough: bool
) -> None:
    chain.verify(passed)
    age(chain, 6 * DAY)
    again = chain.verify(asked, max_age=7 * DAY)
    assert again["changed"] is not enough
    if enough:
        assert again["diff"]["before"] == again["diff"]["after"]


@pytest.mark.parametrize("seconds", [8 * DAY, -8 * DAY])
def test_an_older_pass_is_not_enough_nor_one_from_the_future(chain: StoredChain, seconds: float) -> None:
    chain.verify("content")
    age(chain, seconds)
    assert chain.verify("content", max_age=7 * DAY)["changed"]


def test_without_an_age_every_run_looks_again(chain: StoredChain) -> None:
    assert [chain.verify("manifest")["changed"] for _turn in range(2)] == [True, True]


def test_nothing_that_passed_before_a_failure_is_enough(chain: StoredChain) -> None:
    chain.verify("stored")
    damage(chain)
    chain.problems("content")
    assert chain.problems("stored", max_age=7 * DAY)
    assert chain.told()["disks"][0]["sha256"] == ""


def test_a_failure_stays_until_its_level_passes(chain: StoredChain) -> None:
    image = chain.path(0, "disk-0.qcow2")
    sound = image.read_bytes()
    damage(chain)
    chain.problems("content")
    chain.verify("manifest")
    told = chain.told()["last_verified"]
    assert (told["level"], told["passed"]) == ("content", False)
    assert json.loads(chain.path(2, VERIFIED).read_text())["failed"][0]["damaged"]
    assert told["levels"]["manifest"]
    assert chain.verify("manifest", max_age=7 * DAY)["changed"], "while a failure stands, nothing is taken on trust"
    image.unlink()
    chain.problems("manifest")
    assert chain.told()["last_verified"]["level"] == "content", "a failure of less does not stand for it"
    image.write_bytes(sound)
    chain.verify("content")
    assert chain.told()["last_verified"]["passed"]


def test_a_glance_does_not_hide_when_more_was_proved(chain: StoredChain) -> None:
    chain.verify("content")
    age(chain, DAY)
    chain.verify("manifest")
    told = chain.told()["last_verified"]
    assert told["level"] == "manifest"
    assert iso_time(time.time() - 2 * DAY) < told["levels"]["content"] < told["at"]
    assert not chain.verify("content", max_age=2 * DAY)["changed"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"passed": 1}',
        b'{"passed": [{"level": "all", "verified_at": "2099-01-01T00:00:00Z", "job_id": ""}], "files": {}}',
        b'{"passed": [{"level": "boot", "verified_at": "tomorrow", "job_id": ""}], "files": {}}',
        b'{"passed": [], "files": {"disk-0.qcow2": "none"}}',
        b" " * (2 << 20),
    ],
)
def test_what_somebody_else_wrote_there_proves_nothing(chain: StoredChain, text: bytes) -> None:
    chain.path(2, VERIFIED).write_bytes(text)
    assert chain.told()["last_verified"]["at"] == ""
    assert chain.verify("manifest", max_age=7 * DAY)["changed"]
    assert chain.told()["last_verified"]["passed"]


def test_where_nothing_can_be_noted_it_is_verified_all_the_same(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_unused: object, **_too: object) -> None:
        raise VmferryError("permission_denied", "The bucket can only be read.")

    monkeypatch.setattr(FilesystemStore, "put", denied)
    result = chain.verify("content")
    assert (result["changed"], result["problems"]) == (False, [])
    (warning,) = result["warnings"]
    assert "could not be noted" in warning
    assert "can only be read" in warning
    damage(chain)
    assert len(chain.problems("content")) == 1


@pytest.mark.parametrize("level", ["manifest", "stored", "content"])
def test_check_mode_says_what_would_be_read_and_notes_nothing(chain: StoredChain, level: Level) -> None:
    before = snapshot(chain)
    result = chain.verify(level, check_mode=True)
    assert (result["changed"], result["findings"]) == (True, [])
    stored = [
        sum(chain.path(number, f"{disk}.qcow2").stat().st_size for number in range(3)) if level != "manifest" else 0
        for disk in SIZES
    ]
    assert [disk["bytes_to_read"] for disk in result["plan"]["disks"]] == stored
    assert result["plan"]["bytes_to_read"] == sum(stored)
    assert (result["plan"]["export"], result["plan"]["level"]) == (chain.ids[2], level)
    assert result["diff"]["after"] == {"export": chain.ids[2], "level": level, "passed": True}
    assert snapshot(chain) == before


def test_check_mode_finds_everything_that_can_be_seen_without_reading_images(chain: StoredChain) -> None:
    chain.path(0, "disk-0.qcow2").unlink()
    chain.path(1, "disk-1.digests").unlink()
    result = chain.verify("content", check_mode=True)
    assert not result["changed"]
    assert [(one["severity"], one["kind"]) for one in result["findings"]] == [("error", "checksum_mismatch")] * 2
    assert len(result["warnings"]) == 2


def test_check_mode_of_what_passed_lately_changes_nothing(chain: StoredChain) -> None:
    chain.verify("content")
    assert not chain.verify("content", check_mode=True, max_age=DAY)["changed"]


def snapshot(chain: StoredChain) -> dict[str, Any]:
    return {str(path): path.stat().st_mtime_ns for path in chain.folder.rglob("*")}


@pytest.mark.parametrize("step", ["sizes", "images"])
def test_an_export_that_is_deleted_meanwhile_is_not_told_to_be_damaged_and_nothing_is_noted(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder, look = chain.path(2, VERIFIED).parent, getattr(Inspection, step)

    def late(inspection: Inspection) -> None:
        shutil.rmtree(folder)
        look(inspection)

    monkeypatch.setattr(Inspection, step, late)
    with pytest.raises(VmferryError, match="was deleted while it was looked at") as caught:
        chain.verify("stored")
    assert caught.value.kind == "not_found"
    assert not folder.exists()
