# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports into the cluster of the worker."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .importing import Importing


@pytest.fixture
def pve(cluster: ProxmoxServer) -> ProxmoxServer:
    return cluster


@pytest.fixture
def importing(provider: ProxmoxProvider) -> Importing:
    return Importing(provider)
