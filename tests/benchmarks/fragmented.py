# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Increments of disks on which every other leaf changed: as many extents as there are leaves, and none joins the next.

Most of what changed is zeros, as after a guest's `fstrim`; one changed leaf of 64 has data, and as many hide data of
the parent.
"""

from __future__ import annotations

import os
import shutil
import statistics
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from benchmarks.export import Bench
from benchmarks.exported import newest_export
from benchmarks.measure import Cost, Figure
from rigs.nbd import qemu_img, qemu_io, qemu_nbd

MB, LEAF = 1_000_000, 65536
SMALL, LARGE = 800_000, 1_600_000  # extents, and leaves: multiples of all that follows
DATA_EVERY = 128  # leaves
BITMAP = "every-other-leaf"
EVERY_OTHER = 0x55
BITMAPS_EXTENSION, CLUSTER_OFFSET = 0x23852875, (1 << 56) - (1 << 9)
MAP_BYTES = 8  # of each extent that the engine keeps in memory
TWICE = 2.4


@dataclass(frozen=True)
class Fragmented:
    """A disk that was exported, and is served as it is now."""

    bench: Bench
    store: Path
    socket: Path
    extents: int

    def export(self) -> Cost:
        """An increment, which is then removed: the next one is the same again."""
        cost = self.bench.ours(f"nbd:{self.socket}:{BITMAP}", str(self.store))
        found = self.bench.said(cost)["extents"]
        if found != self.extents:
            sys.exit(f"The disk has {found} extents, not {self.extents}: it is not the one that is to be measured.")
        shutil.rmtree(newest_export(self.store, "incremental"))
        return cost


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    bench = Bench(folder, runs)
    with ExitStack() as stack:
        small, large = (prepared(stack, bench, count) for count in (SMALL, LARGE))
        pairs = [(small.export(), large.export()) for _unused in range(max(2, runs // 2))]
    said = [(bench.said(one), bench.said(other)) for one, other in pairs]
    many, few = f"{LARGE / 1e6:g} M extents", f"{SMALL / 1e6:g} M extents"
    planning = [each["planning"] for _unused, each in said]
    yield Figure(f"{many}: seconds to plan", statistics.median(planning), 10, "lower", "", planning)
    yield growth(f"{many}: CPU to plan", [(one["planning_cpu"], other["planning_cpu"]) for one, other in said], few)
    yield growth(f"{many}: CPU of the export", [(one.cpu, other.cpu) for one, other in pairs], few)
    peaks = [other.peak_rss / MB for _unused, other in pairs]
    yield Figure(f"{many}: peak RSS, MB", max(peaks), 100 + LARGE * MAP_BYTES / MB, "lower", "", peaks)


def growth(name: str, pairs: list[tuple[float, float]], peer: str) -> Figure:
    found = [large / small for small, large in pairs]
    return Figure(name, statistics.median(found), TWICE, "lower", peer, found)


def prepared(stack: ExitStack, bench: Bench, leaves: int) -> Fragmented:
    raw, store = bench.folder / f"{leaves}.raw", bench.folder / f"{leaves}-store"
    store.mkdir()
    write_islands(raw, leaves, first=0)
    with qemu_nbd(raw, "raw", "--read-only") as socket:
        bench.ours(f"nbd:{socket}", str(store))
    write_islands(raw, leaves, first=DATA_EVERY // 2)
    image = raw.with_suffix(".qcow2")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    raw.unlink()
    change_every_other_leaf(image, leaves)
    socket = stack.enter_context(qemu_nbd(image, "qcow2", "--read-only", f"--bitmap={BITMAP}"))
    return Fragmented(bench, store, socket, leaves)


def write_islands(raw: Path, leaves: int, *, first: int) -> None:
    with raw.open("wb") as file:
        file.truncate(leaves * LEAF)
        for leaf in range(first, leaves, DATA_EVERY):
            file.seek(leaf * LEAF)
            file.write(os.urandom(LEAF))


def change_every_other_leaf(image: Path, leaves: int) -> None:
    """A real bitmap, of which the bits are set by hand: a write for each of them would take minutes."""
    qemu_img("bitmap", "--add", "-g", LEAF, image, BITMAP)
    covered = 8 * LEAF  # leaves, by a cluster of the bitmap, which qemu makes at the first change
    qemu_io(image, "qcow2", *(f"write -q -z {leaf * LEAF} {LEAF}" for leaf in range(0, leaves, covered)))
    with image.open("r+b", buffering=0) as file:
        for number, place in enumerate(bitmap_clusters(file)):
            count = min(LEAF, leaves // 8 - number * LEAF)
            file.seek(place)
            file.write(bytes([EVERY_OTHER]) * count)


def bitmap_clusters(file: FileIO) -> list[int]:
    """Where the bits of the one bitmap lie, in guest order (docs/interop/qcow2.txt of QEMU)."""
    (extension,) = unpacked(file, ">I", 100)
    while (found := unpacked(file, ">II", extension))[0] != BITMAPS_EXTENSION:
        extension += 8 + (found[1] + 7) // 8 * 8
    (directory,) = unpacked(file, ">Q", extension + 8 + 16)
    table, clusters = unpacked(file, ">QI", directory)
    return [entry & CLUSTER_OFFSET for entry in unpacked(file, f">{clusters}Q", table)]


def unpacked(file: FileIO, format: str, offset: int) -> tuple[Any, ...]:
    file.seek(offset)
    return struct.unpack(format, file.read(struct.calcsize(format)))
