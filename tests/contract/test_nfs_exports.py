# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports on a real NFS mount: written, read back, and stopped where the mount goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs import fuse_mount
from rigs.mounting import mounted_tmpfs
from rigs.nfs import NfsServer, nfs_mount, nfs_server

from .chains import Guest, assert_opened_by_qemu, export, restored


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NfsServer]:
    served = tmp_path / "served"
    served.mkdir()
    with mounted_tmpfs(served, "size=256m"), nfs_server(served) as server:
        yield server


@pytest.fixture
def point(tmp_path: Path) -> Path:
    folder = tmp_path / "mnt"
    folder.mkdir()
    return folder


def test_a_chain_below_the_mount_point_is_restored_from_there(server: NfsServer, point: Path, tmp_path: Path) -> None:
    """And on the server every image is what qemu-img opens."""
    spec, guest = StoreSpec("nfs://site-a/vms", {"mount": str(point)}), Guest()
    with nfs_mount(server, point):
        full = export(spec, guest, tmp_path / "state")["export"]
        held = {full["id"]: guest.now}
        guest.write_some()
        increment = export(spec, guest, tmp_path / "state")["export"]
        held[increment["id"]] = guest.now
        assert (full["mode"], increment["mode"]) == ("full", "incremental")
        assert increment["url"].startswith(f"nfs://{point}/site-a/vms/")
        store = open_store(f"nfs://{point}/site-a/vms", {})
        assert {one: restored(store, one) for one in held} == held
    for one, disks in held.items():
        (folder,) = (server.folder / "site-a/vms").glob(f"*/{one}")
        for name, data in disks.items():
            assert_opened_by_qemu(folder / f"{name}.qcow2", data)
    assert list(point.iterdir()) == []


def test_an_export_whose_mount_goes_away_fails_as_such_and_writes_nothing_below_the_mount_point(
    server: NfsServer, point: Path, tmp_path: Path
) -> None:
    guest, reads = Guest(), []
    with nfs_mount(server, point) as bridge:

        def going() -> None:
            reads.append(1)
            if len(reads) == 2:
                fuse_mount.end(bridge, point)

        guest.reading = going
        with pytest.raises(VmferryError) as raised:
            export(StoreSpec(f"nfs://{point}/vms", {"buffer_size": 65536}), guest, tmp_path / "state")
    assert len(reads) >= 2
    assert raised.value.kind == "network"
    assert list(point.iterdir()) == []
    assert list(server.folder.rglob("intent.json")), "kept, to be gone on with"
    assert not list(server.folder.rglob("manifest.json"))


def test_an_export_to_what_is_not_mounted_fails_before_it_writes(point: Path, tmp_path: Path) -> None:
    for spec in (StoreSpec(f"nfs://{point}/vms"), StoreSpec(f"file://{point}/vms", {"mount": str(point)})):
        with pytest.raises(VmferryError) as raised:
            export(spec, Guest(), tmp_path / "state")
        assert raised.value.kind == "not_found"
        assert list(point.iterdir()) == []
