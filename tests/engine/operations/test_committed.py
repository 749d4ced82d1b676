# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Once the manifest is there the export is made: nothing that happens afterwards makes a failure of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from one_vm import OneVm, export_one

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem_parts import FilesystemParts
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise


@pytest.fixture
def options(tmp_path: Path) -> TransferOptions:
    return TransferOptions(state_dir=str(tmp_path / "state"), idle_timeout=1.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


WHOLE = ["disk-0.digests", "disk-0.qcow2", "domain.xml", "manifest.json", "vm.json"]


def test_leaving_the_point_in_time_may_take_longer_than_idle_timeout(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(supervise.__kwdefaults__, "grace", 0.3)
    assert export_one(root, OneVm(lambda: time.sleep(2.5)), options)["changed"]
    assert files(root) == WHOLE


@pytest.mark.parametrize("error", [VmferryError("timeout", "libvirtd is stuck."), OSError(28, "Full"), Stopped()])
def test_a_point_in_time_that_cannot_be_left_is_a_warning(
    root: Path, options: TransferOptions, error: Exception
) -> None:
    def leaving() -> None:
        raise error

    result = export_one(root, OneVm(leaving), options)
    assert result["changed"]
    assert len(result["warnings"]) == 1
    assert files(root) == WHOLE


def test_before_the_manifest_the_same_error_is_a_failure(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaving() -> None:
        raise VmferryError("timeout", "libvirtd is stuck.")

    monkeypatch.setattr(FilesystemParts, "complete", lambda *_unused: leaving())
    with pytest.raises(VmferryError, match="stuck"):
        export_one(root, OneVm(), options)
    assert files(root) == []


def test_a_cancel_while_the_point_in_time_hangs_gives_the_export_that_is_made(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setitem(supervise.__kwdefaults__, "grace", 0.3)

    def leaving() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        release.wait(30)

    started = time.monotonic()
    try:
        result = export_one(root, OneVm(leaving), options)
    finally:
        release.set()
    assert time.monotonic() - started < 15
    assert result["changed"]
    assert files(root) == WHOLE
    assert "left" in " ".join(result["warnings"])


def test_completing_an_object_may_take_longer_than_idle_timeout(
    root: Path, options: TransferOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = FilesystemParts.complete

    def slow(self: FilesystemParts, *words: object) -> object:
        time.sleep(1.6)
        return complete(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(FilesystemParts, "complete", slow)
    assert export_one(root, OneVm(), options)["changed"]
    assert files(root) == WHOLE
