# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `formats`: an export of 1 GiB of data in each image format, and its way back, against qemu-img."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.export import MB, Bench, fresh, shell
from benchmarks.measure import Figure, in_turn, ratio, run
from rigs.nbd import qemu_nbd

DATA, ISLANDS = 1 << 30, 64
DISK = 4 * DATA
VERIFY = Path(__file__).with_name("verify_once.py")
PEERS = {  # what qemu-img is told, and whether it is asked for a checksum of what it wrote
    "vmdk": ("vmdk -o subformat=streamOptimized", False, 1.0),
    "vmdk_sparse": ("vmdk -o subformat=monolithicSparse", True, 0.8),
    "vhd": ("vpc -o subformat=fixed,force_size=on", True, 0.8),
    "vhd_dynamic": ("vpc -o subformat=dynamic,force_size=on", True, 0.8),
    "vhdx": ("vhdx -o subformat=dynamic", True, 0.8),
    "raw_tar_gz": ("raw", False, 1.0),
}
TAR = "tar --format=oldgnu --sparse --use-compress-program='gzip -1'"  # as Google's documentation has it, but faster


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    bench = Bench(folder, runs)
    raw = make_disk(folder)
    with qemu_nbd(raw, "raw", "--read-only") as socket:
        for format_ in PEERS:
            yield from written(bench, socket, format_)
        yield from read(bench, socket)
        with without_isal(folder):
            yield from written(bench, socket, "vmdk", "vmdk by zlib")
            yield from read(bench, socket, "vmdk by zlib")


@contextmanager
def without_isal(folder: Path) -> Iterator[None]:
    """As on a host where nobody has installed it."""
    (folder / "hiding").mkdir()
    (folder / "hiding/isal.py").write_text("raise ImportError('hidden')\n")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "hiding"), *([before] if before else [])])
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        os.environ.update({"PYTHONPATH": before} if before is not None else {})


def make_disk(folder: Path) -> Path:
    """Half of each island shrinks to almost nothing, and the other half not at all."""
    raw = folder / "disk.raw"
    text = b"".join(b"line %d of a file that shrinks\n" % number for number in range(20_000))[: 1 << 19]
    with raw.open("wb") as file:
        file.truncate(DISK)
        for island in range(ISLANDS):
            file.seek(island * (DISK // ISLANDS))
            for _piece in range(DATA // ISLANDS >> 20):
                file.write(os.urandom(1 << 19) + text)
    return raw


def written(bench: Bench, socket: Path, format_: str, title: str = "") -> Iterator[Figure]:
    store, theirs = bench.folder / "store", bench.folder / "theirs"
    output, digested, target = PEERS[format_]
    peer = f"qemu-img convert -f raw -O {output} nbd:unix:{socket} {theirs}"
    if format_ == "raw_tar_gz":
        unpacked = bench.folder / "unpacked" / "disk.raw"  # not the disk itself, which has that name, too
        unpacked.parent.mkdir(exist_ok=True)
        peer = f"qemu-img convert -f raw -O raw nbd:unix:{socket} {unpacked}"
        peer += f" && {TAR} -cf {theirs} -C {unpacked.parent} disk.raw; rm {unpacked}"
    if digested:
        peer += f" && openssl dgst -sha256 {theirs}"
    mine, (theirs_cost,) = in_turn(
        lambda: fresh(store, lambda: bench.ours(f"nbd:{socket}", str(store), format=format_)),
        [lambda: shell(theirs, peer)],
        bench.runs,
    )
    shutil.rmtree(store)
    name = f"qemu-img convert -O {output}" + (", openssl dgst -sha256" if digested else "")
    name += ", tar, gzip -1" if format_ == "raw_tar_gz" else ""
    yield ratio(f"{title or format_}, written: wall", mine, theirs_cost, lambda cost: cost.wall, target, name)
    yield ratio(f"{title or format_}, written: CPU", mine, theirs_cost, lambda cost: cost.cpu, None, name)
    peaks = [cost.peak_rss / MB for cost in mine]
    yield Figure(f"{title or format_}, written: peak RSS, MB", max(peaks), 100, "lower", "", peaks)


def read(bench: Bench, socket: Path, title: str = "vmdk") -> Iterator[Figure]:
    """Every leaf inflated and compared with its digest; qemu-img inflates them alone, and writes a file."""
    store, theirs, flat = bench.folder / "store", bench.folder / "theirs", bench.folder / "flat"
    fresh(store, lambda: bench.ours(f"nbd:{socket}", str(store), format="vmdk"))
    run(["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", f"nbd:unix:{socket}", str(theirs)])
    mine, (peer,) = in_turn(
        lambda: run([sys.executable, str(VERIFY), str(store), str(bench.folder / "state")]),
        [lambda: shell(flat, f"qemu-img convert -f vmdk -O raw {theirs} {flat}")],
        bench.runs,
    )
    yield ratio(f"{title}, read: wall", mine, peer, lambda cost: cost.wall, 1.0, "qemu-img convert -f vmdk -O raw")
    yield ratio(f"{title}, read: CPU", mine, peer, lambda cost: cost.cpu, None, "qemu-img convert -f vmdk -O raw")
