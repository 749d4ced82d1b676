# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rigs do what the other tests rely on: machines boot, write, survive a dead libvirtd, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from rigs import guests
from rigs.domain import Disk, Machine, boot_and_expect, define_and_start, domain_xml
from rigs.libvirt import LibvirtRig
from rigs.loop import loop_device
from rigs.serial import CommandFailed

MIB = 1 << 20


@pytest.fixture(scope="module")
def rig() -> Iterator[LibvirtRig]:
    with LibvirtRig() as rig:
        yield rig


def processes_mentioning(text: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in arguments:
            found.append(arguments)
    return found


def image_information(path: Path) -> dict[str, object]:
    done = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], check=True, capture_output=True)
    information: dict[str, object] = json.loads(done.stdout)
    return information


@pytest.mark.parametrize(("name", "assembled"), [("mbr", guests.MBR), ("screen", guests.SCREEN)])
def test_boot_sector_is_the_assembled_source(tmp_path: Path, name: str, assembled: bytes) -> None:
    source = Path(guests.__file__).with_name("guest") / f"{name}.s"
    made, image = tmp_path / f"{name}.o", tmp_path / f"{name}.bin"
    subprocess.run(["as", "--32", "-o", made, source], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, image], check=True)
    assert image.read_bytes() == assembled


@pytest.mark.parametrize(("bus", "image_format"), [("virtio", "raw"), ("scsi", "qcow2"), ("sata", "qcow2")])
def test_boot_sector_prints_its_label(rig: LibvirtRig, tmp_path: Path, bus: str, image_format: str) -> None:
    raw = guests.mbr_disk(tmp_path / "disk.raw", "alpha", 3 * MIB)
    disk = Disk(guests.place(raw, tmp_path / f"disk.{image_format}.copy", image_format), image_format, bus)  # type: ignore[arg-type]
    printed = boot_and_expect(rig, domain_xml(Machine("sector", (disk,)), tmp_path), guests.boot_marker("alpha"), 20)
    assert "READ-ERROR" not in printed


def test_a_disk_that_does_not_boot_is_told_apart(rig: LibvirtRig, tmp_path: Path) -> None:
    empty = tmp_path / "empty.raw"
    empty.touch()
    os.truncate(empty, MIB)
    domain = rig.connect().defineXML(domain_xml(Machine("empty", (Disk(empty, "raw"),)), tmp_path))
    with pytest.raises(TimeoutError):
        boot_and_expect(rig, domain, "BOOT-OK", 2)
    assert not domain.isActive()
    assert [each.name() for each in rig.connect().listAllDomains()] == ["empty"]
    domain.undefine()


def test_guest_writes_freezes_and_is_snapshotted(rig: LibvirtRig, tmp_path: Path) -> None:
    system = guests.place(guests.linux_disk(), tmp_path / "system.qcow2")
    second = guests.place(guests.mbr_disk(tmp_path / "second.raw", "second", 8 * MIB), tmp_path / "second.qcow2")
    machine = Machine("linux", (Disk(system), Disk(second, bus="scsi", serial="second")), agent=True, network=True)
    guest = define_and_start(rig, machine)
    guest.console.wait_for(guests.READY, 60)
    guest.console.run("dd if=/dev/sda bs=512 count=1 skip=1 2>/dev/null | grep -q second")
    guest.console.run("tr '\\0' x < /dev/zero | dd of=/dev/sda bs=64k count=1 seek=32 iflag=fullblock conv=fsync")
    guest.console.run("blkdiscard -o $((3 << 20)) -l $((1 << 20)) /dev/sda")
    assert "status 7" in _failure(guest.console.run, "echo status 7; (exit 7)")
    guest.console.start_writer("/dev/vda", 63 * MIB, MIB // 2)
    guest.wait_for_agent()
    assert guest.domain.fsFreeze() == 1  # the data partition at /mnt
    assert guest.domain.fsThaw() == 1
    overlays = guest.snapshot_external("before", quiesce=True)
    assert guest.console.stop_writer() > 0
    assert sorted(overlays) == ["sda", "vda"]
    assert image_information(overlays["sda"])["full-backing-filename"] == str(second)
    guest.destroy()
    look = ["qemu-io", "-f", "qcow2", "-r", "-c", f"read -P 0x78 {2 * MIB} 65536", "-c", f"read -P 0 {3 * MIB} {MIB}"]
    read = subprocess.run([*look, overlays["sda"]], check=True, capture_output=True, text=True)
    assert "verification failed" not in read.stdout


def _failure(run: object, command: str) -> str:
    with pytest.raises(CommandFailed) as failed:
        run(command)  # type: ignore[operator]
    return str(failed.value)


def test_uefi_disk_boots(rig: LibvirtRig, tmp_path: Path) -> None:
    disk = Disk(guests.place(guests.uefi_disk(), tmp_path / "disk.qcow2"))
    domain = rig.connect().defineXML(domain_xml(Machine("uefi", (disk,), boot="uefi"), tmp_path))
    assert "BdsDxe" in boot_and_expect(rig, domain, guests.READY, 60)
    domain.undefine()


def test_machine_outlives_a_killed_libvirtd() -> None:
    with LibvirtRig() as rig:
        directory = rig.directory
        disk = Disk(guests.mbr_disk(directory / "disk.raw", "alpha"), "raw")
        guest = define_and_start(rig, Machine("survivor", (disk,)))
        guest.console.wait_for(guests.boot_marker("alpha"), 20)
        identity = guest.domain.ID()
        rig.kill()
        assert len(processes_mentioning(f"{directory}/")) == 1
        rig.start()
        assert guest.domain.isActive()
        assert guest.domain.ID() == identity
        other = {**os.environ, **rig.environment}
        names = subprocess.run(["virsh", "-c", rig.uri, "list", "--name"], env=other, check=True, capture_output=True)
        assert names.stdout.split() == [b"survivor"]
        rig.kill()  # stop() also ends machines whose libvirtd is gone
    assert not directory.exists()
    assert processes_mentioning(str(directory)) == []


def test_loop_device_is_its_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\0" * MIB)
    with loop_device(file, sector=4096) as device:
        with device.open("r+b") as stream:
            stream.seek(4096)
            stream.write(b"x" * 4096)
        sectors = Path("/sys/block") / device.name / "queue" / "logical_block_size"
        assert sectors.read_text().strip() == "4096"
    assert file.read_bytes()[4096:8192] == b"x" * 4096
    attached = subprocess.run(["/sbin/losetup", "--associated", file], check=True, capture_output=True)
    assert attached.stdout == b""
