# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a VM that runs: everything, whatever else happens to it, and nothing that did not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
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
