# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A raw image's holes are not read when it is restored, and are trusted no more than its bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .chains import LEAF, SIZES, Guest, export, restored


@pytest.fixture
def guest() -> Guest:
    guest = Guest()
    for leaf in range(2, 10):
        guest.clear("disk-0", leaf)
    return guest


def test_holes_come_back_as_zeros_without_being_read(
    tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(StoreSpec(str(tmp_path / "store")), guest, tmp_path / "state", format="raw")["export"]
    real, read = FilesystemStore.read_into, []

    def counting(self: FilesystemStore, key: str, offset: int, buffer: memoryview) -> None:
        if key.endswith("disk-0.raw"):
            read.append(len(buffer))
        real(self, key, offset, buffer)

    monkeypatch.setattr(FilesystemStore, "read_into", counting)
    assert restored(open_store(str(tmp_path / "store"), {}), made["id"]) == guest.now
    assert sum(read) == SIZES["disk-0"] - 8 * LEAF


def test_a_hole_in_the_place_of_data_is_damage(tmp_path: Path, guest: Guest) -> None:
    made = export(StoreSpec(str(tmp_path / "store")), guest, tmp_path / "state", format="raw")["export"]
    (image,) = (tmp_path / "store").rglob("disk-0.raw")
    subprocess.run(["fallocate", "--punch-hole", "-o", str(12 * LEAF), "-l", str(LEAF), str(image)], check=True)
    with pytest.raises(VmferryError) as raised:
        restored(open_store(str(tmp_path / "store"), {}), made["id"])
    assert raised.value.kind == "checksum_mismatch"
    assert f"bytes {12 * LEAF} to {13 * LEAF}" in raised.value.message
