# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job whose disk is behind NBD: what takes long is waited for, and whoever hangs is woken by a cancel."""

from __future__ import annotations

import os
from pathlib import Path

from disks_in_memory import MemorySource

from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.sink import NbdSink
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.copy_blocks import CopyResult, copy_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.limits import Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise
from rigs import nbd

SMALL = Limits(workers=2, window=1 << 18, part=1 << 20, part_budget=1 << 22)
MIB = 1 << 20


class Records:
    def update(self, snapshot: object) -> None:
        """Nobody reads it."""


def test_a_flush_may_take_longer_than_bytes_may_stand_still(tmp_path: Path) -> None:
    """The host wrote much faster than its disk: what it holds back is written now."""
    image = tmp_path / "disk"
    image.write_bytes(bytes(MIB))
    script = [
        f"get_size=stat -c %s {image}",
        f"pwrite=dd of={image} bs=64k oflag=seek_bytes seek=$4 conv=notrunc 2>/dev/null",
        f"flush=sleep 2; touch {tmp_path}/flushed",
    ]
    disk, flow, progress = os.urandom(MIB), Flow(), Progress({"importing": 1.0})
    with nbd.nbdkit("eval", *script) as path:
        sink = NbdSink(Address.unix(path), reads_zero=True, idle_timeout=1)
        progress.enter("importing", [progress.new_disk("disk", MIB)])

        def work() -> CopyResult:
            return copy_blocks(MemorySource(disk), sink, None, limits=SMALL, flow=flow, progress=progress.disk(0))

        assert supervise(flow, progress, Records(), work, idle_timeout=1).bytes_written == MIB
        assert (tmp_path / "flushed").exists()
        sink.write([(0, memoryview(disk)[:512])])  # the connection goes on, with the limit it had
        sink.close()
    assert image.read_bytes() == disk
