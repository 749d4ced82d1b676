# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure is told and counted, and stops no other VM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plays.fleet_rig import Fleet, off_vms
from rigs.libvirt import LibvirtRig


@pytest.fixture(scope="session")
def fleet_libvirt() -> Iterator[LibvirtRig]:
    with LibvirtRig() as rig:
        yield rig


@pytest.fixture
def fleet(fleet_libvirt: LibvirtRig) -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="vmferry-", dir="/tmp") as folder:
        yield Fleet(Path(folder), {"kvm01": fleet_libvirt})


def test_one_that_fails_is_the_only_one_marked_and_the_others_are_exported(
    fleet: Fleet, fleet_libvirt: LibvirtRig
) -> None:
    fleet.add_hosts(["web01", "web02", "web03"], "kvm01")
    with off_vms(fleet_libvirt, ["web01", "web03"]):
        ended = fleet.run()
    print(ended.output)
    assert ended.rc == 2
    assert ended.failed == {"web02"}
    assert ended.changed == {"web01", "web03"}
    assert fleet.exports() == ["web01", "web03"]
    assert ended.states() == {"web01": "exported", "web02": "failed", "web03": "exported"}
    assert "There is no VM web02" in ended.line("web02")
    assert "full" in ended.line("web01")
