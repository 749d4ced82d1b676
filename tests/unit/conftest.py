# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """ansible-test gives each test a process of its own, which costs several times what the test does. These tests put
    back what they change, as all others of this collection do, which share a process too."""
    forking = config.pluginmanager.get_plugin("ansible_forked")
    if forking is not None:
        config.pluginmanager.unregister(forking)
