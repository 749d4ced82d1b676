# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM whose memory libvirt saved is off without having been shut down: nobody may take its disks for all it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Consistency, Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
from rigs.libvirt import LibvirtRig

from .harness import open_session, problems


@pytest.fixture(scope="module")
def saved(rig: LibvirtRig) -> Iterator[Guest]:
    """As `virsh managedsave` leaves it, or libvirt-guests with ON_SHUTDOWN=suspend."""
    disk = guests.place(guests.mbr_disk(rig.directory / "saved.seed", "saved"), rig.directory / "saved.qcow2")
    guest = define_and_start(rig, Machine("saved", (Disk(disk),), memory_mib=32))
    guest.console.wait_for(guests.boot_marker("saved"))
    guest.domain.managedSave(0)
    yield guest
    if guest.domain.hasManagedSaveImage():
        guest.domain.managedSaveRemove(0)
    guest.destroy()


def test_its_export_is_crash_consistent_and_says_why(provider: LibvirtProvider, saved: Guest) -> None:
    (found,) = problems(provider, provider.describe("saved"), "auto")
    assert "memory was saved" in found.message
    assert (found.severity, "managedsave-remove saved" in found.hint) == ("warning", True)
    with open_session(provider, "saved") as session:
        assert session.consistency == "crash_consistent"
        assert "memory was saved" in session.warnings[0]


@pytest.mark.parametrize("consistency", ["powered_off", "quiesced"])
def test_an_export_that_must_be_of_one_that_was_shut_down_is_refused(
    provider: LibvirtProvider, saved: Guest, consistency: Consistency
) -> None:
    (found,) = problems(provider, provider.describe("saved"), consistency)
    assert (found.severity, found.kind, "memory was saved" in found.message) == ("error", "conflict", True)


def test_it_is_not_removed_with_all_that_its_guest_had_not_written(
    rig: LibvirtRig, provider: LibvirtProvider, saved: Guest
) -> None:
    with pytest.raises(VmferryError) as refused:
        provider.remove(provider.describe("saved"), disks=True)
    assert (refused.value.kind, "memory was saved" in refused.value.message) == ("conflict", True)
    assert saved.domain.hasManagedSaveImage()
    assert (rig.directory / "saved.qcow2").exists()


def test_it_goes_on_after_it_was_exported(provider: LibvirtProvider, saved: Guest) -> None:
    with open_session(provider, "saved", tracking=Tracking(keep=True)) as session:
        session.keep_token()
    saved.domain.create()
    assert saved.domain.isActive()
    assert provider.describe("saved").power_state == "powered_on"
