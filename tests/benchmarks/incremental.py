# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `incremental`: what increments, a kill, proving a chain and limits cost."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fragmented, resume, throttle
from benchmarks.export import Bench, fresh
from benchmarks.exported import newest_export
from benchmarks.measure import Cost, Figure, ratio, run
from rigs.nbd import nbdkit, qemu_img, qemu_nbd

GIB, LEAF = 1 << 30, 65536
DISK = 8 * GIB
SPOT_CHECK = (32 + 32) * LEAF  # what an increment reads beyond the changes at the most: a sample, and both ends
BITMAP = "since-the-last-export"
VERIFY_ONCE = Path(__file__).with_name("verify_once.py")
KINDS = ("scattered", "contiguous")


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    for name, group in GROUPS.items():
        (folder / name).mkdir()
        yield from group(folder / name, runs)
        shutil.rmtree(folder / name)


def changes(folder: Path, runs: int) -> Iterator[Figure]:
    return OnePercent(Bench(folder, runs), DISK).figures()


GROUPS = {
    "changes": changes,
    "fragmented": fragmented.measure,
    "resume": resume.measure,
    "throttle": throttle.measure,
}


@dataclass(frozen=True)
class Increment:
    cost: Cost
    stored: int  # bytes, of all its files
    read: int  # bytes, of the disk


@dataclass(frozen=True)
class OnePercent:
    """Of a disk full of data, of which no two leaves are alike."""

    bench: Bench
    size: int

    @property
    def leaves(self) -> int:
        return self.size // LEAF

    @property
    def changed(self) -> int:
        """In bytes."""
        return self.leaves // 100 * LEAF

    @property
    def image(self) -> Path:
        return self.bench.folder / "disk.qcow2"

    @property
    def store(self) -> Path:
        return self.bench.folder / "store"

    def figures(self) -> Iterator[Figure]:
        with nbdkit("random", f"size={self.size}", "seed=1") as socket:
            qemu_img("convert", "-O", "qcow2", f"nbd:unix:{socket}", self.image)
        full: list[Cost] = []
        increments: dict[str, list[Increment]] = {kind: [] for kind in KINDS}
        for turn in range(self.bench.runs):
            full.append(self.full())
            for number, kind in enumerate(KINDS):
                self.start_tracking()
                self.change(turn * len(KINDS) + number, scattered=kind == "scattered")
                increments[kind].append(self.increment())
        for kind, made in increments.items():
            yield from self.against_the_changes(kind, made, full)
        self.image.unlink()
        yield self.proof()

    def full(self) -> Cost:
        with qemu_nbd(self.image, "qcow2", "--read-only") as socket:
            return fresh(self.store, lambda: self.bench.ours(f"nbd:{socket}", str(self.store)))

    def start_tracking(self) -> None:
        """From now on; the first time there is nothing to forget."""
        subprocess.run(["qemu-img", "bitmap", "--remove", self.image, BITMAP], check=False, capture_output=True)
        qemu_img("bitmap", "--add", self.image, BITMAP)

    def change(self, turn: int, *, scattered: bool) -> None:
        """Through qemu, which tracks it. Patterns of two turns in a row differ, or not all of it would have changed."""
        chance, count = random.Random(turn), self.changed // LEAF
        if scattered:
            places, length = sorted(chance.sample(range(self.leaves), count)), LEAF
        else:
            places, length = [chance.randrange(self.leaves - count)], self.changed
        commands = "".join(f"write -q -P {turn % 255 + 1} {place * LEAF} {length}\n" for place in places)
        subprocess.run(["qemu-io", "-f", "qcow2", self.image], input=commands.encode(), check=True, capture_output=True)

    def increment(self) -> Increment:
        with qemu_nbd(self.image, "qcow2", "--read-only", f"--bitmap={BITMAP}") as socket:
            cost = self.bench.ours(f"nbd:{socket}:{BITMAP}", str(self.store))
        made = newest_export(self.store, "incremental")
        stored = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        return Increment(cost, stored, self.bench.said(cost)["read"])

    def against_the_changes(self, kind: str, made: Sequence[Increment], full: Sequence[Cost]) -> Iterator[Figure]:
        name, peer = f"1 % of {self.size / GIB:g} GiB, {kind}", "the changed leaves"
        stored = [one.stored / self.changed for one in made]
        read = [max(0, one.read - SPOT_CHECK) / self.changed for one in made]
        yield Figure(f"{name}: bytes stored", max(stored), 1.1, "lower", peer, stored)
        yield Figure(f"{name}: bytes read but for the spot check", max(read), 1.1, "lower", peer, read)
        yield ratio(f"{name}: wall", [one.cost for one in made], full, lambda cost: cost.wall, 0.15, "the full export")

    def proof(self) -> Figure:
        """Of the newest increment, and so of all that it stands on; the peer reads the full image. Both from the
        medium: an image that was proved out of the cache is not proved."""
        image = max(self.store.rglob("*.qcow2"), key=lambda file: file.stat().st_size)
        ours = [sys.executable, str(VERIFY_ONCE), str(self.store), str(self.bench.folder / "state")]
        openssl = ["openssl", "dgst", "-sha256", str(image)]
        pairs = [(self.uncached(ours), self.uncached(openssl)) for _unused in range(self.bench.runs)]
        speeds = [other.wall / mine.wall for mine, other in pairs]
        name = f"content of a chain of {1 + len(KINDS)}, {self.size / GIB:g} GiB: speed"
        return Figure(name, statistics.median(speeds), 1.0, "higher", "openssl dgst -sha256", speeds)

    def uncached(self, command: Sequence[str]) -> Cost:
        for image in self.store.rglob("*.qcow2"):
            drop_cache(image)
        return run(command)


def drop_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


__all__: Sequence[str] = ("measure",)
