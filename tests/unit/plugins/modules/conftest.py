# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.tests.unit.plugins.modules.module_run import ModuleRun


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> ModuleRun:
    return ModuleRun(monkeypatch, capfd)
