# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that loses or changes bytes is found out, and nothing is written outside the store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rigs.domain import Guest
from rigs.libvirt import LibvirtRig
from rigs.sloppy_s3 import sloppy_s3

from .conftest import BUCKET, make_s3_bench
from .exports import PATIENCE, Bench
from .flipping_proxy import flipping_proxy
from .written_files import written_files


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


CANARIES = "import sys\nfor path in sys.argv[1:]:\n  open(path, 'w').write('x')\nsys.stdin.read()"
SMALL = 64 * 1024  # bytes; a record, a log, or the description of a job


def test_running_machine_goes_to_s3_without_a_temporary_file(
    s3_bench: Bench, small: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the module's own process, which has a folder for temporary files, and by all that it starts."""
    temporary = s3_bench.folder / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    canaries = [Path(place) / f"canary-{os.getpid()}" for place in ("/tmp", "/var/tmp", "/dev/shm", temporary)]
    with written_files() as written:
        with s3_bench.running_module("vm_export", s3_bench.module_arguments(vm="small")) as exporter:
            result = exporter.result()
        writer = [sys.executable, "-c", CANARIES, *map(str, canaries)]
        with subprocess.Popen(writer, stdin=subprocess.PIPE):  # lives until it is seen, as all that is looked at does
            deadline = time.monotonic() + PATIENCE
            while not set(canaries) <= set(written.sizes) and time.monotonic() < deadline:
                time.sleep(0.05)
    for canary in canaries:
        canary.unlink()
    assert not result.get("failed"), result
    assert not written.lost
    assert set(canaries) <= set(written.sizes)  # the look can see
    assert s3_bench.state / "jobs" / exporter.job / "log.jsonl" in written.sizes
    places = (s3_bench.state, s3_bench.scratch)
    elsewhere = {path for path in written.sizes if not any(place in path.parents for place in places)}
    assert elsewhere == set(canaries)
    assert max(written.sizes.values()) < SMALL, written.sizes
    assert {path.name for path in (s3_bench.state / "jobs" / exporter.job).iterdir()} <= {"record.json", "log.jsonl"}
    s3_bench.assert_nothing_left("small")
