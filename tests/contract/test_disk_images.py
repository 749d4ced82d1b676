# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images that others made, in every kind of store: read by ranges, with the files that belong to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engine.images.disks import MIB, content_of, run
from engine.images.hostile_images import guest, image
from engine.images.other_formats import written
from engine.images.test_vhdx_chain import SIZE, chain

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    insist_on_reader,
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .dav_rig import NginxDavRig
from .store_rigs import S3Rig


@pytest.fixture(params=["path", "bucket", "dav"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "path":
        with closing(open_store(str(tmp_path / "store"), {})) as opened:
            yield opened
        return
    rig: S3Rig | NginxDavRig = request.getfixturevalue("s3" if request.param == "bucket" else "nginx_dav")
    with closing(rig.fresh()) as opened:
        yield opened


def disk_of(store: Store, key: str) -> bytes:
    found = stored_image(store, key)
    assert stored_image(store, key).identity == found.identity
    insist_on_reader(found)
    with open_image(found) as source:
        return content_of(source)


def test_an_image_is_read_with_what_belongs_to_it(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "made"
    local.mkdir()
    seen = chain(local, written("vhdx", local / "base.vhdx", SIZE, [Extent(0, SIZE, "data")]))[-1]
    (tmp_path / "plain").write_bytes(guest())
    split = ["-o", "subformat=twoGbMaxExtentSparse"]
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", *split, tmp_path / "plain", local / "web.vmdk")
    for file in local.iterdir():
        store.put(f"images/{file.name}", file.read_bytes())
    assert disk_of(store, "images/second.avhdx") == seen
    assert disk_of(store, "images/web.vmdk") == guest()
    store.delete("images/first.avhdx")
    with pytest.raises(VmferryError, match="not beside it"):
        stored_image(store, "images/second.avhdx")


def test_an_image_that_is_replaced_while_it_is_read_is_told(store: Store) -> None:
    store.put("one.vhdx", image("vhdx"))
    with pytest.raises(VmferryError, match="changed while") as told, open_image(stored_image(store, "one.vhdx")):
        store.put("one.vhdx", image("vhdx") + bytes(MIB))
    assert told.value.kind == "conflict"


def test_what_qemu_alone_reads_is_read_from_a_path(store: Store) -> None:
    store.put("one.vdi", image("vdi"))
    if store.location("one.vdi").startswith("/"):
        assert disk_of(store, "one.vdi") == guest()
        return
    with pytest.raises(VmferryError) as refused:
        insist_on_reader(stored_image(store, "one.vdi"))
    assert refused.value.kind == "unsupported"
    assert "storage_download" in refused.value.hint
