# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export that dies, or whose VM does, leaves neither a checkpoint nor a bitmap, unless it was about to commit."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start, domain_xml
from rigs.libvirt import LibvirtRig

from .harness import eventually, exporter, is_running, open_session, read_all, watchdog_of
from .qemu_monitor import bitmaps_in_image, bitmaps_in_memory


@pytest.fixture
def guest(rig: LibvirtRig, tmp_path: Path) -> Iterator[Guest]:
    image = guests.place(guests.mbr_disk(tmp_path / "raw", "mortal", 8 << 20), rig.directory / "mortal.qcow2")
    started = define_and_start(rig, Machine("mortal", (Disk(image),)))
    yield started
    started.destroy()
    image.unlink()


def opened(rig: LibvirtRig, scratch: Path, token: str) -> subprocess.Popen[str]:
    process = exporter(rig.uri, scratch, "mortal", "auto", token=token)
    assert process.stdout is not None
    assert process.stdout.readline() == "OPEN\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


@pytest.mark.parametrize("power", ["on", "off"])
@pytest.mark.parametrize("token", ["made", "kept"])
def test_a_killed_exporter_leaves_a_token_only_if_it_was_about_to_commit(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, scratch: Path, power: str, token: str
) -> None:
    if power == "off":
        guest.domain.destroy()
    process = opened(rig, scratch, token)
    vm = provider.describe("mortal")
    made = provider.tokens(vm)
    assert len(made) == 1
    watchdog = watchdog_of(scratch)
    kill(process)
    eventually(lambda: not is_running(watchdog))
    assert not list(scratch.iterdir())
    left = [] if token == "made" else made
    assert provider.tokens(vm) == left
    assert bitmaps(guest, rig) == set(left)
    provider.forget(vm, made)
    assert bitmaps(guest, rig) == set()


def bitmaps(guest: Guest, rig: LibvirtRig) -> set[str]:
    return bitmaps_in_memory(guest) if guest.domain.isActive() else bitmaps_in_image(rig.directory / "mortal.qcow2")


@pytest.mark.parametrize("power", ["on", "off"])
@pytest.mark.parametrize("token", ["made", "kept"])
def test_the_next_run_removes_what_nobody_was_left_to_remove(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, scratch: Path, power: str, token: str
) -> None:
    if power == "off":
        guest.domain.destroy()
    process = opened(rig, scratch, token)
    vm = provider.describe("mortal")
    made = provider.tokens(vm)
    os.kill(watchdog_of(scratch), signal.SIGKILL)
    kill(process)
    assert provider.tokens(vm) == made
    assert len(provider.clean_up(vm)) == 1
    left = [] if token == "made" else made
    assert provider.tokens(vm) == left
    assert bitmaps(guest, rig) == set(left)


def test_a_vm_that_is_powered_off_meanwhile_keeps_nothing(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, tmp_path: Path
) -> None:
    with pytest.raises(VmferryError, match="powered off"):  # noqa: PT012, SIM117
        with open_session(provider, "mortal", tracking=Tracking(keep=True)) as session:
            guest.domain.destroy()
            assert bitmaps_in_image(rig.directory / "mortal.qcow2") == {session.token}
            read_all(session.disks[0].source, tmp_path / "lost")
    assert provider.tokens(session.vm) == []
    assert bitmaps(guest, rig) == set()


def test_a_vm_that_is_gone_when_it_is_powered_off_keeps_nothing(
    provider: LibvirtProvider, rig: LibvirtRig, scratch: Path
) -> None:
    image = rig.directory / "transient.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "8M"], check=True)
    domain = rig.connect().createXML(domain_xml(Machine("transient", (Disk(image),)), rig.directory))
    with open_session(provider, "transient", tracking=Tracking(keep=True)) as session:
        domain.destroy()
        assert bitmaps_in_image(image) == {session.token}
    eventually(lambda: not list(scratch.iterdir()))
    assert bitmaps_in_image(image) == set()
    assert provider.forget(session.vm, [session.token]) == [], "what is gone with its VM is no error"


def test_a_vm_that_is_powered_off_and_whose_exporter_is_killed_keeps_nothing(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, scratch: Path
) -> None:
    process = opened(rig, scratch, "made")
    watchdog = watchdog_of(scratch)
    guest.domain.destroy()
    assert len(bitmaps(guest, rig)) == 1
    kill(process)
    eventually(lambda: not is_running(watchdog))
    assert provider.tokens(provider.describe("mortal")) == []
    assert bitmaps(guest, rig) == set()


def test_an_exporter_killed_before_its_bitmap_is_used_leaves_none(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, scratch: Path
) -> None:
    guest.domain.destroy()
    process = exporter(rig.uri, scratch, "mortal", failpoint="token_made", token="made")
    assert process.wait() == -signal.SIGKILL
    eventually(lambda: not list(scratch.iterdir()))
    assert provider.tokens(provider.describe("mortal")) == []
    assert bitmaps(guest, rig) == set()


@pytest.mark.parametrize("then", ["off", "on"])
def test_a_crash_of_qemu_breaks_a_token_and_the_broken_goes(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, then: str
) -> None:
    with open_session(provider, "mortal", tracking=Tracking(keep=True)) as session:
        session.keep_token()
    guest.domain.destroy()  # stores the bitmap, so that the next QEMU marks it as in use
    guest.domain.create()
    crash(guest, rig)
    if then == "on":
        guest.domain.create()
    broken = session.token
    with open_session(provider, "mortal", tracking=Tracking(broken, keep=True)) as session:
        assert "is missing or broken" in session.lost
        assert broken in session.lost
        assert session.disks[0].changes is None
        session.keep_token()
    assert provider.tokens(session.vm) == [session.token]
    assert bitmaps(guest, rig) == {session.token}
    with open_session(provider, "mortal", tracking=Tracking(session.token)) as session:
        assert session.lost == ""
        assert session.disks[0].changes is not None
        assert [extent.kind for extent in session.disks[0].changes.extents()] == ["unchanged"]


def crash(guest: Guest, rig: LibvirtRig) -> None:
    (said,) = rig.directory.rglob("mortal.pid")
    os.kill(int(said.read_text()), signal.SIGKILL)
    eventually(lambda: not guest.domain.isActive())
