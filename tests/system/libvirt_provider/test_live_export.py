# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a running guest, at one point in time, whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
from rigs.libvirt import LibvirtRig

from .harness import nbdcopy, open_session, problems, read_all, sha256, source_of, target_socket


def test_what_is_read_equals_what_another_client_reads_while_the_guest_writes(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, tmp_path: Path
) -> None:
    console = busy_guest.console
    console.start_writer("/dev/vdb", 0, 48 << 20)
    try:
        with open_session(provider, "busy") as session:
            ours = read_all(source_of(session, "vdb"), tmp_path / "ours")
            time.sleep(0.5)
            theirs = nbdcopy(target_socket(scratch), "vdb", tmp_path / "theirs")
            assert sha256(ours) == sha256(theirs)
    finally:
        assert console.stop_writer() > 0
    now = busy_guest.console.run("sha256sum /dev/vdb").split()[0]
    assert now != sha256(ours), "the guest wrote nothing meanwhile: the test proves nothing"


def test_two_disks_are_frozen_at_the_same_moment(provider: LibvirtProvider, busy_guest: Guest, tmp_path: Path) -> None:
    """The guest writes a growing number to one disk, then to the other, so the first is never behind."""
    console = busy_guest.console
    console.run(
        "rm -f /run/counter.stop; (n=0; while [ ! -e /run/counter.stop ]; do n=$((n + 1)); "
        "printf '%08d' $n | dd of=/mnt/number bs=8 conv=notrunc,fsync; "
        "printf '%08d' $n | dd of=/dev/vdb bs=8 seek=7000000 conv=notrunc,fsync; done) > /dev/null 2>&1 &"
    )
    time.sleep(0.5)
    try:
        with open_session(provider, "busy", "crash_consistent") as session:
            first = read_all(source_of(session, "vda"), tmp_path / "first")
            time.sleep(0.5)
            second = read_all(source_of(session, "vdb"), tmp_path / "second")
    finally:
        console.run("touch /run/counter.stop; sleep 0.3")
    with second.open("rb") as file:
        file.seek(56_000_000)
        on_second = int(file.read(8))
    on_first = int(file_in_guestdata(first, "number", tmp_path))
    assert 0 < on_second <= on_first <= on_second + 1


def file_in_guestdata(image: Path, name: str, folder: Path) -> bytes:
    """Out of the ext4 file system in the second partition; its journal is replayed on a copy first."""
    layout = subprocess.run(["/sbin/sfdisk", "--json", str(image)], capture_output=True, check=True).stdout
    offset = json.loads(layout)["partitiontable"]["partitions"][1]["start"]
    partition = folder / "partition"
    with image.open("rb") as source, partition.open("wb") as target:
        source.seek(offset * 512)
        target.write(source.read())
    subprocess.run(["/sbin/e2fsck", "-fy", str(partition)], capture_output=True, check=False)
    done = subprocess.run(["/sbin/debugfs", "-R", f"cat {name}", str(partition)], capture_output=True, check=True)
    return done.stdout


def test_a_quiesced_export_has_a_clean_file_system_and_the_guest_goes_on(
    provider: LibvirtProvider, busy_guest: Guest, tmp_path: Path
) -> None:
    busy_guest.console.run("echo kept > /mnt/quiesced")  # not synced: only a freeze brings it to the disk
    with open_session(provider, "busy", "quiesced") as session:
        assert session.consistency == "quiesced"
        busy_guest.console.run("echo after > /mnt/after; sync", 10)  # would hang were it still frozen
        image = read_all(source_of(session, "vda"), tmp_path / "image")
    assert file_in_guestdata(image, "quiesced", tmp_path) == b"kept\n"


def test_only_chosen_disks_take_part(provider: LibvirtProvider, busy_guest: Guest) -> None:
    with open_session(provider, "busy", disks=("vdb",)) as session:
        assert [disk.spec.name for disk in session.disks] == ["vdb"]


def test_the_newest_byte_on_an_external_snapshot_is_exported_on_and_off(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    base = guests.place(guests.linux_disk(), rig.directory / "chain.qcow2")
    guest = define_and_start(rig, Machine("chain", (Disk(base),), boot="kernel"))
    try:
        guest.console.wait_for(guests.READY, 120)
        put = "printf {} | dd of=/dev/vda bs=1 seek=4000 conv=notrunc,fsync"
        guest.console.run(put.format("old-byte"))
        for name in ("one", "two"):
            guest.snapshot_external(name)
            guest.console.run(put.format(f"in-{name}__"))
        assert [snapshot.name for snapshot in provider.describe("chain").snapshots] == ["one", "two"]
        with open_session(provider, "chain") as session:
            live = read_all(session.disks[0].source, tmp_path / "live")
        assert live.read_bytes()[4000:4008] == b"in-two__"
        guest.domain.destroy()
        with open_session(provider, "chain") as session:
            assert session.consistency == "powered_off"
            off = read_all(session.disks[0].source, tmp_path / "off")
        assert sha256(off) == sha256(live)
        reference = tmp_path / "reference"
        newest = provider.describe("chain").disks[0].source
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", newest, str(reference)], check=True)
        assert sha256(off) == sha256(reference)
    finally:
        guest.destroy()


def test_without_an_agent_auto_says_that_it_is_only_crash_consistent_and_quiesced_fails(
    provider: LibvirtProvider, rig: LibvirtRig
) -> None:
    disk = guests.mbr_disk(rig.directory / "plain.raw", "plain")
    guest = define_and_start(rig, Machine("plain", (Disk(disk, "raw"),)))
    try:
        with open_session(provider, "plain") as session:
            assert session.consistency == "crash_consistent"
            assert "agent" in " ".join(session.warnings)
        with pytest.raises(VmferryError) as caught, open_session(provider, "plain", "quiesced"):
            pass
        assert caught.value.kind == "unsupported"
        vm = provider.describe("plain")
        kinds = [finding.kind for finding in problems(provider, vm, "quiesced")]
        assert kinds == ["unsupported"]
        with open_session(provider, "plain", "crash_consistent") as session:
            assert not session.warnings
    finally:
        guest.destroy()


def test_a_restart_of_libvirtd_does_not_disturb_the_copy_or_its_end(
    provider: LibvirtProvider, busy_guest: Guest, rig: LibvirtRig, scratch: Path, tmp_path: Path
) -> None:
    with open_session(provider, "busy", "crash_consistent") as session:
        rig.kill()
        try:
            ours = read_all(source_of(session, "vdb"), tmp_path / "ours")
            theirs = nbdcopy(target_socket(scratch), "vdb", tmp_path / "theirs")
            assert sha256(ours) == sha256(theirs)
        finally:
            starter = threading.Timer(1.0, rig.start)  # it is still down when the export begins to end
            starter.start()
    starter.join()
    assert busy_guest.domain.jobStats()["type"] == 0
    assert busy_guest.domain.isActive()


def test_a_guest_that_is_powered_off_meanwhile_is_the_reason_given(
    provider: LibvirtProvider, rig: LibvirtRig, tmp_path: Path
) -> None:
    disk = guests.mbr_disk(rig.directory / "short.raw", "short", 8 << 20)
    guest = define_and_start(rig, Machine("short", (Disk(disk, "raw"),)))
    try:
        with pytest.raises(VmferryError, match="short was powered off while vda") as caught:  # noqa: PT012, SIM117
            with open_session(provider, "short") as session:
                guest.domain.destroy()
                read_all(session.disks[0].source, tmp_path / "short")
        assert caught.value.kind == "conflict"
        assert caught.value.retryable
    finally:
        guest.destroy()


def test_a_job_that_somebody_aborts_is_the_reason_given(
    provider: LibvirtProvider, busy_guest: Guest, tmp_path: Path
) -> None:
    with pytest.raises(VmferryError, match="aborted by somebody else") as caught:  # noqa: PT012, SIM117
        with open_session(provider, "busy", "crash_consistent", ("vdb",)) as session:
            busy_guest.domain.abortJob()
            while busy_guest.domain.jobStats()["type"] != 0:  # it ends behind the call's back
                time.sleep(0.01)
            read_all(session.disks[0].source, tmp_path / "aborted")
    assert caught.value.kind == "conflict"


def test_libvirts_own_description_is_kept(provider: LibvirtProvider, busy_guest: Guest) -> None:
    with open_session(provider, "busy", "crash_consistent", ("vdb",)) as session:
        assert b"<name>busy</name>" in session.native["domain.xml"]
        assert session.vm.disks[1] == session.disks[0].spec
        assert abs(session.taken_at - time.time()) < 60


def test_a_folder_that_cannot_be_removed_is_a_warning_and_not_the_end_of_an_export_that_is_done(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, tmp_path: Path
) -> None:
    with ExitStack() as unmounting:
        with open_session(provider, "busy", "crash_consistent", ("vdb",)) as session:
            read_all(session.disks[0].source, tmp_path / "copy")
            (folder,) = scratch.iterdir()
            held = folder / "held"
            held.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "none", str(held)], check=True)
            unmounting.callback(subprocess.run, ["umount", str(held)], check=True)
        assert str(held) in " ".join(session.warnings)
        assert busy_guest.domain.jobStats()["type"] == 0
    shutil.rmtree(folder, ignore_errors=True)  # the watchdog may be at it still
