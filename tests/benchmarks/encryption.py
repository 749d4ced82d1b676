# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of group `stores`: a disk that is all data, encrypted on its way into a folder."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.export import Bench
from benchmarks.measure import Cost, Figure, in_turn, ratio, run

MIB, GIB, MB = 1 << 20, 1 << 30, 1e6
WORD = "correct horse battery staple"


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    """The module's whole process: its start, both key derivations, digests of leaves and of what is stored."""
    disk, store, theirs = folder / "random.raw", folder / "encrypted", folder / "theirs.qcow2"
    with disk.open("wb") as file:
        for _unused in range(GIB // MIB):
            file.write(os.urandom(MIB))
    secret = folder / "passphrase"
    secret.write_text(WORD)
    empty, key = folder / "empty.qcow2", ["--object", f"secret,id=key,file={secret}"]
    bench = Bench(folder, runs)

    def ours() -> Cost:
        shutil.rmtree(store, ignore_errors=True)
        return bench.ours(f"file:{disk}:raw", store.as_uri(), encryption={"passphrase_file": str(secret)})

    def convert() -> Cost:
        """Into an image that is there, since QEMU measures the machine for the making of one."""
        shutil.copyfile(empty, theirs)
        opened = f"driver=qcow2,encrypt.key-secret=key,file.driver=file,file.filename={theirs}"
        return run(["qemu-img", "convert", "-n", *key, "-f", "raw", "--target-image-opts", str(disk), opened])

    secret.chmod(0o600)
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=100"
    run(["qemu-img", "create", "-q", *key, "-f", "qcow2", "-o", options, str(empty), str(GIB)])
    mine, (converted,) = in_turn(ours, [convert], runs)
    rates, busy = [GIB / MB / cost.wall for cost in mine], [GIB / MB / cost.cpu for cost in mine]
    yield Figure("1 GiB, encrypted: MB/s of the process", statistics.median(rates), 300, "higher", "", rates)
    yield Figure("1 GiB, encrypted: MB per CPU-second", statistics.median(busy), None, "higher", "", busy)
    peer = "qemu-img convert, which neither digests nor syncs"
    yield ratio("1 GiB, encrypted: wall", mine, converted, lambda cost: cost.wall, None, peer)
    worst = max(cost.peak_rss for cost in mine) / MB
    yield Figure("1 GiB, encrypted: peak RSS, MB", worst, 150, "lower", "", [c.peak_rss / MB for c in mine])
    for path in (disk, theirs):
        path.unlink()
    shutil.rmtree(store)
