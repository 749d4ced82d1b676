# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reads all of an image fills its SHA-256 into the manifest, and never gets into anybody's way with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from stored_chain import Level, StoredChain, TwoDisks, make_chain

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import read_manifest
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> StoredChain:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def chain(pristine: StoredChain, tmp_path: Path) -> StoredChain:
    shutil.copytree(pristine.store, tmp_path / "store")
    return StoredChain(tmp_path, pristine.ids, pristine.disks)


def files(chain: StoredChain) -> dict[Path, bytes]:
    found = {path: path.read_bytes() for path in sorted(chain.store.rglob("*")) if path.is_file()}
    return {path: data for path, data in found.items() if path.name != "verified.json"}


def checksums(chain: StoredChain, number: int = -1) -> list[str]:
    disks = json.loads(chain.path(number, MANIFEST).read_text())["disks"]
    return [disk.get("checksum", "") for disk in disks]


def sums_of_images(chain: StoredChain) -> list[str]:
    images = [chain.path(-1, f"disk-{number}.qcow2") for number in range(2)]
    return [f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}" for image in images]


def before_the_swap(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """What another run does just before the manifest is replaced."""
    real = FilesystemStore.put

    def put(self: FilesystemStore, key: str, data: bytes, **how: Any) -> Any:
        if key.endswith(MANIFEST) and how.get("if_match"):
            happens()
        return real(self, key, data, **how)

    monkeypatch.setattr(FilesystemStore, "put", put)


def test_a_pass_of_stored_fills_in_the_checksums_and_changes_nothing_else(chain: StoredChain) -> None:
    before, manifest = files(chain), chain.path(-1, MANIFEST)
    assert chain.verify("stored")["warnings"] == []
    assert checksums(chain) == sums_of_images(chain)
    assert checksums(chain, 0) == ["", ""], "only of the export that was asked for"
    after = files(chain)
    assert {path for path in after if after[path] != before.get(path)} == {manifest}
    assert set(after) == set(before), "no probe is left"
    assert read_manifest(after[manifest], "") == read_manifest(before[manifest], "")
    inode = manifest.stat().st_ino
    chain.verify("stored")
    assert manifest.stat().st_ino == inode, "it is not written twice"
    provider = TwoDisks()
    provider.disks = chain.disks
    provider.write("disk-0", 9, 3)
    chain.export(provider)
    assert chain.verify("content")["export"]["structure"] == chain.ids, "an increment stands on it as before"


@pytest.mark.parametrize("level", ["manifest", "content"])
def test_what_does_not_read_every_byte_of_the_image_fills_in_nothing(chain: StoredChain, level: Level) -> None:
    before = files(chain)
    chain.verify(level)
    assert files(chain) == before


def test_check_mode_and_damage_fill_in_nothing(chain: StoredChain) -> None:
    before = files(chain)
    chain.verify("stored", check_mode=True)
    assert files(chain) == before
    chain.flip(0, "disk-0.qcow2", 200)
    chain.problems("stored")
    assert checksums(chain) == ["", ""]


def test_a_manifest_that_somebody_changed_meanwhile_is_theirs(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = chain.path(-1, MANIFEST).read_bytes() + b"\n"

    def replaced() -> None:
        other = chain.path(-1, "other")
        other.write_bytes(theirs)
        other.replace(chain.path(-1, MANIFEST))

    before_the_swap(monkeypatch, replaced)
    result = chain.verify("stored")
    assert (result["changed"], result["warnings"]) == (True, [])
    assert chain.path(-1, MANIFEST).read_bytes() == theirs


def test_a_manifest_that_is_deleted_meanwhile_does_not_come_back(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_swap(monkeypatch, chain.path(-1, MANIFEST).unlink)
    chain.verify("stored")
    assert not chain.path(-1, MANIFEST).exists()


@pytest.mark.parametrize("mark", ["intent.json", "deleting.json"])
def test_a_manifest_that_another_run_is_at_work_on_stays_as_it_is(chain: StoredChain, mark: str) -> None:
    chain.path(-1, mark).write_text("{}")
    chain.verify("stored")
    assert checksums(chain) == ["", ""]


def test_a_store_that_does_not_replace_on_a_condition_keeps_its_manifest(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FilesystemStore.put

    def put(self: FilesystemStore, key: str, data: bytes, **how: Any) -> Any:
        how.pop("if_match", None)
        return real(self, key, data, **how)

    monkeypatch.setattr(FilesystemStore, "put", put)
    chain.verify("stored")
    assert checksums(chain) == ["", ""]
    assert chain.told()["disks"][0]["sha256"] != ""


def test_a_manifest_that_cannot_be_written_is_no_flaw_of_the_export(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise VmferryError("permission_denied", "Manifests are never replaced here.")

    before_the_swap(monkeypatch, refuse)
    assert chain.verify("stored")["warnings"] == []
    assert chain.told()["last_verified"]["passed"]
