# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed on a VM that is off, or was in between: the chain goes on, and is exact."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Tracking
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, disk_sources, domain_xml, remove_domain, start_with_console
from rigs.libvirt import LibvirtRig

from .followed_chain import FollowedChain
from .harness import eventually, open_session
from .qemu_monitor import bitmaps_in_image

LEAF = 65536
MIB = 1 << 20
THEIRS = "<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"


@pytest.fixture
def domain(rig: LibvirtRig, provider: LibvirtProvider) -> Iterator[libvirt.virDomain]:
    """Off, with an empty disk, vda, that can be tracked, and one that cannot, vdb."""
    disks = (Disk(rig.directory / "resting.qcow2"), Disk(rig.directory / "resting.raw", "raw"))
    for disk in disks:
        subprocess.run(["qemu-img", "create", "-q", "-f", disk.image_format, str(disk.path), "32M"], check=True)
    defined = rig.connect().defineXML(domain_xml(Machine("resting", disks, boot="kernel"), rig.directory))
    yield defined
    remove_domain(rig.connect().lookupByName("resting"))  # libvirtd may be another by now
    for path in rig.directory.glob("resting.*"):
        path.unlink()


@pytest.fixture
def chain(provider: LibvirtProvider, domain: libvirt.virDomain, tmp_path: Path) -> FollowedChain:
    return FollowedChain(provider, "resting", tmp_path)


def started(rig: LibvirtRig, domain: libvirt.virDomain) -> Guest:
    guest = Guest(rig, "resting", start_with_console(domain))
    guest.console.wait_for(guests.READY, 120)
    return guest


def shut_down(guest: Guest) -> None:
    guest.console.run("sync")
    with suppress(EOFError, TimeoutError):
        guest.console.run("poweroff -f", 5)
    eventually(lambda: not guest.domain.isActive())
    guest.console.close()


def write_off(domain: libvirt.virDomain, *commands: str) -> None:
    image = disk_sources(domain.XMLDesc())["vda"]
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *arguments, image], check=True, stdout=subprocess.DEVNULL)


def test_what_is_written_to_the_image_of_a_vm_that_is_off_is_changed(
    domain: libvirt.virDomain, chain: FollowedChain
) -> None:
    write_off(domain, "write -P 1 0 4M")
    assert chain.follow() == {}
    write_off(domain, "write -P 2 1M 64k", "write -z 2M 128k", "write -P 3 20000000 1", "discard 3M 64k")
    assert chain.follow() == {
        "vda": [
            (1 * MIB, LEAF, "data"),
            (2 * MIB, 2 * LEAF, "zero"),
            (3 * MIB, LEAF, "zero"),
            (20_000_000 // LEAF * LEAF, LEAF, "data"),
        ]
    }
    assert chain.estimate == {"vda": 5 * LEAF}
    assert chain.follow() == {"vda": []}
    assert chain.estimate == {"vda": 0}
    assert bitmaps_in_image(Path(disk_sources(domain.XMLDesc())["vda"])) == {chain.token}


def test_a_chain_goes_on_over_power_snapshots_commits_and_a_crash_of_libvirtd(
    provider: LibvirtProvider, rig: LibvirtRig, domain: libvirt.virDomain, chain: FollowedChain, tmp_path: Path
) -> None:
    """Two chains, one of which sees every step, the other few; somebody else's checkpoint lives on beside them."""
    patient = FollowedChain(provider, "resting", tmp_path)
    chain.follow()
    patient.follow()
    guest = started(rig, domain)
    busy(guest)
    assert chain.follow()["vda"], "off, then on"
    guest.domain.checkpointCreateXML(THEIRS)
    overlay = guest.snapshot_external("newer")["vda"]
    busy(guest)
    assert chain.follow()["vda"], "over a snapshot"
    busy(guest)
    rig.kill()
    rig.start()
    assert chain.follow()["vda"], "over a crash of libvirtd"
    busy(guest)
    shut_down(guest)
    assert chain.token in bitmaps_in_image(overlay)
    assert chain.follow()["vda"], "on, then off, on a snapshot"
    assert patient.follow()["vda"], "its bitmaps are in both images"
    write_off(guest.domain, "write -P 7 5M 64k")
    guest = started(rig, guest.domain)
    busy(guest)
    guest.domain.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    eventually(lambda: "ready='yes'" in guest.domain.XMLDesc())
    guest.domain.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    eventually(lambda: "<mirror" not in guest.domain.XMLDesc())
    busy(guest)
    for one in (chain, patient):
        changed = one.follow()["vda"]
        assert any(offset <= 5 * MIB < offset + length for offset, length, _kind in changed)
        assert one.lost == ""
    assert sorted(provider.tokens(provider.describe("resting"))) == sorted([chain.token, patient.token])
    provider.forget(provider.describe("resting"), [chain.token, patient.token])
    assert [left.getName() for left in guest.domain.listAllCheckpoints()] == ["theirs"]
    shut_down(guest)
    assert bitmaps_in_image(rig.directory / "resting.qcow2") == {"theirs"}


def busy(guest: Guest) -> None:
    """Until something was written, something zeroed and something discarded."""
    guest.console.start_writer("/dev/vda", 8 * MIB, 24 * MIB)
    guest.console.run("while [ $(cat /run/writer.count) -lt 16 ] && [ ! -e /run/writer.stop ]; do sleep 0.05; done")
    assert guest.console.stop_writer() >= 16


def test_a_snapshot_that_nobody_told_of_the_bitmaps_loses_the_token(
    provider: LibvirtProvider, rig: LibvirtRig, domain: libvirt.virDomain, chain: FollowedChain
) -> None:
    chain.follow()
    base, overlay = rig.directory / "resting.qcow2", rig.directory / "resting.overlay"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(overlay)]
    subprocess.run(command, check=True)
    rig.connect().defineXML(domain.XMLDesc().replace(str(base), str(overlay)))
    write_off(domain, "write -P 1 0 64k")
    old = chain.token
    assert chain.follow() == {}
    assert chain.lost == f"The dirty bitmap of checkpoint {old} on vda of resting is missing or broken."
    assert bitmaps_in_image(base) == set()
    write_off(domain, "write -P 1 1M 64k")
    assert chain.follow() == {"vda": [(MIB, LEAF, "data")]}


def test_a_token_outlives_its_session_only_if_it_is_kept(
    provider: LibvirtProvider, domain: libvirt.virDomain, rig: LibvirtRig
) -> None:
    image = rig.directory / "resting.qcow2"
    with open_session(provider, "resting", tracking=Tracking(keep=True)) as session:
        assert provider.tokens(session.vm) == [session.token]
        assert bitmaps_in_image(image) == {session.token}
        with pytest.raises(libvirt.libvirtError, match="lock"):
            domain.create()
        session.confirm()
    assert (provider.tokens(session.vm), bitmaps_in_image(image)) == ([], set())
    with open_session(provider, "resting") as session:
        assert session.token == ""
    assert (provider.tokens(session.vm), bitmaps_in_image(image)) == ([], set())
    with open_session(provider, "resting", tracking=Tracking(keep=True)) as session:
        session.keep_token()
    assert (provider.tokens(session.vm), bitmaps_in_image(image)) == ([session.token], {session.token})
    assert len(provider.forget(session.vm, [session.token])) == 1
    assert (provider.tokens(session.vm), bitmaps_in_image(image)) == ([], set())
    assert provider.forget(session.vm, [session.token]) == []


def test_a_disk_that_cannot_be_tracked_has_no_token(provider: LibvirtProvider, domain: libvirt.virDomain) -> None:
    with open_session(provider, "resting", disks=("vdb",), tracking=Tracking(keep=True)) as session:
        assert session.token == ""
        assert provider.tokens(session.vm) == []
