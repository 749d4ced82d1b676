# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One libvirt and one running Linux guest for all; whoever changes more than disk contents makes a guest of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.open import open_provider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
from rigs.libvirt import LibvirtRig

MIB = 1 << 20


@pytest.fixture(scope="session")
def rig() -> Iterator[LibvirtRig]:
    with LibvirtRig() as started:
        yield started


@pytest.fixture(scope="session")
def scratch(rig: LibvirtRig) -> Path:
    folder = rig.directory / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def provider(rig: LibvirtRig, scratch: Path) -> Iterator[LibvirtProvider]:
    opened = open_provider("libvirt", {"uri": rig.uri, "scratch_dir": str(scratch)})
    assert isinstance(opened, LibvirtProvider)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def busy_guest(rig: LibvirtRig) -> Iterator[Guest]:
    """Linux with an agent, /mnt on vda (qcow2), and a second disk (raw), vdb, that is free to be written."""
    system = guests.place(guests.linux_disk(), rig.directory / "busy-system.qcow2")
    data = rig.directory / "busy-data.raw"
    with data.open("wb") as file:
        file.truncate(64 * MIB)
    machine = Machine("busy", (Disk(system), Disk(data, "raw")), boot="kernel", agent=True, network=True)
    guest = define_and_start(rig, machine)
    guest.console.wait_for(guests.READY, 120)
    guest.wait_for_agent()
    yield guest
    guest.destroy()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(scratch: Path) -> Iterator[None]:
    yield
    assert not list(scratch.iterdir())
