# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An export is one point in time of all its disks, whatever the guest does meanwhile."""

from __future__ import annotations

import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start
from rigs.libvirt import LibvirtRig

from .conftest import BUCKET
from .exports import MIB, Bench, check, compare, convert, meanwhile, wait_for_backup

FILL = "dd if=/dev/urandom of=/dev/vdb bs=1M count=12 conv=notrunc,fsync 2> /dev/null"
RATE = "3MiB/s"
LOOP = """\
n=0
while [ ! -e /run/pair.stop ]; do
  n=$((n + 1))
  printf %08d $n | dd of=/dev/vdb bs=512 seek=60000 conv=notrunc,sync,fsync
  printf %08d $n | dd of=/dev/vdc bs=512 seek=200 conv=notrunc,sync,fsync
  echo $n > /run/pair.count
done 2> /dev/null
"""


def copy_frozen(bench: Bench, disk: str) -> Path:
    """Somebody else's copy of what the backup job serves, begun when the guest has had time to change the disk."""
    root = ET.fromstring(wait_for_backup(bench, "linux"))
    time.sleep(1.0)
    server, export = root.find("server"), root.find(f"disks/disk[@name='{disk}']")
    assert server is not None
    assert export is not None
    name = export.get("exportname") or disk
    return convert(f"nbd+unix:///{name}?socket={server.attrib['socket']}", "raw", bench.folder / "frozen.raw")


def test_machine_that_writes_hard_is_exported_as_of_its_frozen_moment(bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    with linux.console.writing("/dev/vdb", 0, 32 * MIB), meanwhile(lambda: copy_frozen(bench, "vdb")) as frozen:
        result = bench.export("linux", disks=("vdb",), verify="none", transfer={"bandwidth_limit": RATE})
    check(bench.stored(result))
    compare(bench.stored(result), "qcow2", frozen(), "raw")
    changed = subprocess.run(
        [
            "qemu-img",
            "compare",
            "-U",
            "-f",
            "raw",
            "-F",
            "raw",
            str(frozen()),
            str(bench.rig.directory / "linux-data.raw"),
        ],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    assert changed.returncode == 1  # or nothing was proved: the guest did write
    bench.assert_nothing_left("linux")


def test_machine_that_writes_hard_is_exported_to_s3_as_of_its_frozen_moment(s3_bench: Bench, linux: Guest) -> None:
    linux.console.run(FILL)
    with linux.console.writing("/dev/vdb", 0, 32 * MIB), meanwhile(lambda: copy_frozen(s3_bench, "vdb")) as frozen:
        result = s3_bench.export("linux", disks=("vdb",), verify="none", transfer={"bandwidth_limit": RATE})
    key = result["export"]["disks"][0]["url"].removeprefix(f"s3://{BUCKET}/")
    stored = s3_bench.folder / "stored.qcow2"
    s3_bench.download(key, stored)
    check(stored)
    compare(stored, "qcow2", frozen(), "raw")
    s3_bench.assert_nothing_left("linux")


def test_all_disks_are_of_one_moment(bench: Bench, linux: Guest) -> None:
    """The guest writes a number to one disk, then to the other: at any moment the second is at most one behind."""
    linux.console.run(f"rm -f /run/pair.stop; cat > /run/pair << 'EOF'\n{LOOP}EOF\nsh /run/pair > /dev/null 2>&1 &")
    linux.console.run("while [ ! -e /run/pair.count ]; do sleep 0.05; done")
    try:
        result = bench.export("linux")
    finally:
        linux.console.run("touch /run/pair.stop; sleep 0.5; rm /run/pair.count")
    assert [disk["name"] for disk in result["export"]["disks"]] == ["vda", "vdb", "vdc"]
    numbers = []
    for disk, sector in ((1, 60000), (2, 200)):
        raw = convert(bench.stored(result, disk), "qcow2", bench.folder / f"{disk}.raw")
        numbers.append(int(raw.read_bytes()[sector * 512 :][:8]))
    assert numbers[0] > 0
    assert numbers[0] - numbers[1] in (0, 1)
    bench.assert_nothing_left("linux")


def test_what_the_guest_discarded_or_zeroed_reads_as_zeros(bench: Bench, linux: Guest) -> None:
    fill = "dd if=/dev/urandom of=/dev/vdc bs=1M count=8 conv=notrunc,fsync 2> /dev/null"
    discard = "blkdiscard -o 2097152 -l 1048576 /dev/vdc"
    zero = "dd if=/dev/zero of=/dev/vdc bs=1M seek=4 count=1 conv=notrunc,fsync 2> /dev/null"
    linux.console.run(f"{fill} && {discard} && {zero}")
    sums = linux.console.run("sha256sum /dev/vdc").split()[0]
    result = bench.export("linux", disks=("vdc",), consistency="crash_consistent")
    raw = convert(bench.stored(result), "qcow2", bench.folder / "vdc.raw")
    data = raw.read_bytes()
    assert not any(data[2 * MIB : 3 * MIB])
    assert not any(data[4 * MIB : 5 * MIB])
    assert all(any(data[at * MIB : (at + 1) * MIB]) for at in (0, 1, 3, 5, 6, 7))
    assert sums == subprocess.run(["sha256sum", raw], capture_output=True, text=True, check=True).stdout.split()[0]
    bench.assert_nothing_left("linux")


def test_guest_with_its_agent_is_not_frozen_for_a_crash_consistent_export(bench: Bench, linux: Guest) -> None:
    linux.console.run(": > /run/freezes")
    result = bench.export("linux", disks=("vdc",), consistency="crash_consistent", verify="none")
    assert result["export"]["consistency"] == "crash_consistent"
    assert linux.console.run("cat /run/freezes") == ""
    bench.assert_nothing_left("linux")


def test_guest_with_its_agent_is_quiesced(bench: Bench, linux: Guest) -> None:
    result = bench.export("linux", disks=("vdc",), consistency="quiesced")
    assert result["export"]["consistency"] == "quiesced"
    assert linux.console.run("cat /run/freezes").split()[-2:] == ["freeze", "thaw"]
    linux.console.run("touch /mnt/writable-again && sync && rm /mnt/writable-again")
    bench.assert_nothing_left("linux")


@pytest.fixture(scope="module")
def layered(rig: LibvirtRig) -> Iterator[Guest]:
    """A Linux machine on an external snapshot, which wrote before and after it was taken."""
    disk = rig.directory / "layered.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "16M"], check=True)
    guest = define_and_start(rig, Machine("layered", disks=(Disk(disk),), boot="kernel"))
    guest.console.wait_for(guests.READY)
    guest.console.run("dd if=/dev/urandom of=/dev/vda bs=1M count=8 conv=notrunc,fsync 2> /dev/null")
    guest.snapshot_external("middle")
    guest.console.run("echo of-the-middle | dd of=/dev/vda bs=512 seek=100 conv=notrunc,sync,fsync 2> /dev/null")
    guest.snapshot_external("newest")
    guest.console.run("echo the-newest-byte | dd of=/dev/vda bs=512 seek=9000 conv=notrunc,sync,fsync 2> /dev/null")
    yield guest
    guest.destroy()


@pytest.mark.parametrize("power", ["on", "off"])
def test_machine_on_snapshots_is_exported_with_its_newest_byte(bench: Bench, layered: Guest, power: str) -> None:
    if power == "off":
        layered.domain.destroy()
    result = bench.export("layered")
    data = convert(bench.stored(result), "qcow2", bench.folder / "layered.raw").read_bytes()
    assert data[100 * 512 :].startswith(b"of-the-middle\n")
    assert data[9000 * 512 :].startswith(b"the-newest-byte\n")
    assert all(any(data[at * MIB : (at + 1) * MIB]) for at in range(8))
    check(bench.stored(result))
    if power == "off":
        newest = next(bench.rig.directory.glob("*.newest"))
        compare(bench.stored(result), "qcow2", newest, "qcow2")
    bench.assert_nothing_left("layered", runs=power == "on")
