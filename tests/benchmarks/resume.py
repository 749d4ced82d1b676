# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kill costs: an export of a running VM to S3 is killed half way and run again.

Counted is what comes to the server from both runs, against one export that nobody kills.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.export import BUCKET, empty, s3_bucket
from benchmarks.measure import Figure
from rigs import guests
from rigs.counting_proxy import CountingProxy, counting_proxy
from rigs.domain import Disk, Machine, define_and_start
from rigs.libvirt import LibvirtRig
from rigs.s3_server import S3Server

MIB = 1 << 20
SIZE = 512 * MIB  # of the disk, which is full of data but for the first mebibyte
TARGET = 64  # MiB
PATIENCE = 60.0  # seconds
VM = "bench"
MODULE = "ansible_collections.vmferry.migrate.plugins.modules.vm_export"
COLLECTION = Path(__file__).resolve().parents[2] / ".build"


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    with LibvirtRig() as rig, s3_bucket() as server, counting_proxy(server.port) as proxy, running_vm(rig) as image:
        killing = Killing(folder, rig, server, proxy, image)
        full = killing.whole()
        again = [(killing.interrupted(full // 2) - full) / MIB for _unused in range(max(2, runs // 2))]
    name = f"killed at 50 % of {SIZE // MIB} MiB, and run again: MiB sent beyond one full export"
    yield Figure(name, max(again), TARGET, "lower", "an export that is not killed", again)


@contextmanager
def running_vm(rig: LibvirtRig) -> Iterator[Path]:
    """Its disk. It does nothing once it has booted."""
    image = rig.directory / f"{VM}.qcow2"
    raw = guests.mbr_disk(image.with_suffix(".raw"), VM, SIZE)
    with raw.open("r+b") as file:
        file.seek(MIB)
        for _unused in range(SIZE // MIB - 1):
            file.write(os.urandom(MIB))
    guests.place(raw, image)
    raw.unlink()
    guest = define_and_start(rig, Machine(VM, disks=(Disk(image),), memory_mib=32))
    guest.console.wait_for(guests.boot_marker(VM))
    yield image
    guest.destroy()


@dataclass(frozen=True)
class Killing:
    folder: Path
    rig: LibvirtRig
    server: S3Server
    proxy: CountingProxy
    image: Path

    def whole(self) -> int:
        """Bytes that one full export sends."""
        before = self.proxy.received
        self.result(self.start())
        sent = self.proxy.received - before
        if sent < SIZE - MIB:
            sys.exit(f"Of {SIZE} bytes {sent} were counted: the others went another way.")
        empty(self.server)
        return sent

    def interrupted(self, at: int) -> int:
        """Bytes that both runs send, of which the first is killed once it has sent `at`."""
        before = self.proxy.received
        killed, deadline = self.start(), time.monotonic() + PATIENCE
        while self.proxy.received - before < at:
            if killed.poll() is not None or time.monotonic() > deadline:
                killed.kill()
                sys.exit(f"It sent {self.proxy.received - before} bytes, not {at}: {killed.communicate()[0]}")
            time.sleep(0.001)
        killed.kill()
        killed.communicate()
        result = self.result(self.start())
        sent = self.proxy.received - before
        self.insist_on_going_on(result)
        empty(self.server)
        return sent

    def start(self) -> subprocess.Popen[str]:
        arguments = self.folder / "arguments.json"
        asked = {
            "provider": "libvirt",
            "libvirt": {"uri": self.rig.uri, "scratch_dir": str(self.folder)},
            "vm": VM,
            "url": f"s3://{BUCKET}/ours",
            "storage": {**self.server.settings, "endpoint_url": self.proxy.endpoint_url},
            "state_dir": str(self.folder / "state"),
            "track_changes": False,
        }
        arguments.touch(mode=0o600)
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": asked}))
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(arguments)],
            env={**os.environ, **self.rig.environment, "PYTHONPATH": str(COLLECTION)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def result(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        said, _unused = process.communicate()
        if process.returncode:
            sys.exit(f"The export failed: {said}")
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def insist_on_going_on(self, result: dict[str, Any]) -> None:
        """That it is the same export, and that it is the disk: bytes that were saved otherwise are no figure."""
        if result["resumed"]["export"] != result["export"]["id"]:
            sys.exit(f"It began anew: {result['resumed']}")
        key = result["export"]["disks"][0]["url"].removeprefix(f"s3://{BUCKET}/")
        stored = self.folder / "stored.qcow2"
        self.server.client().download_file(BUCKET, key, str(stored))
        compared = subprocess.run(
            ["qemu-img", "compare", "-q", "-U", "-F", "qcow2", "-f", "qcow2", stored, self.image], check=False
        )
        stored.unlink()
        if compared.returncode:
            sys.exit("What was stored is not the disk.")
