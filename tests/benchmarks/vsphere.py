# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `vsphere`: VMs of a simulated vCenter, against their disks being downloaded one after the other.

No stream is faster than 30 MB/s here, whoever reads it: hosts were seen to give 20 to 30, whatever the link
(https://github.com/adminsyspro/proxcenter-ui/issues/807). Faster, the simulator's compression would be measured.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.export import BUCKET, MB, empty, fresh, s3_bucket, s3_environment, s3_settings, s5cmd_program, shell
from benchmarks.exported import newest_export
from benchmarks.measure import Cost, Figure, in_turn, ratio, run
from rigs.vsphere import Disk, VSphere

MIB, LEAF = 1 << 20, 65536
STREAM = 30 * MB  # bytes a second, at the most
DISK = 96 * MIB  # of random data, behind which nothing was ever written
SIZE = 4 * DISK
TRACKED = 1024 * MIB  # of random data
ONCE, PEER = (Path(__file__).with_name(name) for name in ("module_once.py", "vsphere_peer.py"))
DOWNLOAD = "pyvmomi and urllib, one disk after the other"


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    with VSphere() as server:
        server.fault("GET /nfc/", "slow", rate=STREAM, times=-1)
        server.fault("GET /folder/", "slow", rate=STREAM, times=-1)
        bench = VsphereBench(folder, runs, server)
        data = folder / "data"
        data.write_bytes(random.Random(1).randbytes(DISK))
        for name, count in (("one", 1), ("four", 4)):
            server.make_vm(name, [Disk(data, SIZE)] * count)
        data.unlink()
        for name, count in (("one", 1), ("four", 4)):
            target = 0.7 if count > 1 else None
            yield from bench.to_a_path(name, target)
            yield from bench.to_s3(name, target)
        yield from bench.one_percent()


@dataclass(frozen=True)
class VsphereBench:
    folder: Path
    runs: int
    server: VSphere
    peaks: dict[str, list[float]] = field(default_factory=dict)

    @property
    def connection(self) -> dict[str, Any]:
        server = self.server
        named = {"hostname": server.host, "port": server.port, "username": server.user, "password": server.password}
        return {**named, "ca_path": str(server.certificate)}

    def ours(self, vm: str, url: str, storage: Mapping[str, Any] | None = None, **more: Any) -> Cost:
        """Of the module, with its defaults but for `more`."""
        asked = {"provider": "vsphere", "vsphere": self.connection, "vm": vm, "url": url, "storage": storage or {}}
        with self._file({"ANSIBLE_MODULE_ARGS": {**asked, "state_dir": str(self.folder / "state"), **more}}) as file:
            cost = run([sys.executable, str(ONCE), "vm_export", str(file)])
        self.peaks.setdefault(url.partition(":")[0], []).append(json.loads(cost.output.splitlines()[-1])["peak_rss"])
        return cost

    def theirs(self, vm: str, then: str = "", environment: dict[str, str] | None = None) -> Cost:
        target = self.folder / "theirs"
        target.mkdir()
        try:
            with self._file(self.connection) as file:
                command = f"{sys.executable} {PEER} {file} {vm} {target}{then.format(target)}"
                return shell(self.folder / "none", command, environment)
        finally:
            shutil.rmtree(target)

    def to_a_path(self, vm: str, target: float | None) -> Iterator[Figure]:
        store = self.folder / "store"
        mine, (theirs,) = in_turn(
            lambda: fresh(store, partial(self.ours, vm, f"file://{store}", mode="full")),
            [partial(self.theirs, vm)],
            self.runs,
        )
        yield ratio(f"{vm} to a path: wall", mine, theirs, lambda cost: cost.wall, target, DOWNLOAD)
        yield self._peak(f"{vm} to a path", "file")
        shutil.rmtree(store)

    def to_s3(self, vm: str, target: float | None) -> Iterator[Figure]:
        with s3_bucket() as server:

            def ours() -> Cost:
                empty(server)
                return self.ours(vm, f"s3://{BUCKET}/ours", s3_settings(server), mode="full")

            def theirs() -> Cost:
                empty(server)
                copy = f" && {s5cmd_program()} --endpoint-url {server.endpoint_url} cp {{}}/ s3://{BUCKET}/theirs/"
                return self.theirs(vm, copy, s3_environment(server))

            mine, (others,) = in_turn(ours, [theirs], self.runs)
            yield ratio(f"{vm} to S3: wall", mine, others, lambda cost: cost.wall, target, f"{DOWNLOAD}, s5cmd cp")
            yield self._peak(f"{vm} to S3", "s3")

    def one_percent(self) -> Iterator[Figure]:
        """Of a VM that runs, and whose changes are tracked."""
        store, chance, data = self.folder / "store", random.Random(2), self.folder / "data"
        with data.open("wb") as file:
            for _piece in range(TRACKED // MIB):
                file.write(os.urandom(MIB))
        self.server.make_vm("bench", [data], running=True, tracking=True)
        data.unlink()
        full, increments = [], []
        for _turn in range(self.runs):
            full.append(fresh(store, partial(self.ours, "bench", f"file://{store}", mode="full")))
            for leaf in chance.sample(range(TRACKED // LEAF), TRACKED // LEAF // 100):
                self.server.write("bench", 0, leaf * LEAF, chance.randbytes(LEAF))
            increments.append(self.ours("bench", f"file://{store}", mode="incremental"))
            newest_export(store, "incremental")  # or it was none
        name = f"1 % of {TRACKED // MIB} MiB"
        yield ratio(f"{name}: wall", increments, full, lambda cost: cost.wall, 0.15, "the full export")
        shutil.rmtree(store)

    def _peak(self, name: str, kind: str) -> Figure:
        peaks = [peak / MB for peak in self.peaks.pop(kind)]
        return Figure(f"{name}: peak RSS, MB", max(peaks), 150, "lower", "", peaks)

    @contextmanager
    def _file(self, content: Mapping[str, Any]) -> Iterator[Path]:
        """For the password's sake, which belongs on no command line."""
        path = self.folder / "asked.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))
        try:
            yield path
        finally:
            path.unlink()


__all__ = ("measure",)
