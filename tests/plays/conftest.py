# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One hypervisor for all plays. Its machine stays off: an export needs no boot, and lasts as long as it is told to."""

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
from rigs.sshd import SshServer, sshd

from . import fleet_rig
from .playing import Stage

fleet = fleet_rig.fleet  # a fixture
MIB = 1 << 20
DISK, DATA = 24 * MIB, 20 * MIB
VMS = ("web01", "web02", "web03", "web04")


@pytest.fixture(scope="session")
def rig() -> Iterator[LibvirtRig]:
    with LibvirtRig() as started:
        yield started


@pytest.fixture(scope="session")
def vms(rig: LibvirtRig) -> Iterator[tuple[str, ...]]:
    """Several, for one is exported once at a time. Each has a disk of its own: exports note in it what changes."""
    raw = rig.directory / "seed.raw"
    raw.touch()
    os.truncate(raw, DISK)
    with raw.open("r+b") as file:
        file.seek(MIB)
        file.write(random.Random(VMS[0]).randbytes(DATA))
    disks = {name: rig.directory / f"{name}.qcow2" for name in VMS}
    for disk in disks.values():
        guests.place(raw, disk, "qcow2")
    raw.unlink()
    machines = [Machine(name, disks=(Disk(disk),)) for name, disk in disks.items()]
    domains = [rig.connect().defineXML(domain_xml(machine, rig.directory)) for machine in machines]
    yield VMS
    for domain in domains:
        remove_domain(domain)


@pytest.fixture(scope="session")
def ssh_server() -> Iterator[SshServer]:
    with sshd() as server:
        yield server


@pytest.fixture
def stage(rig: LibvirtRig, vms: tuple[str, ...]) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="vmferry-play-", dir="/tmp") as made:
        folder = Path(made)
        for name in ("scratch", "store"):
            (folder / name).mkdir()
        made_for_test = Stage(rig, folder, vms[0], vms)
        yield made_for_test
        made_for_test.end()
