# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that loses or changes bytes is found out, and nothing is written outside the store."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import StoreSpec
from rigs.domain import Guest
from rigs.libvirt import LibvirtRig
from rigs.sloppy_s3 import sloppy_s3

from .conftest import BUCKET, make_s3_bench
from .exports import Bench
from .flipping_proxy import flipping_proxy

# inotify(7)
IN_MODIFY, IN_CREATE, IN_MOVED_TO = 0x2, 0x100, 0x80
EVENT = struct.Struct("iIII")


@pytest.mark.parametrize("how", ["stored", "content"])
def test_server_that_stores_other_bytes_is_found_out(rig: LibvirtRig, folder: Path, small: Guest, how: str) -> None:
    with sloppy_s3() as server, flipping_proxy(server.port) as proxy:
        server.client().create_bucket(Bucket=BUCKET)
        bench = make_s3_bench(rig, folder, server, endpoint_url=proxy.endpoint_url)
        proxy.flip("disk-0.qcow2")
        error = bench.refused_export("small", "checksum_mismatch", "disk-0.qcow2", verify=how)
        assert proxy.flipped
        assert error.phase == "verifying"
        assert bench.keys() == []
        assert bench.uploads() == []


@contextmanager
def watching(*folders: Path) -> Iterator[Callable[[], set[str]]]:
    """The files that are made or written below these folders while the body runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    watched = {}
    for folder in folders:
        for path in [folder, *(one for one in folder.rglob("*") if one.is_dir())]:
            number = libc.inotify_add_watch(descriptor, os.fsencode(path), IN_MODIFY | IN_CREATE | IN_MOVED_TO)
            if number >= 0:
                watched[number] = path
    found: set[str] = set()

    def look() -> set[str]:
        while True:
            try:
                data = os.read(descriptor, 1 << 20)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                number, mask, _unused, length = EVENT.unpack_from(data, at)
                assert not mask & 0x4000, "events were lost"
                name = data[at + EVENT.size :][:length].rstrip(b"\0").decode()
                at += EVENT.size + length
                if number in watched:
                    found.add(str(watched[number] / name))

    try:
        yield look
    finally:
        os.close(descriptor)


def test_export_to_s3_writes_no_file_but_its_record(s3_bench: Bench, off: str) -> None:
    s3_bench.state.mkdir(mode=0o700)
    job = "0" * 32
    (s3_bench.state / "jobs").mkdir(mode=0o700)
    private = s3_bench.folder / "tmp"  # a neighbour on this machine may write to the common one
    private.mkdir()
    arguments = s3_bench.module_arguments(vm=off)
    with watching(s3_bench.folder, Path("/var/tmp"), private, Path("/dev/shm")) as made:
        (s3_bench.folder / "canary").touch()
        moved = replace(s3_bench, store=StoreSpec(s3_bench.store.url, s3_bench.store.settings))
        assert arguments["vm"] == off
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("TMPDIR", str(private))
            moved.export(off, transfer={"job_id": job})
        found = made()
    assert str(s3_bench.folder / "canary") in found  # the look can see
    others = {path for path in found if not path.startswith((str(s3_bench.state), str(s3_bench.folder / "canary")))}
    assert {path for path in others if "vmferry" in path or path.startswith(str(s3_bench.folder))} == set()
    assert {path.name for path in (s3_bench.state / "jobs" / job).iterdir()} <= {"record.json", "log.jsonl"}
    s3_bench.assert_nothing_left(off, runs=False)
