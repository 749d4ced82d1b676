# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node of Proxmox VE for each worker, and the provider connected to it. Every test makes its own VMs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from rigs.proxmox import ProxmoxServer

from .importing import Importing


@pytest.fixture(scope="session")
def server() -> Iterator[ProxmoxServer]:
    with ProxmoxServer() as started:
        yield started


@pytest.fixture
def pve(server: ProxmoxServer) -> Iterator[ProxmoxServer]:
    """With no call on its list, and afterwards without what a test made. No call of a test may be wrong."""
    server.forget_calls()
    yield server
    server.heal()
    server.change(quorate=True)
    for vmid in server.vms():
        server.remove_vm(vmid)
    assert not server.wrong_calls()


@pytest.fixture
def provider(pve: ProxmoxServer) -> Iterator[ProxmoxProvider]:
    opened = ProxmoxProvider(pve.settings())
    yield opened
    opened.close()


@pytest.fixture
def importing(pve: ProxmoxServer, provider: ProxmoxProvider) -> Importing:
    return Importing(provider)
