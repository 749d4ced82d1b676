# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `export`: a disk of 6 GiB with 1 GiB of data, against the best that a person would put together by hand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from benchmarks.measure import Cost, Figure, in_turn, ratio, run
from rigs.nbd import nbdkit, qemu_nbd
from rigs.s3_server import S3Server
from rigs.seaweedfs import seaweedfs

GIB, MB = 1 << 30, 1_000_000
DISK, ISLANDS = 6 * GIB, 64
ONCE = Path(__file__).with_name("export_once.py")
BUCKET = "bench"


@dataclass(frozen=True)
class Bench:
    folder: Path
    runs: int

    def ours(self, source: str, url: str, environment: dict[str, str] | None = None) -> Cost:
        state = self.folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        return run([sys.executable, str(ONCE), source, url, str(state)], environment)


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    bench = Bench(folder, runs)
    image = make_image(folder)
    with qemu_nbd(image, "qcow2", "--read-only") as socket:
        yield from to_a_path(bench, socket)
        with s3_bucket() as server:
            yield from to_s3(bench, socket, server)
            yield from memory(bench, socket, server)
        yield nothing_elsewhere(bench, socket)
        yield overhead(bench, socket)
    yield from of_a_vm_that_is_off(bench, image)


def make_image(folder: Path) -> Path:
    """1 GiB of random data in 64 islands, spread over 6 GiB."""
    raw, image = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(DISK)
        for island in range(ISLANDS):
            file.seek(island * (DISK // ISLANDS))
            for _piece in range(GIB // ISLANDS >> 20):
                file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    raw.unlink()
    return image


def to_a_path(bench: Bench, socket: Path) -> Iterator[Figure]:
    store, theirs = bench.folder / "store", bench.folder / "theirs.qcow2"
    mine, (openssl, coreutils) = in_turn(
        lambda: fresh(store, lambda: bench.ours(f"nbd:{socket}", str(store))),
        [
            lambda: convert(socket, theirs, f"openssl dgst -sha256 {theirs}"),
            lambda: convert(socket, theirs, f"sha256sum {theirs}"),
        ],
        bench.runs,
    )
    yield ratio("path: wall", mine, openssl, lambda cost: cost.wall, 0.8, "qemu-img convert, openssl dgst -sha256")
    yield ratio("path: wall", mine, coreutils, lambda cost: cost.wall, 0.45, "qemu-img convert, sha256sum")
    yield ratio("path: CPU", mine, openssl, lambda cost: cost.cpu, None, "qemu-img convert, openssl dgst -sha256")


def to_s3(bench: Bench, socket: Path, server: S3Server) -> Iterator[Figure]:
    environment, theirs = s3_environment(server), bench.folder / "theirs.qcow2"
    # Without the Python script that starts it, which would cost the peer 0.1 s.
    s5cmd_program = next(file for file in distribution("s5cmd").files or () if str(file) == "s5cmd/bin/s5cmd").locate()
    copy = f"{s5cmd_program} --endpoint-url {server.endpoint_url} cp {theirs} s3://{BUCKET}/theirs.qcow2"
    remote = (
        f":s3,provider=Other,env_auth=true,no_check_bucket=true,endpoint='{server.endpoint_url}':{BUCKET}/theirs.qcow2"
    )
    rclone = f"rclone --config /dev/null copyto {theirs} {shlex.quote(remote)}"

    def ours() -> Cost:
        empty(server)
        return bench.ours(f"nbd:{socket}", f"s3://{BUCKET}/ours", environment)

    def peer(upload: str) -> Callable[[], Cost]:
        def once() -> Cost:
            empty(server)
            return convert(socket, theirs, f"openssl dgst -sha256 {theirs} && {upload}", environment)

        return once

    mine, (s5cmd, rcloned) = in_turn(ours, [peer(copy), peer(rclone)], bench.runs)
    name = "qemu-img convert, openssl dgst -sha256, "
    yield ratio("S3: wall", mine, s5cmd, lambda cost: cost.wall, 0.9, name + "s5cmd cp")
    yield ratio("S3: CPU", mine, s5cmd, lambda cost: cost.cpu, 0.8, name + "s5cmd cp")
    yield ratio("S3: wall", mine, rcloned, lambda cost: cost.wall, None, name + "rclone copyto")
    yield ratio("S3: CPU", mine, rcloned, lambda cost: cost.cpu, None, name + "rclone copyto")


def memory(bench: Bench, socket: Path, server: S3Server) -> Iterator[Figure]:
    """Of the process, from 1 GiB to 16 GiB of data. The large disk is a pattern that a server makes up."""
    store = bench.folder / "store"
    small = [fresh(store, lambda: bench.ours(f"nbd:{socket}", str(store))).peak_rss / MB for _turn in range(3)]
    empty(server)
    s3 = [
        bench.ours(f"nbd:{socket}", f"s3://{BUCKET}/ours", s3_environment(server)).peak_rss / MB for _turn in range(2)
    ]
    with nbdkit("pattern", "size=16G") as pattern:
        large = [fresh(store, lambda: bench.ours(f"nbd:{pattern}", str(store))).peak_rss / MB]
        shutil.rmtree(store, ignore_errors=True)
        empty(server)
        s3_large = [bench.ours(f"nbd:{pattern}", f"s3://{BUCKET}/ours", s3_environment(server)).peak_rss / MB]
    yield Figure("path: peak RSS, 1 GiB of data, MB", max(small), 100, "lower", "", small)
    yield Figure("path: peak RSS, 16 GiB of data, MB", max(large), 100, "lower", "", large)
    yield Figure("path: peak RSS, 16 GiB against 1 GiB", max(large) / max(small), 1.2, "lower", "ourselves", large)
    yield Figure("S3: peak RSS, 1 GiB of data, MB", max(s3), 150, "lower", "", s3)
    yield Figure("S3: peak RSS, 16 GiB of data, MB", max(s3_large), 150, "lower", "", s3_large)
    yield Figure("S3: peak RSS, 16 GiB against 1 GiB", max(s3_large) / max(s3), 1.2, "lower", "ourselves", s3_large)


def nothing_elsewhere(bench: Bench, socket: Path) -> Figure:
    """Every file that the process opens for writing, as the kernel sees it, but for its job's record."""
    store, state, log = bench.folder / "store", bench.folder / "state", bench.folder / "trace"
    command = [sys.executable, str(ONCE), f"nbd:{socket}", str(store), str(state)]
    shutil.rmtree(state, ignore_errors=True)
    trace = ["strace", "-f", "-y", "-qq", "-e", "trace=write,pwrite64,writev,pwritev", "-o", str(log), *command]
    fresh(store, lambda: run(trace))
    elsewhere = 0
    for line in log.read_text().splitlines():
        found = re.search(r"p?writev?(?:64)?\(\d+<([^>]*)>.* = (\d+)$", line)
        if (
            found
            and found.group(1).startswith("/")
            and not found.group(1).startswith((str(store), str(state), "/dev/"))
        ):
            elsewhere += int(found.group(2))
    log.unlink()
    shutil.rmtree(store)
    return Figure("bytes written outside the store", elsewhere, 0, "lower", "", [elsewhere])


def overhead(bench: Bench, socket: Path) -> Figure:
    store, said = bench.folder / "store", bench.folder / "overhead.json"
    shares = []
    state = bench.folder / "state"
    command = [sys.executable, str(ONCE), f"nbd:{socket}", str(store), str(state), str(said)]
    for _turn in range(bench.runs):
        shutil.rmtree(state, ignore_errors=True)
        fresh(store, lambda: run(command))
        spent = json.loads(said.read_text())
        shares.append(100 * spent["counting"] / spent["whole"])
    shutil.rmtree(store)
    return Figure("progress and record, % of the run", statistics.median(shares), 2, "lower", "the whole run", shares)


def of_a_vm_that_is_off(bench: Bench, image: Path) -> Iterator[Figure]:
    store, theirs = bench.folder / "store", bench.folder / "theirs.qcow2"
    peer = f"qemu-img convert -f qcow2 -O qcow2 {image} {theirs} && openssl dgst -sha256 {theirs}"
    mine, (openssl,) = in_turn(
        lambda: fresh(store, lambda: bench.ours(f"file:{image}:qcow2", str(store))),
        [lambda: shell(theirs, peer)],
        bench.runs,
    )
    shutil.rmtree(store)
    yield ratio("VM off: wall", mine, openssl, lambda cost: cost.wall, 0.9, "qemu-img convert, openssl dgst -sha256")


def convert(socket: Path, target: Path, then: str, environment: dict[str, str] | None = None) -> Cost:
    return shell(target, f"qemu-img convert -O qcow2 nbd:unix:{socket} {target} && {then}", environment)


def shell(target: Path, command: str, environment: dict[str, str] | None = None) -> Cost:
    target.unlink(missing_ok=True)
    try:
        return run(["sh", "-c", command], environment)
    finally:
        target.unlink(missing_ok=True)


def fresh(store: Path, once: Callable[[], Cost]) -> Cost:
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    return once()


@contextmanager
def s3_bucket() -> Iterator[S3Server]:
    with seaweedfs() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


def empty(server: S3Server) -> None:
    client = server.client()
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])


def s3_environment(server: S3Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": server.endpoint_url,
    }


__all__: Sequence[str] = ("measure",)
