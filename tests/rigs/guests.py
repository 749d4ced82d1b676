# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small machines that boot without a network, built from the packages in packages.txt and kept for the next run.

    mbr_disk(path, "alpha")   a raw disk that prints boot_marker("alpha") on the first serial port; 0.1 s under TCG;
                              powers its machine off when it gets a byte there
    screen_disk(path)         a raw disk that leaves the firmware's screen for a moment, then clears it and writes on it
    linux_disk()              a raw disk that boots Linux from BIOS (syslinux)
    uefi_disk()               the same from UEFI (a unified kernel image), without the firmware's shell
    kernel_files()            kernel and initramfs to boot directly, with any disks or none
    place(image, target)      a copy of one of these as a new disk of any format and size

The Linux guests run from memory: their disks are free to be written, frozen and removed while they run. They print
READY, take commands on the serial port (see rigs.serial), answer the QEMU guest agent's channel, and have mounted the
file system labelled `guestdata` at /mnt, which linux_disk and uefi_disk carry as their second partition (ext4).
Commands are busybox's; /sbin/blkdiscard (with -f) and /usr/bin/fallocate, by these paths, also work on a disk of which
a partition is mounted. Drivers: virtio, SCSI (virtio, pvscsi), IDE, NVMe, vmxnet3, Xen. The kernel has no AHCI
driver: firmware boots these disks from SATA, but the running guest does not see them there. UEFI needs 192 MiB.

The images returned are shared and must not be written; place() makes a private copy.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rigs.guests_build import BUSYBOX, PROGRAMS, build_initramfs, build_linux_disk, build_uefi_disk, kernel_image
from rigs.guests_cache import cache_directory, cached

__all__ = [
    "COMMAND_LINE",
    "MBR",
    "OVMF_CODE",
    "OVMF_VARIABLES",
    "READY",
    "REQUIRED_PACKAGES",
    "SCREEN",
    "KernelFiles",
    "boot_marker",
    "cache_directory",
    "kernel_files",
    "linux_disk",
    "mbr_disk",
    "place",
    "screen_disk",
    "uefi_disk",
]

HERE = Path(__file__).resolve().parent
REQUIRED_PACKAGES = tuple(
    line for line in (HERE / "packages.txt").read_text().splitlines() if line and not line.startswith("#")
)
READY = "GUEST-READY"
# Emulated timers are late on a busy host, and the kernel then panics over its own check of them.
COMMAND_LINE = "console=ttyS0,115200 quiet loglevel=1 panic=-1 no_timer_check"
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

# guest/mbr.s, assembled. Two bytes of signature follow at offset 510.
MBR = (
    bytes.fromhex(
        "ea057c000031c08ed88ec08ed0bc007c52be5d7ce82e005ab442be7a7ccd13720bbe007ee81e00be737ceb03be667ce81300"
        "fbf4bafd03eca80174f7ba0406b80020efebeeac84c0741288c3bafd03eca82074f8baf80388d8eeebe9c3424f4f542d4f4b"
        "2000524541442d4552524f520d0a0020454e440d0a0010000100007e000001"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
# guest/screen.s, assembled.
SCREEN = (
    bytes.fromhex(
        "ea057c000031c08ed88ed0bc007cfbb91b00f4e2fdb80300cd10be2e7cac84c07409b40ebb0700cd10ebf2f4ebfd0d0a0d0a0d0a0d0a"
        "0d0a0d0a6c6f67696e3a20"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
SECTOR = 512
LABEL_BYTES = 63


@dataclass(frozen=True)
class KernelFiles:
    """What a direct boot needs; the paths are shared and read only."""

    kernel: Path
    initramfs: Path
    command_line: str


def boot_marker(label: str) -> str:
    return f"BOOT-OK {label} END"


def mbr_disk(path: Path, label: str, size: int = 1 << 20) -> Path:
    """Write a raw disk of `size` bytes at `path`, whose boot sector prints `label` (read back from the disk)."""
    text = label.encode("ascii")
    if not 0 < len(text) <= LABEL_BYTES:
        raise ValueError(f"a label has 1 to {LABEL_BYTES} characters")
    with path.open("wb") as disk:
        disk.write(MBR)
        disk.write(text.ljust(SECTOR, b"\0"))
        disk.truncate(size)
    return path


def screen_disk(path: Path, size: int = 1 << 20) -> Path:
    path.write_bytes(SCREEN.ljust(size, b"\0"))
    return path


def kernel_files() -> KernelFiles:
    return KernelFiles(kernel_image(), _initramfs(), COMMAND_LINE)


def linux_disk() -> Path:
    inputs = [kernel_image(), _initramfs(), Path("/usr/lib/syslinux/mbr/mbr.bin")]
    return cached("linux.raw", lambda path: build_linux_disk(path, _initramfs(), COMMAND_LINE), inputs, COMMAND_LINE)


def uefi_disk() -> Path:
    inputs = [kernel_image(), _initramfs(), Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")]
    return cached("uefi.raw", lambda path: build_uefi_disk(path, _initramfs(), COMMAND_LINE), inputs, COMMAND_LINE)


def place(image: Path, target: Path, image_format: str = "qcow2", size: int | None = None) -> Path:
    """Copy a raw image to a new disk, grown to `size` bytes if given."""
    convert = ["qemu-img", "convert", "-f", "raw", "-O", image_format, os.fspath(image), os.fspath(target)]
    subprocess.run(convert, check=True)
    if size is not None:
        subprocess.run(["qemu-img", "resize", "-q", "-f", image_format, os.fspath(target), str(size)], check=True)
    return target


def _initramfs() -> Path:
    init = HERE / "guest" / "init"
    inputs = [kernel_image(), init, BUSYBOX, *PROGRAMS]
    return cached("initramfs.gz", lambda path: build_initramfs(path, init), inputs, READY)
