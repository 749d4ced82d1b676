# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a VM that runs: everything, whatever else happens to it, and nothing that did not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt import live_export, since
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .followed_chain import FollowedChain
from .harness import open_session
from .qemu_monitor import bitmaps_in_memory, remove_bitmap

MIB = 1 << 20
LEAF = 65536


@pytest.fixture(scope="module")
def guest(rig: LibvirtRig) -> Iterator[Guest]:
    """Linux with two disks that can be tracked, vda and vdb, and one that cannot, vdc; all are free to be written."""
    disks = []
    for name, format, size in (("first", "qcow2", 32), ("second", "qcow2", 16), ("third", "raw", 4)):
        path = rig.directory / f"tracked-{name}"
        subprocess.run(["qemu-img", "create", "-q", "-f", format, str(path), f"{size}M"], check=True)
        disks.append(Disk(path, format))
    started = define_and_start(rig, Machine("tracked", tuple(disks), boot="kernel"))
    started.console.wait_for(guests.READY, 120)
    yield started
    started.destroy()


@pytest.fixture
def chain(provider: LibvirtProvider, guest: Guest, tmp_path: Path) -> Iterator[FollowedChain]:
    followed = FollowedChain(provider, "tracked", tmp_path)
    yield followed
    provider.forget(provider.describe("tracked"), provider.tokens(provider.describe("tracked")))


def write(guest: Guest, device: str, leaf: int, count: int = 1) -> None:
    guest.console.run(f"dd if=/dev/urandom of={device} bs={LEAF} count={count} seek={leaf} conv=notrunc,fsync")


def test_just_what_the_guest_wrote_is_changed_and_what_it_discarded_is_zero(guest: Guest, chain: FollowedChain) -> None:
    write(guest, "/dev/vda", 0, 64)
    assert chain.follow() == {}, "the first export is a full one"
    write(guest, "/dev/vda", 100)
    guest.console.run("printf hello | dd of=/dev/vda bs=1 seek=20000000 conv=notrunc,fsync")
    guest.console.run(f"/sbin/blkdiscard -o {16 * LEAF} -l {8 * LEAF} /dev/vda")
    write(guest, "/dev/vdb", 7)
    assert chain.follow() == {
        "vda": [
            (16 * LEAF, 8 * LEAF, "zero"),
            (100 * LEAF, LEAF, "data"),
            (20_000_000 // LEAF * LEAF, LEAF, "data"),
        ],
        "vdb": [(7 * LEAF, LEAF, "data")],
    }
    assert chain.estimate == {"vda": 10 * LEAF, "vdb": LEAF}
    assert chain.follow() == {"vda": [], "vdb": []}
    assert not chain.lost


def test_two_chains_over_a_guest_that_never_rests_are_both_exact(
    provider: LibvirtProvider, guest: Guest, chain: FollowedChain, tmp_path: Path
) -> None:
    other = FollowedChain(provider, "tracked", tmp_path)
    guest.console.start_writer("/dev/vda", 0, 24 * MIB)
    try:
        changed = [one.follow() for one in (chain, other, chain, chain, other, chain, other, other, chain)]
    finally:
        assert guest.console.stop_writer() > 0
    assert all(one["vda"] for one in changed[2:]), "the guest wrote nothing meanwhile: the test proves nothing"
    assert {kind for one in changed[2:] for _offset, _length, kind in one["vda"]} == {"data", "zero"}
    assert sorted(provider.tokens(provider.describe("tracked"))) == sorted([chain.token, other.token])


def test_only_an_export_that_is_about_to_commit_leaves_a_token(provider: LibvirtProvider, guest: Guest) -> None:
    with open_session(provider, "tracked", tracking=Tracking(keep=True)) as session:
        assert provider.tokens(session.vm) == [session.token]
    assert provider.tokens(session.vm) == []
    with pytest.raises(RuntimeError), open_session(provider, "tracked", tracking=Tracking(keep=True)):
        raise RuntimeError("the store is full")
    assert provider.tokens(session.vm) == []
    with open_session(provider, "tracked") as session:
        assert session.token == ""
        assert provider.tokens(session.vm) == []
    with pytest.raises(RuntimeError):  # noqa: PT012, SIM117
        with open_session(provider, "tracked", tracking=Tracking(keep=True)) as session:
            session.keep_token()
            raise RuntimeError("whether the commit was made, nobody knows")
    assert provider.tokens(session.vm) == [session.token]
    assert provider.forget(session.vm, [session.token]) == [f"Dropped checkpoint {session.token} of tracked."]
    assert provider.forget(session.vm, [session.token]) == []
    assert guest.domain.listAllCheckpoints() == []


def test_an_unknown_token_is_lost_and_a_new_one_is_made(guest: Guest, chain: FollowedChain) -> None:
    chain.token = "vmferry-01234567-89abcdef"
    assert chain.follow() == {}
    assert chain.lost == "tracked has no checkpoint vmferry-01234567-89abcdef."
    assert chain.estimate == {}
    write(guest, "/dev/vda", 3)
    assert chain.follow()["vda"] == [(3 * LEAF, LEAF, "data")]
    assert not chain.lost


def test_a_bitmap_that_somebody_removed_is_lost_and_its_checkpoint_goes(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, chain: FollowedChain, tmp_path: Path
) -> None:
    other = FollowedChain(provider, "tracked", tmp_path)
    other.follow()
    chain.follow()
    broken = chain.token
    remove_bitmap(guest, rig.directory / "tracked-first", broken)
    assert chain.follow() == {}
    assert chain.lost == f"A dirty bitmap of checkpoint {broken} of tracked is missing or broken."
    assert sorted(provider.tokens(provider.describe("tracked"))) == sorted([chain.token, other.token])
    assert bitmaps_in_memory(guest) == {chain.token, other.token}, "its bitmap of the other disk goes too"
    write(guest, "/dev/vdb", 9)
    assert chain.follow() == {"vda": [], "vdb": [(9 * LEAF, LEAF, "data")]}
    assert other.follow() == {"vda": [], "vdb": [(9 * LEAF, LEAF, "data")]}
    assert (chain.lost, other.lost) == ("", "")


def test_a_job_that_libvirt_refuses_at_the_last_moment_is_begun_with_less(
    provider: LibvirtProvider, rig: LibvirtRig, guest: Guest, chain: FollowedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the bitmaps and the beginning, somebody removes one."""
    chain.follow()
    monkeypatch.setattr(since, "is_whole", lambda *_unused: True)
    remove_bitmap(guest, rig.directory / "tracked-second", chain.token)
    assert chain.follow() == {}
    assert "missing or broken bitmap" in chain.lost


def test_an_export_is_made_where_no_checkpoint_can_be(
    provider: LibvirtProvider, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_export, "can_hold_bitmaps", lambda _disk: True)  # vdc is raw
    with open_session(provider, "tracked", "crash_consistent", tracking=Tracking(keep=True)) as session:
        assert session.token == ""
        assert "No increment can stand on this export of tracked." in session.warnings[0]
        assert len(session.disks) == 3
        session.keep_token()
    assert provider.tokens(session.vm) == []


def test_only_chosen_disks_are_tracked_and_those_that_were_not_have_no_changes(
    provider: LibvirtProvider, guest: Guest
) -> None:
    with open_session(provider, "tracked", disks=("vdb", "vdc"), tracking=Tracking(keep=True)) as first:
        first.keep_token()
    with open_session(provider, "tracked", tracking=Tracking(first.token)) as session:
        assert [disk.changes is not None for disk in session.disks] == [False, True, False]
        assert session.lost == ""
    provider.forget(first.vm, [first.token])


def test_checkpoints_of_others_are_neither_told_nor_dropped(provider: LibvirtProvider, guest: Guest) -> None:
    disks = "<disks><disk name='vda' checkpoint='bitmap'/></disks>"
    xml = f"<domaincheckpoint><name>virtnbdbackup.0</name>{disks}</domaincheckpoint>"
    checkpoint = guest.domain.checkpointCreateXML(xml)
    vm = provider.describe("tracked")
    assert provider.tokens(vm) == []
    with pytest.raises(VmferryError, match="no token of an export") as caught:
        provider.forget(vm, ["virtnbdbackup.0"])
    assert caught.value.kind == "invalid_config"
    checkpoint.delete()


def test_disks_that_changed_places_have_lost_their_token(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    """Each has a bitmap of that name, and it is whole; but it is of another disk."""
    paths = [rig.directory / "here.qcow2", rig.directory / "there.qcow2"]
    for path in paths:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M"], check=True)
    machine = Machine("places", tuple(Disk(path) for path in paths))
    domain = rig.connect().defineXML(domain_xml(machine, rig.directory))
    try:
        token = kept_token(provider, "places")
        here, there, free = str(paths[0]), str(paths[1]), "somewhere"
        exchanged = domain.XMLDesc().replace(here, free).replace(there, here).replace(free, there)
        rig.connect().defineXML(exchanged)
        for power in ("off", "on"):
            if power == "on":
                domain.create()
            with open_session(provider, "places", tracking=Tracking(token)) as session:
                assert session.lost == f"vda of places is another disk than when checkpoint {token} was made."
                assert [disk.changes for disk in session.disks] == [None, None]
    finally:
        remove_domain(domain)


def kept_token(provider: LibvirtProvider, vm: str) -> str:
    with open_session(provider, vm, tracking=Tracking(keep=True)) as session:
        session.keep_token()
    return session.token


def test_an_old_qcow2_is_exported_without_a_token(provider: LibvirtProvider, rig: LibvirtRig) -> None:
    """Version 2 has no bitmaps; QEMU refuses the whole job if it is asked for one."""
    path = rig.directory / "old.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", str(path), "8M"], check=True)
    domain = rig.connect().defineXML(domain_xml(Machine("old", (Disk(path),)), rig.directory))
    try:
        for power in ("off", "on"):
            if power == "on":
                domain.create()
            with open_session(provider, "old", "auto", tracking=Tracking(keep=True)) as session:
                assert session.token == ""
            assert not any("increment" in warning for warning in session.warnings)
    finally:
        remove_domain(domain)


def test_a_disk_that_nobody_tracks_is_named_before_the_export(provider: LibvirtProvider, guest: Guest) -> None:
    vm = provider.describe("tracked")
    told = [
        finding for finding in provider.check_export(vm, vm.disks, "crash_consistent") if "tracks" in finding.message
    ]
    assert [finding.severity for finding in told] == ["info"]
    assert "vdc of tracked" in told[0].message
