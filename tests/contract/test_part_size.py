# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`part_size`: what a server is really sent, and what is refused before it is sent anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from engine.operations.one_vm import VM

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs.fault_proxy import FaultProxy

from .chains import SIZES, Guest, export, restored
from .s3_wire import kind_of
from .store_rigs import S3Rig

MIB = 1024 * 1024
LARGE = 24 * MIB  # of data, so that there are several parts


@pytest.fixture
def guest() -> Guest:
    made = Guest()
    made.disks["disk-0"] = bytearray(made._random.randbytes(LARGE))
    made.vm = VM.with_disks(tuple(disk if disk.id != "disk-0" else _larger(disk) for disk in made.vm.disks))
    return made


def _larger(disk: Any) -> Any:
    return replace(disk, size=LARGE)


@pytest.mark.parametrize(("asked", "sizes"), [(None, [8, 8, 8]), (6 * MIB, [6, 6, 6, 6]), (11 * MIB, [11, 11])])
def test_a_bucket_gets_parts_of_the_size_that_is_asked_for(
    s3: S3Rig, s3_proxy: FaultProxy, guest: Guest, tmp_path: Path, asked: int | None, sizes: list[int]
) -> None:
    s3_proxy.reset()
    spec = StoreSpec(f"s3://{s3.bucket}/{token_hex(4)}", {**s3.server.settings, "endpoint_url": s3_proxy.endpoint_url})
    made = export(spec, guest, tmp_path, part_size=asked)["export"]["id"]
    sent = [one for one in s3_proxy.requests if kind_of(one) == "part" and "disk-0.qcow2" in one.target]
    whole = sorted(one.length // MIB for one in sent if one.length >= 5 * MIB and not one.length % MIB)
    assert [size for size in whole if size in sizes] == sizes
    store = open_store(spec.url, s3.server.settings)
    entry = Catalog(store).find(made)
    assert [part.size // MIB for part in entry.manifest.disks[0].parts][: len(sizes)] == sizes
    assert restored(store, made) == guest.now


def test_a_part_size_that_the_server_does_not_take_is_refused_before_the_first_byte(
    s3: S3Rig, guest: Guest, tmp_path: Path
) -> None:
    url = f"s3://{s3.bucket}/{token_hex(4)}"
    with pytest.raises(VmferryError, match="this store needs 5242880") as raised:
        export(StoreSpec(url, s3.server.settings), guest, tmp_path, part_size=MIB)
    assert raised.value.kind == "invalid_config"
    assert s3.leftovers(open_store(url, s3.server.settings)) == []


def test_a_folder_proves_parts_of_that_size(guest: Guest, tmp_path: Path) -> None:
    spec = StoreSpec((tmp_path / "store").as_uri())
    made = export(spec, guest, tmp_path, part_size=MIB)["export"]["id"]
    entry = Catalog(open_store(spec.url, {})).find(made)
    assert {part.size for part in entry.manifest.disks[0].parts[:-1]} == {MIB}
    assert SIZES["disk-0"] < LARGE
