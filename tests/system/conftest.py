# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers and machines of the system tests, each started once."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from rigs import guests
from rigs.domain import Disk, Guest, Machine, define_and_start, domain_xml, remove_domain
from rigs.fault_proxy import FaultProxy, fault_proxy
from rigs.libvirt import LibvirtRig
from rigs.s3_server import S3Server
from rigs.seaweedfs import seaweedfs
from rigs.serial import Console
from rigs.webdav import DavServer, nginx_dav

from .exports import MIB, Bench
from .leftovers import MARK, backup_under_way
from .snapshots import create_image

BUCKET = "exports"
DISK = 24 * MIB  # of the small machine: at SLOW, an export of it lasts some five seconds
DATA = 20 * MIB
LEAF = 65536
SIZE = 16 * MIB  # of the disk that is written to from outside


@pytest.fixture(scope="session", autouse=True)
def marked() -> Iterator[None]:
    """What this session starts is known by it; what the servers' rigs start is known by its name."""
    os.environ[MARK] = "rig"
    yield
    del os.environ[MARK]


@pytest.fixture(autouse=True)
def mark_of_the_test(monkeypatch: pytest.MonkeyPatch, servers: None) -> None:
    monkeypatch.setenv(MARK, str(os.getpid()))


@pytest.fixture(scope="session")
def servers(rig: LibvirtRig, s3_server: S3Server) -> None:
    """All of them are up before the first test is marked, or they would pass for something left behind."""


@pytest.fixture(scope="session")
def rig(marked: None, libvirt_rig: LibvirtRig) -> LibvirtRig:
    return libvirt_rig


@pytest.fixture(scope="session")
def s3_server(marked: None) -> Iterator[S3Server]:
    with seaweedfs() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server
        os.kill(server.pid, signal.SIGKILL)  # nothing of it is kept, and its own way out takes half a minute


@pytest.fixture(scope="session")
def session_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(session_proxy: FaultProxy) -> Iterator[FaultProxy]:
    session_proxy.reset()
    yield session_proxy
    session_proxy.reset()


def small_disk(path: Path, label: str, image_format: str = "raw") -> Path:
    """A disk that boots in a tenth of a second and holds 20 MiB that no compression shrinks."""
    raw = guests.mbr_disk(path.with_suffix(".seed"), label, DISK)
    with raw.open("r+b") as disk:
        disk.seek(MIB)
        disk.write(random.Random(label).randbytes(DATA))
    guests.place(raw, path, image_format)
    raw.unlink()
    return path


@pytest.fixture(scope="session")
def small(rig: LibvirtRig) -> Iterator[Guest]:
    """A machine that runs and does nothing, for all that befalls an export from outside."""
    guest = define_and_start(rig, small_machine(rig, "small"))
    guest.console.wait_for(guests.boot_marker("small"))
    yield guest
    guest.destroy()


def small_machine(rig: LibvirtRig, name: str) -> Machine:
    disk = small_disk(rig.directory / f"{name}.qcow2", name, "qcow2")
    return Machine(name, disks=(Disk(disk, "qcow2"),), memory_mib=32)


@pytest.fixture
def off(rig: LibvirtRig) -> Iterator[str]:
    """The name of a machine that is defined and off; each test has its own."""
    name = f"off-{secrets.token_hex(3)}"
    domain = rig.connect().defineXML(domain_xml(small_machine(rig, name), rig.directory))
    yield name
    remove_domain(domain)
    (rig.directory / f"{name}.qcow2").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def linux(rig: LibvirtRig) -> Iterator[Guest]:
    """A Linux guest with its system disk, a qcow2 and a raw disk, and the guest agent."""
    directory = rig.directory
    system = guests.place(guests.linux_disk(), directory / "linux-system.qcow2")
    data = directory / "linux-data.raw"
    data.touch()
    os.truncate(data, 32 * MIB)
    more = directory / "linux-more.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(more), str(16 * MIB)], check=True)
    disks = (Disk(system), Disk(data, "raw"), Disk(more))
    guest = define_and_start(rig, Machine("linux", disks=disks, agent=True))
    guest.console.wait_for(guests.READY)
    guest.wait_for_agent()
    yield guest
    guest.destroy()


@pytest.fixture(scope="session")
def lively_started(rig: LibvirtRig) -> Iterator[Guest]:
    """With /mnt on vda, a second disk, and the agent: for snapshots, which take and give back all of a machine."""
    system = guests.place(guests.linux_disk(), rig.directory / "lively.qcow2")
    more = create_image(rig.directory / "lively-more.qcow2")
    guest = define_and_start(rig, Machine("lively", disks=(Disk(system), Disk(more)), boot="kernel", agent=True))
    guest.console.wait_for(guests.READY, 120)
    guest.wait_for_agent()
    yield guest
    guest.destroy()


@pytest.fixture
def lively(lively_started: Guest) -> Iterator[Guest]:
    """With a console of its own: a VM that is set back gets a new QEMU, and that a new socket."""
    lively_started.console.close()
    with Console(lively_started.rig.directory / "lively.console") as console:
        yield Guest(lively_started.rig, "lively", console)


@dataclass(frozen=True)
class OffVm:
    """A VM that is off, whose raw disk a test writes to as its guest would."""

    name: str
    disk: Path

    def write(self, leaf: int, data: bytes) -> None:
        with self.disk.open("r+b") as file:
            file.seek(leaf * LEAF)
            file.write(data)


@pytest.fixture
def vm(rig: LibvirtRig) -> Iterator[OffVm]:
    name = f"raw-{secrets.token_hex(3)}"
    disk = rig.directory / f"{name}.raw"
    disk.write_bytes(random.Random(name).randbytes(SIZE // 2) + bytes(SIZE // 2))
    domain = rig.connect().defineXML(
        domain_xml(Machine(name, disks=(Disk(disk, "raw"),), memory_mib=32), rig.directory)
    )
    yield OffVm(name, disk)
    remove_domain(domain)
    disk.unlink()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vmferry-", dir="/tmp") as made:
        for name in ("scratch", "images", "store"):
            (Path(made) / name).mkdir()
        yield Path(made)


@pytest.fixture
def machines_as_they_were(rig: LibvirtRig) -> Iterator[None]:
    """A test's store is gone after it, and with it who would ask for the checkpoints that its exports keep. What a test
    that failed left under way is no trouble of the next one."""
    yield
    for domain in rig.connect().listAllDomains():
        if backup_under_way(domain):
            domain.abortJob()
        for checkpoint in domain.listAllCheckpoints():
            if domain.isActive():
                checkpoint.delete()
            else:
                checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)


@pytest.fixture
def bench(rig: LibvirtRig, folder: Path, machines_as_they_were: None) -> Bench:
    """A store in a folder."""
    store = folder / "store"

    def keys() -> list[str]:
        return sorted(str(path.relative_to(store)) for path in store.rglob("*") if not path.is_dir())

    return Bench(rig, folder, StoreSpec(f"file://{store}"), keys, lambda key: (store / key).read_bytes())


@pytest.fixture
def s3_bench(
    rig: LibvirtRig, folder: Path, s3_server: S3Server, proxy: FaultProxy, machines_as_they_were: None
) -> Bench:
    """A prefix of its own in a bucket, reached through the proxy."""
    return make_s3_bench(rig, folder, s3_server, endpoint_url=proxy.endpoint_url)


@pytest.fixture(scope="session")
def dav_server(marked: None) -> Iterator[DavServer]:
    with nginx_dav() as server:
        yield server


@pytest.fixture
def dav_bench(rig: LibvirtRig, folder: Path, dav_server: DavServer, machines_as_they_were: None) -> Bench:
    """A folder of its own on a WebDAV server, reached over TLS with a token."""
    name = secrets.token_hex(4)
    store = dav_server.data / name
    spec = StoreSpec(f"{dav_server.url}/{name}", dict(dav_server.settings))

    def keys() -> list[str]:
        found = (str(path.relative_to(store)) for path in store.rglob("*") if not path.is_dir())
        return sorted(key for key in found if ".part/" not in key)

    def uploads() -> list[str]:
        return [str(path.relative_to(store)) for path in store.rglob("*.part")]

    return Bench(rig, folder, spec, keys, lambda key: (store / key).read_bytes(), uploads)


def make_s3_bench(rig: LibvirtRig, folder: Path, server: S3Server, **settings: Any) -> Bench:
    prefix = secrets.token_hex(4)
    client = server.client()

    def keys() -> list[str]:
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
        return [one["Key"].removeprefix(f"{prefix}/") for one in listed]

    def uploads() -> list[str]:
        listed = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [one["Key"] for one in listed if one["Key"].startswith(f"{prefix}/")]

    def download(key: str, target: Path) -> None:
        client.download_file(BUCKET, key, str(target))

    def read(key: str) -> bytes:
        found: bytes = client.get_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["Body"].read()
        return found

    store = StoreSpec(f"s3://{BUCKET}/{prefix}", {**server.settings, **settings})
    return Bench(rig, folder, store, keys, read, uploads, download)
