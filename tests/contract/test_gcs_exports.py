# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole exports in Cloud Storage: they come back byte for byte, are verified, and are gone on with after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine.operations.one_vm import VM

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec

from .chains import Chain, Guest, assert_whole, export
from .store_rigs import MIB, GcsRig

BIG = 34 * MIB  # five parts
PARTIAL = ".part"
EXPORT = """
import json, sys
from pathlib import Path
from contract.test_gcs_exports import BigGuest, spec_of
from contract.chains import export
export(spec_of(*json.loads(sys.argv[1])), BigGuest(), Path(sys.argv[2]))
"""


def spec_of(url: str, settings: dict[str, Any]) -> StoreSpec:
    return StoreSpec(url, settings)


class BigGuest(Guest):
    """One disk of several parts; its point in time outlives the process that took it."""

    def __init__(self) -> None:
        super().__init__()
        self.disks = {"disk-0": bytearray(random.Random(3).randbytes(BIG))}
        self.vm = VM.with_disks((DiskSpec("disk-0", "vda", BIG, "raw", "virtio", "/disk-0"),))

    @contextmanager
    def reopen_export(self, *_unused: object) -> Any:
        with self.open_export() as session:
            yield session


@pytest.fixture
def spec(rig: GcsRig) -> StoreSpec:
    return spec_of(rig.fresh().url, rig.server.settings)


@pytest.mark.parametrize("rig", ["gcs", "gcs_emulator"], indirect=True)
def test_an_export_and_what_stands_on_it_come_back_byte_for_byte(rig: GcsRig, spec: StoreSpec, tmp_path: Path) -> None:
    guest, chain = Guest(), Chain()
    for _unused in range(2):
        chain.add(export(spec, guest, tmp_path)["export"]["id"], guest.now)
        guest.write_some()
    store = rig.open_at(spec.url)
    assert assert_whole(store, chain) == chain.ids
    for one in chain.ids:
        asked = VerifyRequest(spec, "content", export=one, transfer=TransferOptions(state_dir=str(tmp_path)))
        assert verify_export(asked, False)["problems"] == []
    assert not [name for name in rig.leftovers(store) if name.endswith(PARTIAL)]


@pytest.mark.parametrize("rig", ["gcs"], indirect=True)
@pytest.mark.parametrize("step", ["part-sent:5", "objects-complete"])
def test_an_export_that_was_killed_is_gone_on_with(rig: GcsRig, spec: StoreSpec, tmp_path: Path, step: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "VMFERRY_FAILPOINT": step}
    arguments = [json.dumps([spec.url, spec.settings]), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", EXPORT, *arguments], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    store, guest = rig.open_at(spec.url), BigGuest()
    result = export(spec, guest, tmp_path)
    assert result["resumed"]["export"] == result["export"]["id"]
    assert step.startswith("part-sent") or result["resumed"]["bytes_kept"] > 0
    chain = Chain()
    chain.add(result["export"]["id"], guest.now)
    assert assert_whole(store, chain) == chain.ids
    assert not [name for name in rig.leftovers(store) if name.endswith(PARTIAL)]
