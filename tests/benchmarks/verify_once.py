# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The newest export in a store, read back through its whole chain and compared leaf by leaf; a process of its own.

`verify_once.py URL STATE_DIR`.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".build"))

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.chain import chain_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import StoreSpec, TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored_disk import layers_of
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_disk
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store


def main(url: str, state_dir: str) -> None:
    options = TransferOptions(state_dir=state_dir)
    with (
        RunningJob.start("verify", options, "bench", url, {"verifying": 1.0}, check_mode=False) as job,
        closing(job.open_store(StoreSpec(url))) as store,
    ):
        job.supervise(lambda: verify(job, store))


def verify(job: RunningJob, store: Store) -> None:
    catalog = Catalog(store)
    chain = chain_of(catalog.find(), catalog.beside(catalog.find()))
    disks = chain[-1].manifest.disks
    job.phase("verifying", [(disk.id, disk.size) for disk in disks])
    for number, disk in enumerate(disks):
        verify_disk(job, store, layers_of(chain, disk.id), "content", job.progress.disk(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
