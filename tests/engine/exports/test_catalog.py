# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog finds what is committed, by whatever name, and never passes over what is broken."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import Machine
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import vm_folder
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .samples import UUID, disk, manifest

OTHER = "99999999-3c4d-4e5f-8a9b-0c1d2e3f4a5b"
OLD, NEW = "20261120T063000Z-aaaaaaaa", "20261121T063000Z-bbbbbbbb"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def catalog(root: Path) -> Catalog:
    root.mkdir()
    return Catalog(open_store(f"file://{root}", {}))


def commit(root: Path, export_id: str, *, vm: str = "web01", uuid: str = UUID, name: str = "", **changes: Any) -> Path:
    folder = root / vm_folder(vm, uuid) / export_id
    folder.mkdir(parents=True)
    said = {"taken_at": 1_795_156_200.0 if export_id == OLD else 1_795_242_600.0, "name": name, **changes}
    made = manifest(export_id, machine=Machine("libvirt", uuid, vm, 1, 1024, "bios"), **said)
    (folder / "manifest.json").write_bytes(made.to_json(str))
    return folder


def test_the_newest_is_found_when_none_is_named(root: Path, catalog: Catalog) -> None:
    commit(root, OLD)
    commit(root, NEW)
    assert catalog.find().manifest.export_id == NEW
    assert [entry.manifest.export_id for entry in catalog.of_vm(UUID)] == [OLD, NEW]


def on(parent: str) -> dict[str, Any]:
    return {"mode": "incremental", "parent": parent, "disks": (replace(disk(), parent_root="ab" * 32),)}


def test_what_stands_on_an_export_is_newer_whatever_the_clocks_said(root: Path, catalog: Catalog) -> None:
    commit(root, NEW)
    commit(root, OLD, **on(NEW))
    assert catalog.find().manifest.export_id == OLD


def test_an_export_from_the_future_is_not_taken_for_the_newest_in_silence(root: Path, catalog: Catalog) -> None:
    commit(root, OLD)
    assert catalog.find().manifest.export_id == OLD
    commit(root, NEW, taken_at=time.time() + 3600)
    with pytest.raises(VmferryError, match=f"which export is the newest: {NEW} of web01") as asked:
        catalog.find(vm="web01")
    assert asked.value.kind == "conflict"
    assert catalog.find(NEW).manifest.export_id == NEW


def test_an_export_from_the_future_is_found_where_it_is_the_only_one_or_hardly_ahead(
    root: Path, catalog: Catalog
) -> None:
    only = commit(root, NEW, taken_at=time.time() + 3600)
    assert catalog.find().manifest.export_id == NEW
    shutil.rmtree(only)
    commit(root, NEW, taken_at=time.time() + 60)
    commit(root, OLD)
    assert catalog.find().manifest.export_id == NEW, "the clocks of two hosts differ by a minute"


@pytest.mark.parametrize("wanted", [OLD, "before"])
def test_an_export_is_found_by_id_and_by_name(root: Path, catalog: Catalog, wanted: str) -> None:
    commit(root, OLD, name="before")
    commit(root, NEW, name="after")
    assert catalog.find(wanted).manifest.export_id == OLD


def test_a_vm_keeps_its_folder_when_it_is_renamed(root: Path, catalog: Catalog) -> None:
    folder = commit(root, OLD, vm="old-name")
    assert catalog.folder_for("new-name", UUID) == folder.parent.name
    assert [entry.manifest.export_id for entry in catalog.of_vm(UUID)] == [OLD]


def test_of_two_folders_of_a_vm_the_one_with_its_newest_export_is_used(root: Path, catalog: Catalog) -> None:
    commit(root, OLD, vm="zeta")
    used = commit(root, NEW, vm="alpha").parent.name
    assert catalog.folder_for("web01", UUID) == used


def test_two_vms_with_one_short_id_are_not_mixed(root: Path, catalog: Catalog) -> None:
    twin = UUID[:8] + "-0000-4000-8000-000000000000"
    commit(root, OLD, uuid=UUID)
    commit(root, NEW, uuid=twin)
    assert [entry.manifest.export_id for entry in catalog.of_vm(UUID)] == [OLD]


def test_several_vms_need_a_word_which(root: Path, catalog: Catalog) -> None:
    commit(root, OLD)
    commit(root, NEW, vm="db01", uuid=OTHER)
    with pytest.raises(VmferryError) as asked:
        catalog.find()
    assert asked.value.kind == "conflict"
    assert catalog.find(vm="db01").manifest.export_id == NEW
    assert catalog.find(vm=UUID).manifest.export_id == OLD


def test_nothing_there_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(VmferryError) as missed:
        catalog.find("nightly", "web01")
    assert missed.value.kind == "not_found"
    assert "'nightly'" in str(missed.value)
    assert "web01" in str(missed.value)


def test_a_broken_newest_export_is_an_error_not_an_older_export(root: Path, catalog: Catalog) -> None:
    commit(root, OLD)
    (commit(root, NEW) / "manifest.json").write_text("{")
    with pytest.raises(VmferryError) as refused:
        catalog.find()
    assert refused.value.kind == "invalid_config"
    assert catalog.find(OLD).manifest.export_id == OLD


def test_of_several_broken_exports_the_newest_is_told(root: Path, catalog: Catalog) -> None:
    for export_id in (NEW, OLD):
        (commit(root, export_id) / "manifest.json").write_text("{}")
    with pytest.raises(VmferryError) as raised:
        catalog.find(vm="web01")
    assert NEW in raised.value.message


def test_a_manifest_copied_into_another_exports_folder_is_refused(root: Path, catalog: Catalog) -> None:
    commit(root, OLD)
    stolen = root / vm_folder("web01", UUID) / NEW
    stolen.mkdir()
    (stolen / "manifest.json").write_bytes(manifest(OLD).to_json(str))
    _unused, broken = catalog.read()
    assert [one.folder for one in broken] == [f"{vm_folder('web01', UUID)}/{NEW}"]


def test_of_a_url_of_one_export_the_last_segment_is_its_id_or_no_id_at_all(root: Path, catalog: Catalog) -> None:
    for name, refused in ((NEW, True), ("restored-by-hand", False)):
        (root / name).mkdir()
        (root / name / "manifest.json").write_bytes(manifest(OLD).to_json(str))
        whole, broken = Catalog(open_store(f"file://{root}/{name}/", {})).read()
        assert (bool(whole), bool(broken)) == (not refused, refused)


def test_the_url_may_be_a_vms_folder_or_one_export(root: Path, catalog: Catalog) -> None:
    folder = commit(root, OLD)
    for url in (folder, folder.parent, root):
        assert Catalog(open_store(f"file://{url}", {})).find().manifest.export_id == OLD


def test_an_intent_without_a_manifest_is_unfinished(root: Path, catalog: Catalog) -> None:
    commit(root, OLD)
    folder = root / vm_folder("web01", UUID) / NEW
    folder.mkdir()
    intent = Intent(NEW, "ab" * 16, UUID, "web01", 1.0, 2.0, {"host": "kvm01", "pid": 7})
    (folder / "intent.json").write_bytes(intent.to_json())
    assert list(catalog.unfinished(UUID)) == [(f"{folder.parent.name}/{NEW}", intent)]


def test_an_intent_that_cannot_be_read_is_told_and_hides_no_other(root: Path, catalog: Catalog) -> None:
    for export in (OLD, NEW):
        folder = root / vm_folder("web01", UUID) / export
        folder.mkdir(parents=True)
        (folder / "intent.json").write_bytes(Intent(NEW, "ab" * 16, UUID, "web01", 1.0, 2.0, {}).to_json())
    (folder.parent / OLD / "intent.json").write_bytes(b"")
    told: list[VmferryError] = []
    assert [intent.export_id for _folder, intent in catalog.unfinished(UUID, told.append)] == [NEW]
    assert [error.kind for error in told] == ["invalid_config"]


def broken(folder: Path) -> Path:
    (folder / "manifest.json").write_text("{")
    return folder


@pytest.mark.parametrize("vm", ["web01", UUID])
def test_a_broken_export_of_another_vm_does_not_block_this_ones_newest(root: Path, catalog: Catalog, vm: str) -> None:
    commit(root, OLD)
    broken(commit(root, NEW, vm="web01-test", uuid=OTHER))
    assert catalog.find(vm=vm).manifest.export_id == OLD
    with pytest.raises(VmferryError):
        catalog.find()


@pytest.mark.parametrize("vm", ["web01", UUID])
def test_a_broken_newest_export_of_this_vm_does(root: Path, catalog: Catalog, vm: str) -> None:
    commit(root, OLD)
    commit(root, NEW, vm="db01", uuid=OTHER)
    broken(commit(root, NEW))
    with pytest.raises(VmferryError) as refused:
        catalog.find(vm=vm)
    assert refused.value.kind == "invalid_config"


def test_a_vm_that_was_renamed_is_known_by_the_folder_its_exports_went_to(root: Path, catalog: Catalog) -> None:
    older = commit(root, OLD, vm="old-name")
    renamed = commit(root, OLD.replace("20T", "19T"), vm="new-name")
    renamed.rename(older.parent / renamed.name)
    broken(commit(root, NEW, vm="old-name"))
    with pytest.raises(VmferryError) as refused:
        catalog.find(vm="new-name")
    assert refused.value.kind == "invalid_config"


def test_where_the_url_is_one_vms_folder_every_broken_export_in_it_counts(root: Path, catalog: Catalog) -> None:
    folder = commit(root, OLD).parent
    broken(commit(root, NEW))
    with pytest.raises(VmferryError) as refused:
        Catalog(open_store(f"file://{folder}", {})).find(vm="web01")
    assert refused.value.kind == "invalid_config"
