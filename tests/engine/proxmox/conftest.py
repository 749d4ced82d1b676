# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of Proxmox VE for each worker, and the provider connected to it. Every test makes its own VMs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.settings import ProxmoxSettings
from rigs.proxmox import ProxmoxServer


@pytest.fixture(scope="session")
def started() -> Iterator[ProxmoxServer]:
    with ProxmoxServer() as server:
        yield server


@pytest.fixture
def cluster(started: ProxmoxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProxmoxServer]:
    """With no call on its list, and no variable of the tester's own. Every call has to be one that Proxmox VE knows."""
    for variable in [name for name in os.environ if name.startswith("PROXMOX_")]:
        monkeypatch.delenv(variable)
    started.forget_calls()
    yield started
    started.heal()
    started.change(time_scale=0.0, quorate=True, nodes={started.node: True})
    wrong = started.wrong_calls()
    for vmid in started.vms():
        started.remove_vm(vmid)
    assert not wrong


@pytest.fixture
def settings(cluster: ProxmoxServer) -> dict[str, Any]:
    return cluster.settings()


@pytest.fixture
def provider(settings: dict[str, Any]) -> Iterator[ProxmoxProvider]:
    opened = ProxmoxProvider(settings)
    yield opened
    opened.close()


@pytest.fixture
def session(settings: dict[str, Any]) -> Iterator[Session]:
    opened = Session(ProxmoxSettings.from_options(settings))
    yield opened
    opened.close()
