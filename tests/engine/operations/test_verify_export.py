# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happened to an export in its store is found and named: the export, the disk, the object, the place."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from stored_chain import LEAF, SIZES, Level, StoredChain, TwoDisks, make_chain

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.stored_disk import layers_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.stored_proof import copy_checked
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import (
    FilesystemStore,
    open_filesystem,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress
from rigs.mounting import mounted_tmpfs

LEVELS = pytest.mark.parametrize("level", ["manifest", "stored", "content"])
READING = pytest.mark.parametrize("level", ["stored", "content"])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> StoredChain:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def chain(pristine: StoredChain, tmp_path: Path) -> StoredChain:
    shutil.copytree(pristine.store, tmp_path / "store")
    return StoredChain(tmp_path, pristine.ids, pristine.disks)


def about(problem: dict[str, Any]) -> tuple[str, str, str]:
    return problem["export"], problem["disk"], problem["object"]


@LEVELS
def test_a_whole_chain_passes_at_every_level(chain: StoredChain, level: Level) -> None:
    result = chain.verify(level)
    assert (result["changed"], result["problems"], result["level"]) == (True, [], level)
    assert result["export"]["id"] == chain.ids[-1]
    assert result["job"]["kind"] == "verify"
    assert result["job"]["vm"] == "web01"


def test_every_export_of_a_chain_can_be_chosen(chain: StoredChain) -> None:
    for number, export in enumerate(chain.ids):
        result = chain.verify("content", export=export)
        assert result["export"]["structure"] == chain.ids[: number + 1]


def test_a_flipped_bit_is_named_by_the_place_on_the_disk_and_the_layer_that_holds_it(chain: StoredChain) -> None:
    for number, leaf in ((0, 7), (1, 3), (2, 4)):
        chain.flip(number, "disk-0.qcow2", chain.place(number, "disk-0", leaf) + 1000)
    found = chain.problems("content")
    assert [about(one) for one in found] == [(chain.ids[number], "disk-0", "disk-0.qcow2") for number in (1, 2, 0)], (
        "in the order of the disk"
    )
    assert [(one["offset"], one["length"]) for one in found] == [(leaf * LEAF, LEAF) for leaf in (3, 4, 7)]
    assert str(chain.path(1, "disk-0.qcow2")) in found[0]["problem"]
    assert "bytes 196608 to 262144 are not what was read" in found[0]["problem"]


def test_what_is_damaged_on_every_disk_is_told_at_once(chain: StoredChain) -> None:
    chain.flip(0, "disk-0.qcow2", chain.place(0, "disk-0", 200))
    chain.flip(0, "disk-0.qcow2", chain.place(0, "disk-0", 201))
    chain.flip(2, "disk-1.qcow2", chain.place(2, "disk-1", 4))
    first, second = chain.problems("content")
    assert (first["disk"], first["offset"], first["length"]) == ("disk-0", 200 * LEAF, 2 * LEAF)
    last = SIZES["disk-1"] % LEAF
    assert (second["disk"], second["offset"], second["length"]) == ("disk-1", 4 * LEAF, last), "the short last one"


def test_stored_names_the_part_of_each_image_that_differs(chain: StoredChain) -> None:
    parts = json.loads(chain.path(0, "manifest.json").read_text())["x_vmferry"]["disks"][0]["object_proof"]["parts"]
    assert len(parts) == 3
    sizes = [part["size"] for part in parts]
    chain.flip(0, "disk-0.qcow2", sizes[0] + 5)
    chain.flip(0, "disk-0.qcow2", sum(sizes) - 1)
    chain.flip(1, "disk-0.qcow2", 0)
    found = chain.problems("stored")
    assert [(one["export"], one["object_offset"], one["length"]) for one in found[:2]] == [
        (chain.ids[0], sizes[0], sizes[1]),
        (chain.ids[0], sizes[0] + sizes[1], sizes[2]),
    ]
    assert about(found[2]) == (chain.ids[1], "disk-0", "disk-0.qcow2")
    assert len(found) == 3


def test_what_a_newer_layer_hides_is_damage_of_the_object_and_not_of_what_is_restored(chain: StoredChain) -> None:
    chain.flip(1, "disk-0.qcow2", chain.path(1, "disk-0.qcow2").read_bytes().find(hidden_leaf(chain)))
    assert chain.verify("content")["changed"]
    (problem,) = chain.problems("stored")
    assert about(problem) == (chain.ids[1], "disk-0", "disk-0.qcow2")


def hidden_leaf(chain: StoredChain) -> bytes:
    provider = TwoDisks()
    provider.write("disk-0", 5, 1)
    return bytes(provider.disks["disk-0"][5 * LEAF : 6 * LEAF])


@LEVELS
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("name", ["disk-0.qcow2", "disk-1.digests", "vm.json", "native/domain.xml"])
def test_a_missing_object_is_named_at_every_level(chain: StoredChain, level: Level, number: int, name: str) -> None:
    chain.path(number, name).unlink()
    (problem,) = chain.problems(level)
    assert problem["export"] == chain.ids[number]
    assert problem["object"] == name
    assert "is missing" in problem["problem"]


@LEVELS
def test_truncated_objects_are_all_named(chain: StoredChain, level: Level) -> None:
    for number, name in ((0, "disk-0.qcow2"), (1, "disk-1.qcow2"), (2, "disk-0.digests")):
        chain.change(number, name, lambda data: data[:-100])
    found = chain.problems(level)
    assert [(one["export"], one["object"]) for one in found] == [
        (chain.ids[0], "disk-0.qcow2"),
        (chain.ids[1], "disk-1.qcow2"),
        (chain.ids[2], "disk-0.digests"),
    ]
    assert all("bytes were sent" in one["problem"] for one in found)


@LEVELS
def test_a_missing_layer_is_named(chain: StoredChain, level: Level) -> None:
    shutil.rmtree(chain.path(0, ""))
    (problem,) = chain.problems(level)
    assert (problem["export"], problem["object"]) == (chain.ids[0], "manifest.json")
    assert "is not there" in problem["problem"]


@LEVELS
def test_a_swapped_layer_is_named_for_each_disk(chain: StoredChain, level: Level) -> None:
    """By another full export of the same VM, whole in itself, at the place of the one that was built upon."""
    other, provider = StoredChain(chain.folder / "other"), TwoDisks()
    for disk in SIZES:
        provider.write(disk, 0, 9)
    other.export(provider)
    shutil.rmtree(chain.path(0, ""))
    shutil.copytree(other.path(0, ""), chain.path(0, ""))
    chain.change_manifest(0, lambda own: own.update(export_id=chain.ids[0]))
    found = chain.problems(level, export=chain.ids[-1])  # the newest by its time is now the other
    assert [about(one) for one in found] == [(chain.ids[0], disk, "manifest.json") for disk in SIZES]
    assert all("was not taken against what" in one["problem"] for one in found)


@LEVELS
@pytest.mark.parametrize("number", [0, 2])
def test_a_manifest_that_cannot_be_read_is_named(chain: StoredChain, level: Level, number: int) -> None:
    chain.change(number, "manifest.json", lambda data: data[:-20])
    (problem,) = chain.problems(level)
    assert about(problem) == (chain.ids[number], "", "manifest.json")
    assert "is not JSON" in problem["problem"]


def test_a_proof_that_was_changed_is_named(chain: StoredChain) -> None:
    chain.change_manifest(1, lambda own: own["disks"][1]["object_proof"].update(root="00" * 32))
    (problem,) = chain.problems("manifest")
    assert about(problem) == (chain.ids[1], "disk-1", "manifest.json")


@READING
@pytest.mark.parametrize("name", ["disk-1.digests", "vm.json", "native/domain.xml"])
def test_damage_of_a_small_file_is_named(chain: StoredChain, level: Level, name: str) -> None:
    chain.flip(2, name, -3 % chain.path(2, name).stat().st_size)
    (problem,) = chain.problems(level)
    assert (problem["export"], problem["object"]) == (chain.ids[2], name)
    assert problem["disk"] == ("disk-1" if "digests" in name else "")


def test_a_description_that_is_no_vm_is_found_though_it_is_what_was_sent(chain: StoredChain) -> None:
    text = b'{"name": "web01"}'
    chain.path(2, "vm.json").write_bytes(text)
    told = {"path": "vm.json", "size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    chain.change_manifest(2, lambda own: own["files"].__setitem__(0, told))
    (problem,) = chain.problems("content")
    assert problem["object"] == "vm.json"
    assert "does not describe a VM" in problem["problem"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_tables_that_lead_nowhere_are_named_with_their_image(chain: StoredChain, number: int) -> None:
    """The bit that an L2 entry must not have."""
    chain.change(number, "disk-0.qcow2", lambda data: data[:4] + bytes(4) + data[8:])
    chain.flip(0, "disk-1.qcow2", chain.place(0, "disk-1", 1))
    tables, data = chain.problems("content")
    assert about(tables) == (chain.ids[number], "disk-0", "disk-0.qcow2")
    assert about(data) == (chain.ids[0], "disk-1", "disk-1.qcow2")


def test_an_entry_of_a_table_that_leads_elsewhere_is_damage_of_the_disk(chain: StoredChain) -> None:
    path = chain.path(0, "disk-0.qcow2")
    here, there = (chain.place(0, "disk-0", leaf) for leaf in (7, 8))
    entry = (here | 1 << 63).to_bytes(8, "big")
    data = path.read_bytes()
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, (there | 1 << 63).to_bytes(8, "big")))
    (problem,) = chain.problems("content")
    assert (problem["disk"], problem["offset"], problem["length"]) == ("disk-0", 7 * LEAF, LEAF)


def test_a_disk_that_is_damaged_in_very_many_places_is_told_in_bounds(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "ansible_collections.vmferry.migrate.plugins.module_utils._transfer.damaged_leaves.MOST_RUNS"
    monkeypatch.setattr(module, 10)
    for leaf in range(20, 60, 2):
        chain.flip(0, "disk-0.qcow2", chain.place(0, "disk-0", leaf))
    found = chain.problems("content")
    assert len(found) == 11
    assert found[-1]["problem"] == "disk-0 is damaged in more places: 10 more pieces of 64 KiB."


@READING
def test_a_raw_image_is_looked_at_as_well(tmp_path: Path, level: Level) -> None:
    raw = StoredChain(tmp_path)
    raw.export(TwoDisks(), "raw")
    assert raw.verify(level)["changed"]
    raw.flip(0, "disk-0.raw", 40 * LEAF + 3)
    (problem,) = raw.problems(level)
    assert about(problem) == (raw.ids[0], "disk-0", "disk-0.raw")
    assert problem["offset"] == (40 * LEAF if level == "content" else None)


def test_reading_all_of_an_image_takes_its_sha256(chain: StoredChain) -> None:
    assert [disk["sha256"] for disk in chain.told()["disks"]] == ["", ""]
    chain.verify("stored")
    chain.verify("content")
    for disk in chain.told()["disks"]:
        image = chain.path(2, f"{disk['id']}.qcow2").read_bytes()
        assert disk["sha256"] == hashlib.sha256(image).hexdigest()


def test_a_record_tells_how_much_was_read(chain: StoredChain) -> None:
    job = Path(chain.verify("stored")["job"]["record"])
    record = json.loads(job.read_text())
    stored = [chain.path(number, f"{disk}.qcow2").stat().st_size for number in range(3) for disk in SIZES]
    assert (record["phase"], record["bytes_read"], record["percent"]) == ("ready", sum(stored), 100.0)


def test_a_store_that_does_not_answer_says_nothing_about_the_export(
    chain: StoredChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_unused: object) -> None:
        raise VmferryError("network", "The file server is gone.")

    chain.verify("content")
    before = chain.told()["last_verified"]
    image = chain.path(0, "disk-0.qcow2").name
    real = FilesystemStore.read_into
    monkeypatch.setattr(
        FilesystemStore,
        "read_into",
        lambda self, key, *rest: unreachable() if key.endswith(image) else real(self, key, *rest),
    )
    with pytest.raises(VmferryError) as caught:
        chain.verify("content")
    assert caught.value.kind == "network"
    assert chain.told()["last_verified"] == before


@READING
def test_a_folder_whose_mount_goes_away_says_nothing_about_the_export(
    chain: StoredChain, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies below the mount point then is an empty folder of another file system, in which nothing is found."""
    pristine = chain.store.with_name("pristine")
    chain.store.rename(pristine)
    chain.store.mkdir()
    with mounted_tmpfs(chain.store) as mounted:
        shutil.copytree(pristine, chain.store, dirs_exist_ok=True)
        real, image = FilesystemStore.read_into, chain.path(0, "disk-0.qcow2").name

        def going(self: FilesystemStore, key: str, offset: int, buffer: memoryview) -> None:
            if key.endswith(image):
                mounted.unmount()
            real(self, key, offset, buffer)

        monkeypatch.setattr(FilesystemStore, "read_into", going)
        with pytest.raises(VmferryError) as caught:
            chain.verify(level)
    assert caught.value.kind == "network"
    assert mounted.source in caught.value.message
    assert list(chain.store.iterdir()) == []


def test_an_export_of_a_newer_version_is_not_called_damaged(chain: StoredChain) -> None:
    chain.change_manifest(2, lambda own: own.update(schema=2))
    with pytest.raises(VmferryError) as caught:
        chain.verify("manifest")
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(("leaf", "number"), [(9, 0), (3, 1), (4, 2)])
def test_an_import_names_the_layer_that_holds_what_is_damaged(chain: StoredChain, leaf: int, number: int) -> None:
    """Whoever copied the newest image again would gain nothing."""
    chain.flip(number, "disk-0.qcow2", chain.place(number, "disk-0", leaf))
    with closing(open_filesystem(str(chain.store), {})) as store:
        entries, _unused = Catalog(store).read()
        job = RunningJob("a" * 32, TransferOptions(), None, {})
        with pytest.raises(VmferryError) as caught:
            copy_checked(job, store, layers_of(entries, "disk-0"), None, DiskProgress())
    assert caught.value.kind == "checksum_mismatch"
    assert f"bytes {leaf * 65536} to {(leaf + 1) * 65536}" in caught.value.message
    assert caught.value.message.endswith(f"{chain.ids[number]}/disk-0.qcow2.")
