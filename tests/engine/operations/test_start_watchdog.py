# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No guest is asked to shut down where nobody would outlive the export to start it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.power_marks import PowerMark
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import start_watchdog
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, StoreSpec

MARK = PowerMark("libvirt", "libvirt here", "", "a", "vm", "1", "vm/20260101T000000Z-00000000", 0.0)


def refused(store: Path) -> VmferryError:
    with pytest.raises(VmferryError, match="did not start") as caught:
        start_watchdog.StartWatchdog(ProviderSpec("libvirt", {}), StoreSpec(store.as_uri()), MARK)
    return caught.value


def test_one_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_watchdog, "_BOOTSTRAP", "import time\ntime.sleep(600)\n")
    monkeypatch.setattr(start_watchdog, "READY_LIMIT", 0.1)
    monkeypatch.setattr(start_watchdog, "END_LIMIT", 0.1)
    assert refused(tmp_path).kind == "internal"


def test_one_that_ends_at_once_is_no_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_watchdog, "_BOOTSTRAP", "raise SystemExit(1)\n")
    assert refused(tmp_path).kind == "internal"


def test_host_that_starts_no_process_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "python start another process" in refused(tmp_path).hint
