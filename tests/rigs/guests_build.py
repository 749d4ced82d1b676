# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the guests are made: an initramfs, a BIOS disk and a UEFI disk, without root, mounts or loop devices."""

from __future__ import annotations

import functools
import gzip
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_console", "virtio_net", "virtio_rng"),
    *("sd_mod", "sr_mod", "ata_piix", "nvme", "vmw_pvscsi", "vmxnet3", "xen_blkfront"),
)
# The guest agent; and discards, zeros and holes on a disk of which a part is mounted, which busybox refuses.
PROGRAMS = (Path("/usr/sbin/qemu-ga"), Path("/sbin/blkdiscard"), Path("/usr/bin/fallocate"))
BUSYBOX = Path("/bin/busybox")
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
SYSLINUX_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
MIB = 1 << 20
BOOT_MIB = 40  # kernel, initramfs and room to spare
DATA_MIB = 22
FIRST_MIB = 1  # where the first partition starts
DISK_MIB = 64
DATA_LABEL = "guestdata"
STUB_END = 0x20000  # in memory; what is added to the stub follows
PAGE = 4096


def _run(*command: str | Path) -> str:
    done = subprocess.run([os.fspath(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def kernel_image() -> Path:
    """The newest cloud kernel installed."""
    images = list(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
    if not images:
        raise RuntimeError("no /boot/vmlinuz-*-cloud-amd64: install the packages of tests/rigs/packages.txt")
    return max(images, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def build_initramfs(target: Path, init: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in ("bin", "dev", "proc", "sys", "mnt", "run", "tmp", "modules", "var"):
            (root / name).mkdir()
        (root / "var" / "run").symlink_to("/run")
        shutil.copy(BUSYBOX, root / "bin" / "busybox")
        (root / "init").write_text("#!/bin/busybox sh\n" + init.read_text())
        (root / "init").chmod(0o755)
        _add_modules(root / "modules")
        for program in PROGRAMS:
            _add_program(root, program)
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        archive = subprocess.run(
            ["cpio", "--create", "--quiet", "--format=newc", "--owner=+0:+0", "--reproducible"],
            cwd=root,
            input="\n".join(names).encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
    target.write_bytes(gzip.compress(archive.stdout, 6, mtime=0))


def _add_modules(target: Path) -> None:
    """Copy the modules with what they need, and list them in loading order."""
    release = kernel_image().name.removeprefix("vmlinuz-")
    order: dict[str, Path] = {}
    for module in MODULES:
        for line in _run("modprobe", "--set-version", release, "--show-depends", module).splitlines():
            if line.startswith("insmod "):
                path = Path(line.split()[1])
                order[path.name] = path
    for path in order.values():
        shutil.copy(path, target)
    (target / "order").write_text("".join(f"{name}\n" for name in order))


def _add_program(root: Path, program: Path) -> None:
    """Copy a dynamically linked program with its libraries, each to its own path."""
    libraries = re.findall(r"(/\S+) \(0x", _run("ldd", program))
    for file in [program, *map(Path, libraries)]:
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def build_linux_disk(target: Path, initramfs: Path, command_line: str) -> None:
    _partition(target, "dos", "6", "83", "*")
    volume = f"{target}@@{FIRST_MIB}M"
    configuration = target.with_suffix(".cfg")
    configuration.write_text(f"DEFAULT guest\nLABEL guest\nKERNEL /vmlinuz\nINITRD /initrd.gz\nAPPEND {command_line}\n")
    _copy_to_volume(volume, kernel_image(), "vmlinuz")
    _copy_to_volume(volume, initramfs, "initrd.gz")
    _copy_to_volume(volume, configuration, "syslinux.cfg")
    _run("syslinux", "--offset", str(FIRST_MIB * MIB), "--install", target)
    with target.open("r+b") as disk:
        disk.write(SYSLINUX_MBR.read_bytes()[:440])  # the partition table begins at 446


def build_uefi_disk(target: Path, initramfs: Path, command_line: str) -> None:
    """The firmware starts EFI/BOOT/BOOTX64.EFI by itself; kernel, initramfs and command line are sections of it."""
    _partition(target, "gpt", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "")
    release = target.with_suffix(".osrel")
    release.write_text('ID=vmferry-guest\nNAME="vmferry guest"\nVERSION_ID=1\n')
    arguments = target.with_suffix(".cmdline")
    arguments.write_bytes(command_line.encode() + b"\0")
    # Close together, or the firmware needs memory for the gaps; the kernel last, for it unpacks itself where it lies.
    sections = {".osrel": release, ".cmdline": arguments, ".initrd": initramfs, ".linux": kernel_image()}
    unified = target.with_suffix(".efi")
    options: list[str | Path] = []
    address = STUB_END
    for name, file in sections.items():
        options += ["--add-section", f"{name}={file}", "--change-section-vma", f"{name}={address:#x}"]
        address += -(-file.stat().st_size // PAGE) * PAGE
    _run("objcopy", *options, STUB, unified)
    volume = f"{target}@@{FIRST_MIB}M"
    _run("mmd", "-i", volume, "::EFI", "::EFI/BOOT")
    _copy_to_volume(volume, unified, "EFI/BOOT/BOOTX64.EFI")


def _partition(target: Path, table: str, boot_type: str, data_type: str, active: str) -> None:
    """A boot partition with an empty FAT16, and an ext4 partition."""
    with target.open("wb") as disk:
        disk.truncate(DISK_MIB * MIB)
    flag = ", bootable" if active else ""
    layout = f"label: {table}\nstart={FIRST_MIB}MiB, size={BOOT_MIB}MiB, type={boot_type}{flag}\n"
    layout += f"start={FIRST_MIB + BOOT_MIB}MiB, size={DATA_MIB}MiB, type={data_type}\n"
    subprocess.run(["/sbin/sfdisk", "--quiet", target], input=layout.encode(), check=True)
    sectors = str(FIRST_MIB * MIB // 512)
    _run("/sbin/mkfs.fat", "-F", "16", "--offset", sectors, "-h", sectors, target, str(BOOT_MIB * 1024))
    data = f"offset={(FIRST_MIB + BOOT_MIB) * MIB},lazy_itable_init=0"
    _run("/sbin/mkfs.ext4", "-q", "-F", "-L", DATA_LABEL, "-E", data, target, f"{DATA_MIB}M")


def _copy_to_volume(volume: str, source: Path, name: str) -> None:
    _run("mcopy", "-i", volume, source, f"::{name}")
