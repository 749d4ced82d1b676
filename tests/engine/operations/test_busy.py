# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What whoever finds an export under way is told of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from engine.exports.samples import UUID
from engine.exports.shelves import ELSEWHERE

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt_life import in_use
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.work_folder import WorkFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem


def test_it_is_told_that_an_export_can_be_followed(tmp_path: Path) -> None:
    now = time.time()
    intent = Intent("20261121T063000Z-1a2b3c4d", "b" * 32, UUID, "web01", now - 40, now + 300, ELSEWHERE)
    error = in_use(open_filesystem(str(tmp_path), {}), intent)
    assert "(process 7 on another host, for 4" in error.message
    assert "attach: true" in error.hint


def test_the_time_is_that_of_the_process_that_is_at_it_now(tmp_path: Path) -> None:
    """And not since a run began that died, and that it goes on with."""
    first = Job("a" * 32, "1a2b3c4d")
    folder = WorkFolder.create(str(tmp_path), "export", UUID, "web01", first)
    folder.record = replace(folder.record, started_at=time.time() - 283)
    folder.release()
    assert "for 283 s" in folder.record.describe()
    taken = WorkFolder.take_over(str(tmp_path), UUID, replace(first, job_id="b" * 32))
    assert "for 0 s" in taken.record.describe()
