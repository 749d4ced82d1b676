# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What killed runs left beside what is whole is removed by the next run, once nobody can still be writing it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from one_vm import UUID, OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, LEASE, Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore

WHOLE = ["disk-0.digests", "disk-0.qcow2", "domain.xml", "manifest.json", "vm.json"]
PART = "manifest.json.0123456789abcdef.part"
PROBE = ".vmferry-probe-1a2b3c4d"


@pytest.fixture
def options(tmp_path: Path) -> TransferOptions:
    return TransferOptions(state_dir=str(tmp_path / "state"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def put(path: Path, age: float, data: bytes = b"x") -> None:
    path.write_bytes(data)
    os.utime(path, (time.time() - age, time.time() - age))


def exported(root: Path, options: TransferOptions) -> Path:
    """The folder of an export that is whole."""
    return root / export_one(root, OneVm(), options)["export"]["url"].removeprefix(f"file://{root}/")


@pytest.mark.parametrize(("age", "left"), [(LEASE + 60, False), (LEASE - 60, True)])
def test_old_probes_and_unfinished_files_beside_a_manifest_go_and_young_ones_stay(
    root: Path, options: TransferOptions, age: float, left: bool
) -> None:
    folder = exported(root, options)
    litter = [folder / PART, folder / "native" / PART, root / PROBE, root / f"{PROBE}.0123456789abcdef.part"]
    intent = Intent(folder.name, "b" * 32, UUID, "web01", 1.0, 2.0, {"hostname": "another", "boot_id": "x", "pid": 7})
    for path in litter:
        put(path, age)
    put(folder / INTENT, age, intent.to_json())
    export_one(root, OneVm(), options)
    assert [path.exists() for path in [*litter, folder / INTENT]] == [left] * 5
    assert [name for name in names(folder) if ".part" not in name and name != INTENT] == WHOLE


def test_what_belongs_to_others_stays_however_old_it_is(root: Path, options: TransferOptions) -> None:
    folder = exported(root, options)
    others = [root / "other-99999999" / folder.name / PART, root / "download.part", root / ".vmferry-notes"]
    others[0].parent.mkdir(parents=True)
    for path in others:
        put(path, 10 * LEASE)
    export_one(root, OneVm(), options)
    assert [path.exists() for path in others] == [True] * 3


def test_the_stores_clock_decides_and_not_this_hosts(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(root, options)
    put(folder / PART, 60)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 10 * LEASE)
    export_one(root, OneVm(), options)
    assert (folder / PART).exists()


def test_litter_that_may_not_be_removed_stops_no_export(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(root, options)
    put(root / PROBE, 2 * LEASE)
    delete = FilesystemStore.delete

    def refusing(self: FilesystemStore, key: str, **options: str | None) -> None:
        if key == PROBE:
            raise VmferryError("permission_denied", "That is another's.")
        delete(self, key, **options)

    monkeypatch.setattr(FilesystemStore, "delete", refusing)
    assert export_one(root, OneVm(), options)["changed"]
    assert (root / PROBE).exists()


CHECK = """
import sys
from pathlib import Path
from one_vm import OneVm, export_one
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import FilesystemStore
put = FilesystemStore.put
def slow(self, *words, **options):
    made = put(self, *words, **options)
    if "if_match" not in options:
        print("probing", flush=True)
        import time; time.sleep(2)
    return made
FilesystemStore.put = slow
try:
    export_one(Path(sys.argv[1]), OneVm(), TransferOptions(), check_mode=True)
except VmferryError as error:
    print(error.kind, flush=True)
"""


def test_a_signal_in_check_mode_removes_the_probe(root: Path) -> None:
    root.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, "-c", CHECK, str(root)], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"probing\n"
    assert names(root)
    child.send_signal(signal.SIGTERM)
    told, _unused = child.communicate(timeout=20)
    assert names(root) == []
    assert told.endswith(b"cancelled\n")
