# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export that is called verified can be imported: every file that an import needs was looked at."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import StoredFile
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.export_disk import export_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
    TransferOptions,
    Verify,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.stored_disk import StoredDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.stored_proof import (
    copy_checked,
    verify_disk,
    verify_file,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

DATA = random.Random(7).randbytes(300_000)


REQUEST = ExportRequest(ProviderSpec("libvirt"), StoreSpec("/unused"), "web01")


class Source:
    size = len(DATA)

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, "data")

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for offset, buffer in pieces:
            buffer[:] = DATA[offset : offset + len(buffer)]

    def close(self) -> None:
        pass


class Exported:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Store = open_filesystem(str(root), {})
        self.record = export_disk(
            self.job(), self.store, self.key, self.disk(), REQUEST, "20261121T063000Z-1a2b3c4d", DiskProgress()
        ).record

    def job(self, *, trusted: bool = True) -> RunningJob:
        job = RunningJob("a" * 32, TransferOptions(), None, {})
        job.capabilities = replace(self.store.probe("probe"), verifies_checksums=trusted)
        return job

    @staticmethod
    def key(file: str) -> str:
        return f"web01/{file}"

    @staticmethod
    def disk() -> ExportDisk:
        return ExportDisk(DiskSpec("disk-0", "vda", len(DATA), "qcow2", "virtio", "/vda"), Source())

    @property
    def layers(self) -> tuple[StoredDisk, ...]:
        return (StoredDisk(self.record, self.key),)

    def verify(self, how: Verify, *, trusted: bool = True) -> None:
        verify_disk(self.job(trusted=trusted), self.store, self.layers, how, DiskProgress())

    def damage(self, file: str, how: Callable[[Path], object]) -> None:
        how(self.root / "web01" / file)


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    return Exported(tmp_path / "store")


def flip(path: Path, at: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-32])


def flip_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"size": 3', b'"size": 4'))


DAMAGES = pytest.mark.parametrize("damage", [flip, cut, flip_header, Path.unlink])


def test_a_whole_export_passes(exported: Exported) -> None:
    for how in ("stored", "content"):
        exported.verify(how)
    copy_checked(exported.job(), exported.store, exported.layers, None, DiskProgress())


@DAMAGES
@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("how", ["stored", "content"])
def test_damaged_digests_are_found_and_named(
    exported: Exported, how: Verify, trusted: bool, damage: Callable[[Path], object]
) -> None:
    exported.damage("disk-0.digests", damage)
    with pytest.raises(VmferryError) as raised:
        exported.verify(how, trusted=trusted)
    assert raised.value.kind == "checksum_mismatch"
    assert "disk-0.digests" in raised.value.message
    assert "disk-0.qcow2" not in raised.value.message


@DAMAGES
def test_an_import_names_damaged_digests_and_not_the_image(
    exported: Exported, damage: Callable[[Path], object]
) -> None:
    exported.damage("disk-0.digests", damage)
    with pytest.raises(VmferryError) as raised:
        copy_checked(exported.job(), exported.store, exported.layers, None, DiskProgress())
    assert raised.value.kind == "checksum_mismatch"
    assert "disk-0.digests" in raised.value.message
    assert "disk-0.qcow2" not in raised.value.message


def test_damage_of_the_image_is_named_as_the_images(exported: Exported) -> None:
    exported.damage("disk-0.qcow2", lambda path: flip(path, path.stat().st_size // 2))
    with pytest.raises(VmferryError) as raised:
        copy_checked(exported.job(), exported.store, exported.layers, None, DiskProgress())
    assert "disk-0.qcow2" in raised.value.message


@DAMAGES
def test_a_small_file_that_was_not_kept_is_found_and_named(
    exported: Exported, damage: Callable[[Path], object]
) -> None:
    text = b'{"name": "web01", "size": 3}'
    stored = StoredFile("native/domain.xml", len(text), sha256(text).hexdigest())
    exported.store.put(exported.key(stored.path), text)
    verify_file(exported.job(), exported.store, exported.key, stored)
    exported.damage(stored.path, damage)
    with pytest.raises(VmferryError) as raised:
        verify_file(exported.job(), exported.store, exported.key, stored)
    assert raised.value.kind == "checksum_mismatch"
    assert "native/domain.xml" in raised.value.message
