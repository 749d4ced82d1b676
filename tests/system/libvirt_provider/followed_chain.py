# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A chain of exports, followed as whoever stores them does: copies that are kept up to date by what changed alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import (
    Consistency,
    ExportSession,
    Tracking,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider

from .harness import STEP, open_session, read_all, sha256

Changed = list[tuple[int, int, str]]  # offset, length, kind


class FollowedChain:
    def __init__(self, provider: LibvirtProvider, vm: str, folder: Path) -> None:
        self._provider, self._vm = provider, vm
        self.id = secrets.token_hex(4)
        self._folder = folder / self.id
        self._folder.mkdir()
        self.token = self.lost = ""
        self.estimate: Mapping[str, int] = {}  # bytes that were said, before the last export, to have changed

    def follow(self, consistency: Consistency = "crash_consistent") -> dict[str, Changed]:
        """One more export: what changed on each disk that is tracked. The copies equal the frozen view afterwards."""
        job = Job(secrets.token_hex(16), secrets.token_hex(4), self.id)
        tracking = Tracking(since=self.token, keep=True)
        vm = self._provider.describe(self._vm)
        self.estimate = self._provider.changed_since(vm, vm.disks, self.token) if self.token else {}
        with open_session(self._provider, self._vm, consistency, tracking=tracking, job=job) as session:
            changed = self._bring_up_to_date(session)
            session.confirm()
            session.keep_token()
        assert session.token == job.token
        self._provider.forget(session.vm, [self.token] if self.token else [])
        self.token, self.lost = session.token, session.lost
        return changed

    def _bring_up_to_date(self, session: ExportSession) -> dict[str, Changed]:
        changed = {}
        for disk in session.disks:
            copy, truth = self._folder / disk.spec.name, self._folder / "truth"
            read_all(disk.source, truth)
            if disk.changes is None:
                truth.replace(copy)
                continue
            changed[disk.spec.name] = apply(disk.changes, copy)
            assert sha256(copy) == sha256(truth), f"{disk.spec.name} changed where it was said to be unchanged"
        return changed


def apply(changes: BlockSource, copy: Path) -> Changed:
    changed = []
    with copy.open("r+b") as file:
        assert os.fstat(file.fileno()).st_size == changes.size
        at = 0
        for extent in changes.extents():
            assert extent.offset == at, "extents must have no gaps"
            at = extent.end
            if extent.kind == "unchanged":
                continue
            changed.append((extent.offset, extent.length, extent.kind))
            for start in range(extent.offset, extent.end, STEP):
                buffer = bytearray(min(STEP, extent.end - start))
                if extent.kind == "data":
                    changes.read_into([(start, memoryview(buffer))])
                file.seek(start)
                file.write(buffer)
        assert at == changes.size, "extents must cover the disk"
    return changed
