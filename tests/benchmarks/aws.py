# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `aws`: instances of a simulated account, against a pool of threads that fills a file, qemu-img and an upload.

Each block takes 30 ms here before the first byte of it comes, whoever asks: in a region, EBS direct takes tens of them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.export import BUCKET, MB, empty, fresh, s3_bucket, s3_environment, s3_settings, s5cmd_program, shell
from benchmarks.exported import newest_export
from benchmarks.measure import Cost, Figure, cpu_seconds, in_turn, ratio, run
from rigs.aws.blocks import BLOCK, GIB
from rigs.aws.server import ROOT, AwsServer

LATENCY = 0.03  # seconds
DATA = 512 << 20  # of random data, behind which nothing was ever written
SIZE = 16  # GiB
ONCE, PEER = (Path(__file__).with_name(name) for name in ("module_once.py", "aws_peer.py"))
STEPS = "64 threads into a file, qemu-img convert, s5cmd cp"
LISTS = ("ListSnapshotBlocks", "ListChangedBlocks")


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    with AwsServer() as server:
        server.fault("GetSnapshotBlock", "slow", seconds=LATENCY, times=-1)
        bench = AwsBench(folder, runs, server)
        data = folder / "data"
        with data.open("wb") as file:
            for _block in range(DATA // BLOCK):
                file.write(os.urandom(BLOCK))
        bench.instance = server.make_instance("bench", [data], sizes=[SIZE])
        data.unlink()
        yield from bench.to_s3()
        yield from bench.one_percent()


@dataclass
class AwsBench:
    folder: Path
    runs: int
    server: AwsServer
    instance: str = ""
    told: list[Mapping[str, float]] = field(default_factory=list)  # by the module's process, of each of its runs

    @property
    def volume(self) -> str:
        return self.server.volumes(self.instance)[ROOT]

    def ours(self, url: str, storage: Mapping[str, Any] | None = None, **more: Any) -> Cost:
        """Of the module, with its defaults but for `more`."""
        asked = {"provider": "aws", "aws": self.server.settings(), "vm": self.instance, "url": url, **more}
        asked.update(storage=storage or {}, state_dir=str(self.folder / "state"))
        with self._file({"ANSIBLE_MODULE_ARGS": asked}) as file:
            cost = run([sys.executable, str(ONCE), "vm_export", str(file)])
        self.told.append(json.loads(cost.output.splitlines()[-1]))
        return cost

    def theirs(self, then: str, environment: dict[str, str]) -> Cost:
        raw, image = self.folder / "theirs.raw", self.folder / "theirs.qcow2"
        try:
            with self._file(self.server.settings()) as file:
                fill = f"{sys.executable} {PEER} {file} {self.volume} {raw}"
                return shell(
                    raw, f"{fill} && qemu-img convert -O qcow2 {raw} {image} && {then.format(image)}", environment
                )
        finally:
            image.unlink(missing_ok=True)

    def to_s3(self) -> Iterator[Figure]:
        servers: list[float] = []  # seconds of the cores that simulated AWS and S3 took from each run of ours

        with s3_bucket() as store:
            beside = (self.server.process.pid, store.pid)

            def ours() -> Cost:
                empty(store)
                before = sum(map(cpu_seconds, beside))
                cost = self.ours(f"s3://{BUCKET}/ours", s3_settings(store), mode="full")
                servers.append(sum(map(cpu_seconds, beside)) - before)
                return cost

            def theirs() -> Cost:
                empty(store)
                copy = f"{s5cmd_program()} --endpoint-url {store.endpoint_url} cp {{}} s3://{BUCKET}/theirs/"
                return self.theirs(copy, s3_environment(store))

            mine, (others,) = in_turn(ours, [theirs], self.runs)
        yield ratio("to S3: wall", mine, others, lambda cost: cost.wall, 0.7, STEPS)
        yield ratio("to S3: CPU", mine, others, lambda cost: cost.cpu, None, STEPS)
        shares = [taken / (taken + cost.cpu) for taken, cost in zip(servers[1:], mine)]
        name = "to S3: CPU of the simulated AWS and S3, of theirs and ours together"
        yield Figure(name, statistics.median(shares), None, "lower", "", shares)
        for name, key, most in (("peak RSS", "peak_rss", 150), ("written to files", "written", 1)):
            values = [told[key] / MB for told in self.told[1:]]  # the first one compiles what it loads
            yield Figure(f"to S3: {name}, MB", max(values), most, "lower", "", values)

    def one_percent(self) -> Iterator[Figure]:
        """Of the blocks. The calls are those that AWS bills, which are of EBS direct."""
        store, chance = self.folder / "store", random.Random(2)
        count = SIZE * GIB // BLOCK // 100
        full, increments, calls = [], [], []
        for _turn in range(self.runs):
            full.append(fresh(store, lambda: self.ours(f"file://{store}", mode="full")))
            for block in chance.sample(range(SIZE * GIB // BLOCK), count):
                self.server.write(self.volume, block * BLOCK, chance.randbytes(BLOCK))
            self.server.forget_calls()
            increments.append(self.ours(f"file://{store}", mode="incremental"))
            newest_export(store, "incremental")  # or it was none
            made = [call.partition(":")[2] for call in self.server.calls() if call.startswith("ebs:")]
            pages = sum(call in LISTS for call in made)
            calls.append(len(made) / (count + pages))
        shutil.rmtree(store)
        name = f"1 % of {SIZE * GIB // BLOCK} blocks"
        yield ratio(f"{name}: wall", increments, full, lambda cost: cost.wall, None, "the full export")
        yield Figure(f"{name}: calls of a block that changed or a page", max(calls), 1.05, "lower", "", calls)

    @contextmanager
    def _file(self, content: Mapping[str, Any]) -> Iterator[Path]:
        """For the keys' sake, which belong on no command line."""
        path = self.folder / "asked.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))
        try:
            yield path
        finally:
            path.unlink()


__all__ = ("measure",)
