# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One hypervisor for all plays. Its machine stays off: an export of it needs no boot and lasts as long as it is told."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .fleet_rig import fleet as fleet
from .playing import Play, Stage

MIB = 1 << 20
DISK, DATA = 24 * MIB, 20 * MIB
VM = "web01"


@pytest.fixture(scope="session")
def rig() -> Iterator[LibvirtRig]:
    with LibvirtRig() as started:
        yield started


@pytest.fixture(scope="session")
def vm(rig: LibvirtRig) -> Iterator[str]:
    raw, disk = rig.directory / "seed.raw", rig.directory / f"{VM}.qcow2"
    raw.touch()
    os.truncate(raw, DISK)
    with raw.open("r+b") as file:
        file.seek(MIB)
        file.write(random.Random(VM).randbytes(DATA))
    guests.place(raw, disk, "qcow2")
    raw.unlink()
    domain = rig.connect().defineXML(domain_xml(Machine(VM, disks=(Disk(disk),)), rig.directory))
    yield VM
    remove_domain(domain)


@pytest.fixture
def stage(rig: LibvirtRig, vm: str) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="vmferry-play-", dir="/tmp") as made:
        folder = Path(made)
        for name in ("scratch", "store"):
            (folder / name).mkdir()
        yield Stage(rig, folder, vm, dict(rig.environment))


@pytest.fixture(autouse=True)
def plays_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that fails leaves no play running."""
    started: list[Play] = []
    create = Play.__init__

    def init(self: Play, *arguments: object) -> None:
        create(self, *arguments)
        started.append(self)

    monkeypatch.setattr(Play, "__init__", init)
    yield
    for play in started:
        play.end()
