# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A vCenter of its own for each worker, and the provider connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from rigs.vsphere import VSphere


@pytest.fixture(scope="session")
def server() -> Iterator[VSphere]:
    with VSphere() as started:
        yield started


@pytest.fixture
def vcenter(server: VSphere) -> Iterator[VSphere]:
    """Without what a test before made go wrong, or left as it killed its work, and with no call on its list."""
    server.lapse()
    server.expire_sessions()
    server.forget_calls()
    yield server
    server.heal()
    server.settings(tools_running=True, calls_per_session=0)


@pytest.fixture
def settings(server: VSphere) -> dict[str, Any]:
    return {
        "hostname": server.host,
        "port": server.port,
        "username": server.user,
        "password": server.password,
        "thumbprint": server.thumbprint,
    }


@pytest.fixture
def provider(vcenter: VSphere, settings: dict[str, Any]) -> Iterator[VsphereProvider]:
    opened = VsphereProvider(settings)
    yield opened
    opened.close()
