# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`vzdump ID --stdout` and `qmrestore`: VMAs, written by this room and read by dissect.archive, none of the project's.

`python -m rigs.proxmox.archives CONTROL_URL vzdump|qmrestore ARGUMENT…`
https://pve.proxmox.com/pve-docs/vzdump.1.html, https://pve.proxmox.com/pve-docs/qmrestore.1.html,
https://git.proxmox.com/?p=pve-qemu.git (vma_spec.txt)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import struct
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

CLUSTER, BLOCK, CLUSTERS = 65536, 4096, 59
HEADER, SECTOR = 12288, 512
NAMES, DATA, DEVICES = 2044, 3068, 4096  # where the header tells of files and of devices
ARCHIVE = re.compile(r"vzdump-qemu-\d+-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.vma")
EXPECTED = 255  # the status of a command of Proxmox VE that failed


class VmaWriter:
    def __init__(self, file: BinaryIO, configs: Mapping[str, bytes], devices: Mapping[str, int]) -> None:
        self._file, self._uuid = file, uuid.uuid4().bytes
        self._infos: list[bytes] = []
        self._blocks: list[bytes] = []
        blobs, header = bytearray(b"\0"), bytearray(HEADER)

        def kept(data: bytes) -> bytes:
            at = len(blobs)
            blobs.extend(struct.pack("<H", len(data)) + data)
            return struct.pack(">I", at)

        for number, (name, data) in enumerate(configs.items()):
            header[NAMES + 4 * number : NAMES + 4 * number + 4] = kept(name.encode() + b"\0")
            header[DATA + 4 * number : DATA + 4 * number + 4] = kept(data)
        for number, (name, size) in enumerate(devices.items(), 1):
            told = kept(name.encode() + b"\0") + struct.pack(">IQ", 0, size)
            header[DEVICES + 32 * number : DEVICES + 32 * number + 16] = told
        blobs.extend(bytes(-len(blobs) % SECTOR))
        header[:32] = struct.pack(">4sI16sQ", b"VMA\0", 1, self._uuid, int(time.time()))
        header[48:60] = struct.pack(">III", HEADER, len(blobs), HEADER + len(blobs))
        header += blobs
        header[32:48] = hashlib.md5(header, usedforsecurity=False).digest()
        file.write(header)

    def add(self, device: int, number: int, data: bytes) -> None:
        """A cluster of a device, which is counted from 1."""
        mask = 0
        for block in range(CLUSTER // BLOCK):
            piece = data[block * BLOCK : (block + 1) * BLOCK]
            if piece.strip(b"\0"):
                mask |= 1 << block
                self._blocks.append(piece.ljust(BLOCK, b"\0"))
        self._infos.append(struct.pack(">HBBI", mask, 0, device, number))
        if len(self._infos) == CLUSTERS:
            self.flush()

    def flush(self) -> None:
        header = bytearray(struct.pack(">4sHH16s16x", b"VMAE", 0, len(self._blocks), self._uuid))
        header += b"".join(self._infos).ljust(8 * CLUSTERS, b"\0")
        header[24:40] = hashlib.md5(header, usedforsecurity=False).digest()
        self._file.write(header + b"".join(self._blocks))
        self._infos.clear()
        self._blocks.clear()


def vzdump(control: str, argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("vzdump")
    parser.add_argument("vmid", type=int)
    parser.add_argument("--stdout", choices=("0", "1"), nargs="?", const="1", required=True)
    parser.add_argument("--mode", choices=("snapshot", "stop", "suspend"), default="snapshot")
    parser.add_argument("--compress", choices=("0", "1", "gzip", "lzo", "zstd"), default="0")
    parser.add_argument("--quiet", choices=("0", "1"), nargs="?", const="1")
    for name in ("--bwlimit", "--fleecing", "--ionice", "--lockwait", "--tmpdir"):
        parser.add_argument(name)
    given = parser.parse_args(argv)
    if given.compress != "0":
        raise SystemExit("the rig compresses no archives")
    told = _asked(control, "dump_begin", {"vmid": given.vmid})
    try:
        sizes = {name: Path(path).stat().st_size for name, path in told["disks"].items()}
        writer = VmaWriter(sys.stdout.buffer, {"qemu-server.conf": told["config"].encode()}, sizes)
        for device, path in enumerate(told["disks"].values(), 1):
            with Path(path).open("rb") as file:
                for number, data in enumerate(iter(lambda: file.read(CLUSTER), b"")):
                    writer.add(device, number, data)
        writer.flush()
        sys.stdout.buffer.flush()
    finally:
        _asked(control, "dump_end", {"vmid": given.vmid})


def qmrestore(control: str, argv: Sequence[str]) -> None:
    from dissect.archive.vma import VMA

    parser = argparse.ArgumentParser("qmrestore")
    parser.add_argument("archive")
    parser.add_argument("vmid", type=int)
    for name in ("--storage", "--pool", "--bwlimit"):
        parser.add_argument(name)
    for name in ("--force", "--unique", "--start", "--live-restore"):
        parser.add_argument(name, choices=("0", "1"), nargs="?", const="1", default="0")
    given = parser.parse_args(argv)
    if given.archive != "-" and not ARCHIVE.fullmatch(Path(given.archive).name):
        raise SystemExit(f"ERROR: couldn't determine archive info from '{given.archive}'")
    with tempfile.TemporaryDirectory(prefix="vmferry-restored-") as folder:
        archive = Path(folder) / "archive"
        source = Path("/dev/stdin" if given.archive == "-" else given.archive)
        with source.open("rb") as given_file, archive.open("wb") as file:
            shutil.copyfileobj(given_file, file)
        with archive.open("rb") as file:
            found = VMA(file)
            disks = {}
            for number, disk in enumerate(found.devices()):
                path = Path(folder) / str(number)
                with disk.open() as content, path.open("wb") as image:
                    shutil.copyfileobj(content, image)
                disks[disk.name] = str(path)
            config = found.configs()["qemu-server.conf"].decode()
        asked = {"vmid": given.vmid, "storage": given.storage or "local", "pool": given.pool, "config": config}
        asked.update(disks=disks, force=given.force == "1", unique=given.unique == "1", start=given.start == "1")
        _asked(control, "restore", asked)


def _asked(control: str, what: str, asked: Mapping[str, Any]) -> Any:
    try:
        with urllib.request.urlopen(f"{control}/{what}", data=json.dumps(asked).encode()) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as problem:
        sys.stderr.write(problem.read().decode(errors="replace").strip().rpartition("\n")[2] + "\n")
        raise SystemExit(EXPECTED) from problem


def main() -> None:
    control, name, *argv = sys.argv[1:]
    {"vzdump": vzdump, "qmrestore": qmrestore}[name](control, argv)


if __name__ == "__main__":
    main()
