# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `verify: stored` reads of a store that vouches for its parts is a sample; `content` reads all."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
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
    SAMPLED_PARTS,
    verify_disk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import ExportDisk
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import DiskProgress

PART = 256 * 1024
DATA = random.Random(7).randbytes(20 * PART)


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


def key(file: str) -> str:
    return f"web01/{file}"


@pytest.mark.parametrize(
    ("how", "trusted", "found"), [("stored", True, False), ("stored", False, True), ("content", True, True)]
)
def test_a_byte_that_changed_beside_the_sample(tmp_path: Path, how: Verify, trusted: bool, found: bool) -> None:
    store = open_filesystem(str(tmp_path), {})
    job = RunningJob("a" * 32, TransferOptions(), None, {})
    job.limits = Limits(workers=2, window=PART, part=PART, part_budget=0)
    job.capabilities = replace(store.probe("probe"), verifies_checksums=trusted)
    disk = ExportDisk(DiskSpec("disk-0", "vda", len(DATA), "raw", "virtio", "/vda"), Source())
    made = export_disk(job, store, key, disk, REQUEST, "20261121T063000Z-1a2b3c4d", DiskProgress()).record
    assert len(made.parts) > SAMPLED_PARTS
    verify_disk(job, store, (StoredDisk(made, key),), how, DiskProgress())

    image = tmp_path / key(made.file)
    stored = bytearray(image.read_bytes())
    stored[made.parts[0].size + made.parts[1].size // 2] ^= 1  # the sample has the first part and the third, or later
    image.write_bytes(stored)
    if found:
        with pytest.raises(VmferryError) as caught:
            verify_disk(job, store, (StoredDisk(made, key),), how, DiskProgress())
        assert caught.value.kind == "checksum_mismatch"
    else:
        verify_disk(job, store, (StoredDisk(made, key),), how, DiskProgress())
