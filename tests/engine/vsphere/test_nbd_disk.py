# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks over NBD: nbdkit is asked for them as its plugin for VDDK wants it, or a server of the user's own is.

VDDK is proprietary, so nbdkit's real program serves a file in its place, with what it was asked for looked at before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.disk_servers import DiskServers
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.nbd_disk import nbd_disk, nbd_place
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from rigs.vsphere import Disk, VSphere

from .points import LEAF, Points
from .vddk import fake_nbdkit

pytestmark = pytest.mark.slow
MIB = 1 << 20
DATA = (b"frozen" * 20_000).ljust(MIB, b"\0")


class Bench:
    """A VM at a point in time, with its disk as VDDK would show it in `image`."""

    def __init__(self, points: Points, folder: Path, given: Mapping[str, Any]) -> None:
        self.points, self.given, self.folder = points, given, folder
        self.frozen = points.take()
        self.disk = self.frozen.disks["scsi0:0"]
        self.image = folder / self.frozen.snapshot / f"{self.disk.key}"
        self.image.parent.mkdir()
        self.image.write_bytes(points.bytes_now().rstrip(b"\0"))
        os.truncate(self.image, self.disk.size)
        points.write(0, b"written later")

    def opened(self, **more: Any) -> Any:
        settings = VsphereSettings.from_options({**self.given, **more})
        servers = DiskServers(settings, self.points.session)
        return nbd_disk(settings, servers, self.points.vm(), self.frozen.snapshot, self.disk)


@pytest.fixture
def bench(vcenter: VSphere, settings: dict[str, Any], tmp_path: Path) -> Iterator[Bench]:
    points = Points(vcenter, settings, [Disk(DATA)])
    yield Bench(points, tmp_path, settings)
    points.close()


@pytest.fixture
def asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What nbdkit is asked for."""
    return fake_nbdkit(bench.folder, bench.given["password"], monkeypatch)


def content(source: BlockSource) -> bytes:
    buffer = bytearray(source.size)
    source.read_into([(0, memoryview(buffer))])
    return bytes(buffer)


def test_vddk_is_told_the_disk_the_snapshot_and_the_certificate(bench: Bench, asked: Path) -> None:
    with bench.opened(vddk_libdir="/opt/vddk") as source:
        assert content(source) == DATA
        assert [one.kind for one in source.extents()] == ["data", "zero"], "what is not allocated is not read"
    told = json.loads(asked.read_text())
    vcenter = bench.points.vcenter
    der = ssl.PEM_cert_to_DER_cert(vcenter.server_certificate.read_text())
    digest = hashlib.sha1(der).hexdigest()
    assert told["parameters"] == {
        "libdir": "/opt/vddk",
        "server": vcenter.host,
        "port": str(vcenter.port),
        "user": vcenter.user,
        "thumbprint": ":".join(digest[at : at + 2] for at in range(0, 40, 2)),
        "vm": f"moref={bench.points.moref}",
        "snapshot": bench.frozen.snapshot,
        "file": f"[LocalDS_0] {bench.points.name}/{bench.points.name}.vmdk",
    }


def test_password_is_on_no_command_line_and_in_no_environment(bench: Bench, asked: Path) -> None:
    with bench.opened(vddk_libdir="/opt/vddk"):
        told = json.loads(asked.read_text())
        pid = told["pid"]
        seen = [Path(f"/proc/{pid}/{file}").read_bytes().decode() for file in ("cmdline", "environ")]
    assert told["password"] == bench.given["password"]
    assert not [text for text in (*seen, " ".join(told["argv"])) if bench.given["password"] in text]


def test_refused_password_is_told_without_it(bench: Bench, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nbdkit(bench.folder, "another one", monkeypatch)
    with pytest.raises(VmferryError) as failed, bench.opened(vddk_libdir="/opt/vddk"):
        pass
    assert "nbdkit cannot read scsi0:0 of" in failed.value.message
    assert "wrong password ***" in failed.value.message


def test_disk_of_another_size_is_not_read(bench: Bench, asked: Path) -> None:
    bench.image.write_bytes(DATA[:-512])
    told = pytest.raises(VmferryError, match=rf"shows {MIB - 512} bytes as scsi0:0")
    with told as failed, bench.opened(vddk_libdir="/opt/vddk"):
        pass
    assert failed.value.kind == "conflict"


def test_any_nbd_server_shows_the_disk_that_its_uri_names(bench: Bench) -> None:
    socket = bench.folder / f"{bench.frozen.snapshot}.sock"
    nbdkit = shutil.which("nbdkit")
    assert nbdkit
    command = [nbdkit, "-f", "-r", "-U", str(socket), "file", f"dir={bench.image.parent}"]
    server = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        uri = f"nbd+unix:///{{key}}?socket={bench.folder}/{{snapshot}}.sock"
        with bench.opened(nbd_uri=uri) as source:
            assert content(source) == DATA
            buffer = bytearray(10)
            source.read_into([(LEAF + 3, memoryview(buffer))])
            assert bytes(buffer) == DATA[LEAF + 3 : LEAF + 13]
    finally:
        server.terminate()
        server.wait()


def test_names_in_a_uri_are_quoted(bench: Bench) -> None:
    vm, snapshot = bench.points.vm(), bench.frozen.snapshot
    address, export = nbd_place("nbd://proxy:10810/{vm}/{snapshot}/{file}", vm, snapshot, bench.disk)
    assert (address.host, address.port) == ("proxy", 10810)
    assert export == f"{bench.points.moref}/{snapshot}/{bench.disk.file}"
    assert nbd_place("nbd://proxy/{snapshot}/{key}", vm, snapshot, bench.disk)[0].port == 10809
