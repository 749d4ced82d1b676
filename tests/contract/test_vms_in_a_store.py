# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs whose files lie in an object store are described and exported where they lie, by ranged reads."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine.images.disks import MIB
from engine.vm_files.shelf import GUEST, SIZE, Shelf, refused

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files import file_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

from .objects_rig import opened, place
from .store_rigs import S3Rig


@dataclass(frozen=True)
class ShelfInBucket(Shelf):
    """What is made on the path is put into the bucket, and looked for there."""

    bucket: ProviderSpec

    @property
    def provider(self) -> ProviderSpec:
        return self.bucket

    def send(self, store: Store) -> None:
        for path in self.images.rglob("*"):
            if path.is_file():
                store.put(str(path.relative_to(self.images)), path.read_bytes())
                path.unlink()


@pytest.fixture
def bucket(tmp_path: Path, s3: S3Rig) -> tuple[ShelfInBucket, closing[Store]]:
    (tmp_path / "images").mkdir()
    spec = place("s3", tmp_path, s3)
    provider = ProviderSpec("image", {"url": spec.url, "storage": spec.settings})
    return ShelfInBucket(tmp_path, provider), opened(spec)


def test_files_in_a_bucket_are_exported_where_they_lie(bucket: tuple[ShelfInBucket, closing[Store]]) -> None:
    shelf, store = bucket
    shelf.ova("app.ova")
    shelf.image("db/disk1.qcow2", "qcow2")
    shelf.image("db/disk2.vhdx", "vhdx")
    with store as there:
        shelf.send(there)
        assert [(vm["name"], vm["path"]) for vm in shelf.vms()] == [("db", "db/"), ("web", "app.ova")]
        assert shelf.vms("app.ova")[0]["disks"][0]["size"] == SIZE
        appliance, images = shelf.export("app.ova", verify="content"), shelf.export("db")
        assert (shelf.content(appliance, 0), shelf.content(appliance, 1)) == (GUEST, bytes(MIB))
        assert (shelf.content(images, 0), shelf.content(images, 1)) == (GUEST, GUEST)
        assert not shelf.export("db")["changed"]


def test_an_image_that_only_qemu_reads_is_refused_in_a_bucket(bucket: tuple[ShelfInBucket, closing[Store]]) -> None:
    shelf, store = bucket
    shelf.image("large.qcow2", "qcow2", "-o", "cluster_size=2M")
    shelf.image("old.vdi", "vdi")
    with store as there:
        shelf.send(there)
        assert "storage_download" in refused(lambda: shelf.vms("old.vdi"), "unsupported", "the format vdi").hint
        assert "storage_download" in refused(lambda: shelf.export("large.qcow2"), "unsupported", "large.qcow2").hint
        assert [one["kind"] for one in shelf.export("large.qcow2", check_mode=True)["findings"]] == ["unsupported"]
    assert not shelf.stored()


def test_an_object_that_is_replaced_meanwhile_commits_nothing(
    bucket: tuple[ShelfInBucket, closing[Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, store = bucket
    shelf.raw("web.raw")
    confirm = file_export.FileExport.confirm
    with store as there:
        shelf.send(there)

        def replaced(session: file_export.FileExport) -> None:
            there.put("web.raw", GUEST[::-1])
            confirm(session)

        monkeypatch.setattr(file_export.FileExport, "confirm", replaced)
        refused(lambda: shelf.export("web.raw"), "conflict", "was changed while it was exported")
    assert "manifest.json" not in shelf.stored()
