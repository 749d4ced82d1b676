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
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

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

    def ours(
        self, source: str, url: str, settings: dict[str, Any] | None = None, *options: str, **arguments: Any
    ) -> Cost:
        return self.of(run(self.command(source, url, settings, *options, **arguments)))

    def command(
        self, source: str, url: str, settings: dict[str, Any] | None = None, *options: str, **more: Any
    ) -> list[str]:
        """Of the module, with its defaults but for `more`."""
        state, arguments = self.folder / "state", self.folder / "arguments.json"
        shutil.rmtree(state, ignore_errors=True)
        asked = {
            "provider": "libvirt",
            "vm": "bench",
            "url": url,
            "storage": settings or {},
            "state_dir": str(state),
            **more,
        }
        arguments.touch(mode=0o600)
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": asked}))
        return [sys.executable, str(ONCE), source, str(arguments), *options]

    def of(self, cost: Cost) -> Cost:
        """What the process says of its own memory; what the system says would count the bench's as well."""
        return replace(cost, peak_rss=self.said(cost)["peak_rss"])

    def said(self, cost: Cost) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cost.output.splitlines()[-1])
        return found


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    bench = Bench(folder, runs)
    image = make_image(folder)
    with qemu_nbd(image, "qcow2", "--read-only") as socket:
        yield from to_a_path(bench, socket)
        with s3_bucket() as server:
            yield from to_s3(bench, socket, server)
            yield from memory(bench, socket, server)
            yield from nothing_elsewhere(bench, socket, server)
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
    copy = f"{s5cmd_program()} --endpoint-url {server.endpoint_url} cp {theirs} s3://{BUCKET}/theirs.qcow2"
    remote = (
        f":s3,provider=Other,env_auth=true,no_check_bucket=true,endpoint='{server.endpoint_url}':{BUCKET}/theirs.qcow2"
    )
    rclone = f"rclone --config /dev/null copyto {theirs} {shlex.quote(remote)}"

    def ours() -> Cost:
        empty(server)
        return bench.ours(f"nbd:{socket}", f"s3://{BUCKET}/ours", s3_settings(server))

    def peer(upload: str) -> Callable[[], Cost]:
        def once() -> Cost:
            empty(server)
            return convert(socket, theirs, f"openssl dgst -sha256 {theirs} && {upload}", environment)

        return once

    mine, (s5cmd, rcloned) = in_turn(ours, [peer(copy), peer(rclone)], bench.runs)
    name = "qemu-img convert, openssl dgst -sha256, "
    yield ratio("S3: wall", mine, s5cmd, lambda cost: cost.wall, 0.9, name + "s5cmd cp")
    yield ratio("S3: CPU", mine, s5cmd, lambda cost: cost.cpu, 0.8, name + "s5cmd cp")
    yield ratio("S3: wall", mine, rcloned, lambda cost: cost.wall, 0.9, name + "rclone copyto")
    yield ratio("S3: CPU", mine, rcloned, lambda cost: cost.cpu, 0.8, name + "rclone copyto")


def memory(bench: Bench, socket: Path, server: S3Server) -> Iterator[Figure]:
    """Of the module's process, from 1 GiB to 16 GiB of data. The large disk is a pattern that a server makes up."""
    store = bench.folder / "store"

    def to_path(source: Path) -> float:
        return fresh(store, lambda: bench.ours(f"nbd:{source}", str(store))).peak_rss / MB

    def to_bucket(source: Path) -> float:
        empty(server)
        return bench.ours(f"nbd:{source}", f"s3://{BUCKET}/ours", s3_settings(server)).peak_rss / MB

    with nbdkit("pattern", "size=16G") as pattern:
        for name, limit, peak in (("path", 100, to_path), ("S3", 150, to_bucket)):
            small, large = [peak(socket) for _turn in range(3)], [peak(pattern)]
            shutil.rmtree(store, ignore_errors=True)
            growth = [large[0] / max(small)]
            yield Figure(f"{name}: peak RSS, 1 GiB of data, MB", max(small), limit, "lower", "", small)
            yield Figure(f"{name}: peak RSS, 16 GiB of data, MB", large[0], limit, "lower", "", large)
            yield Figure(f"{name}: peak RSS, 16 GiB against 1 GiB", growth[0], 1.2, "lower", "ourselves", growth)


def nothing_elsewhere(bench: Bench, socket: Path, server: S3Server) -> Iterator[Figure]:
    """Every write of the process to a file, as the kernel sees it, but those to its job's record."""
    store, traces = bench.folder / "store", bench.folder / "traces"
    calls = "trace=write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,ftruncate,fallocate"
    # A file for each thread: in a common one, calls that overlap are torn apart.
    trace = ["strace", "-ff", "-y", "-qq", "-e", calls, "-o", str(traces / "trace")]
    for name, url, settings in (
        ("path", str(store), None),
        ("S3", f"s3://{BUCKET}/ours", s3_settings(server)),
    ):
        traces.mkdir()
        command = [*trace, *bench.command(f"nbd:{socket}", url, settings)]
        fresh(store, lambda command=command: run(command))  # type: ignore[misc]
        written = Written.read(traces, (str(store), str(bench.folder / "state")))
        if written.to_store < GIB and name == "path":
            sys.exit(f"The trace shows {written.to_store} bytes of 1 GiB: it is worth nothing.")
        shutil.rmtree(traces)
        yield Figure(f"{name}: bytes written elsewhere", written.elsewhere, 0, "lower", "", [written.elsewhere])
    shutil.rmtree(store)
    empty(server)


@dataclass(frozen=True)
class Written:
    to_store: int
    elsewhere: int

    @classmethod
    def read(cls, traces: Path, own: tuple[str, str]) -> Written:
        """`own` are the store's folder and the folder of job records."""
        to_store = elsewhere = 0
        for trace in traces.iterdir():
            for line in trace.read_text(errors="replace").splitlines():
                found = re.match(r"(\w+)\(\d+<(/[^>]*)>.*\) = (\d+)$", line)
                if found is None or found.group(2) == "/dev/null":
                    continue
                call, file, count = found.group(1), found.group(2), int(found.group(3))
                size = 0 if call in ("ftruncate", "fallocate") else count
                if file.startswith(own):
                    to_store += size if file.startswith(own[0]) else 0
                else:
                    elsewhere += max(size, 1)
        return cls(to_store, elsewhere)


def overhead(bench: Bench, socket: Path) -> Figure:
    store, shares = bench.folder / "store", []
    for _turn in range(bench.runs):
        said = bench.said(fresh(store, lambda: run(bench.command(f"nbd:{socket}", str(store), None, "--count"))))
        shares.append(100 * said["counting"] / said["cpu"])
    shutil.rmtree(store)
    return Figure("progress and record, % of the CPU", statistics.median(shares), 2, "lower", "the whole run", shares)


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


def s5cmd_program() -> Path:
    """Not the Python script that starts it, which would cost the peer 0.1 s."""
    (program,) = (file for file in distribution("s5cmd").files or () if str(file) == "s5cmd/bin/s5cmd")
    return Path(str(program.locate()))


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


def s3_settings(server: S3Server) -> dict[str, Any]:
    return {**server.settings, "addressing_style": "path"}


def s3_environment(server: S3Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": server.endpoint_url,
    }


__all__: Sequence[str] = ("measure",)
