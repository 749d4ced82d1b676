# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `stores`: objects to every store and back, and what is done to bytes on their way, against people's tools."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import encryption, objects
from benchmarks.export import Bench
from benchmarks.measure import Cost, Figure, in_turn, ratio, run

GIB = 1 << 30
OWN_FILES = ["tar", "-c", "--sort=name", "/usr/lib", "/usr/share"]


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    yield from objects.measure(folder, runs)
    yield from _compression(folder, runs)
    yield from encryption.measure(folder, runs)


def _compression(folder: Path, runs: int) -> Iterator[Figure]:
    """A disk of 1 GiB full of programs, libraries and texts: this machine's own."""
    disk, archive, store = folder / "disk.raw", folder / "disk.zst", folder / "compressed"
    _fill(disk, GIB)
    bench = Bench(folder, runs)

    def ours() -> Cost:
        shutil.rmtree(store, ignore_errors=True)
        return bench.ours(f"file:{disk}:raw", store.as_uri(), compression="zstd", compression_level=1)

    def zstd() -> Cost:
        archive.unlink(missing_ok=True)
        return run(["zstd", "-q", "-1", "-T0", "-o", str(archive), str(disk)])

    mine, (theirs,) = in_turn(ours, [zstd], runs)
    peer = "zstd -1 -T0"
    (image,) = store.rglob("*.qcow2")
    size = image.stat().st_size / archive.stat().st_size
    yield ratio("1 GiB, compressed with zstd: wall", mine, theirs, lambda cost: cost.wall, 1.3, peer)
    yield ratio("1 GiB, compressed with zstd: CPU", mine, theirs, lambda cost: cost.cpu, None, peer)
    yield Figure("1 GiB, compressed with zstd: bytes stored", size, None, "lower", peer, [size])
    worst = max(cost.peak_rss for cost in mine) / 1e6
    yield Figure("1 GiB, compressed with zstd: peak RSS, MB", worst, 100, "lower", "", [c.peak_rss / 1e6 for c in mine])


def _fill(disk: Path, size: int) -> None:
    with disk.open("wb") as file:
        while file.tell() < size:
            with subprocess.Popen(
                ["tar", "-c", "--sort=name", "/usr/lib", "/usr/share"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as tar:
                assert tar.stdout is not None
                while file.tell() < size and (data := tar.stdout.read(min(1 << 20, size - file.tell()))):
                    file.write(data)
                tar.kill()
