# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A BIOS finds its way through every format, on every kind of bus: what boots reads its label back from the image."""

from __future__ import annotations

import selectors
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from rigs import guests

from .other_formats import QEMU, written

SIZE = 3 << 20
BUSES = {
    "ide": ["-device", "ide-hd,drive=disk"],
    "virtio": ["-device", "virtio-blk-pci,drive=disk"],
    "scsi": ["-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=disk"],
}
# Each format on one bus: which one, a format does not know, but for the geometry that IDE asks a VHD for.
PAIRS = [
    ("raw", "virtio"),
    ("vmdk", "scsi"),
    ("vmdk_sparse", "ide"),
    ("vhd", "ide"),
    ("vhd_dynamic", "ide"),
    ("vhdx", "scsi"),
]


def printed(command: list[str], marker: str, seconds: float) -> str:
    """What a guest says until it says so; its QEMU is gone afterwards."""
    found, deadline = "", time.monotonic() + seconds
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu,
        selectors.DefaultSelector() as ready,
    ):
        assert qemu.stdout is not None
        ready.register(qemu.stdout, selectors.EVENT_READ)
        while marker not in found and time.monotonic() < deadline:
            if ready.select(timeout=1):
                said = qemu.stdout.read1()  # type: ignore[attr-defined]
                if not said:
                    break
                found += said.decode(errors="replace")
        qemu.kill()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("format_", "bus"), PAIRS)
def test_a_guest_boots_from_it(format_: str, bus: str, tmp_path: Path) -> None:
    disk = guests.mbr_disk(tmp_path / "disk.raw", format_, SIZE).read_bytes()

    def of(offset: int, length: int, seed: int) -> bytes:
        return disk[offset : offset + length]

    runs = [Extent(0, LEAF, "data"), Extent(LEAF, SIZE - LEAF, "zero")]
    image = written(format_, tmp_path / "image", SIZE, runs, of)
    drive = f"file={image},format={QEMU[format_]},if=none,id=disk,snapshot=on"
    command = ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-nic", "none"]
    said = printed([*command, "-serial", "stdio", "-drive", drive, *BUSES[bus]], guests.boot_marker(format_), 60)
    assert guests.boot_marker(format_) in said
    assert "READ-ERROR" not in said
