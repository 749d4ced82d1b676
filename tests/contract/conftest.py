# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers behind the contracts, started once a session and only when a test asks for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem import roots
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.mounts import Mount, mount_of
from rigs.aws import AwsServer, shared_models
from rigs.azurite import AzuriteServer, azurite
from rigs.fault_proxy import FaultProxy, fault_proxy
from rigs.gcs import GcsServer, fake_gcs_server, gcp_storage_emulator
from rigs.proxmox import ProxmoxServer
from rigs.s3_server import S3Server
from rigs.seaweedfs import seaweedfs
from rigs.sloppy_s3 import sloppy_s3
from rigs.vsphere import VSphere
from rigs.webdav import nginx_dav as nginx_server
from rigs.webdav import rclone_dav as rclone_server

from .chains import HOME, LEAF, Chain, Guest, export
from .objects_rig import Places, one_client, place
from .patience import Patience
from .providers.fixtures import bench, forked_runs, make_bench  # noqa: F401 - found here by tests of all providers
from .store_rigs import (
    AzureRig,
    FilesystemRig,
    GcsEmulatorRig,
    GcsRig,
    NginxDavRig,
    RcloneDavRig,
    S3Rig,
    SloppyS3Rig,
    StoreRig,
    WrappedRig,
)


@pytest.fixture
def patience() -> Patience:
    return Patience()


@pytest.fixture(scope="session")
def vsphere_server() -> Iterator[VSphere]:
    with VSphere() as server:
        yield server


@pytest.fixture(scope="session")
def aws_server() -> Iterator[AwsServer]:
    shared_models.share()
    with AwsServer() as server:
        yield server


@pytest.fixture(scope="session")
def proxmox_server() -> Iterator[ProxmoxServer]:
    with ProxmoxServer() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def sloppy_s3_server() -> Iterator[S3Server]:
    with sloppy_s3() as server:
        yield server


@pytest.fixture(scope="session")
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> StoreRig:
    return FilesystemRig(tmp_path_factory.mktemp("filesystem"))


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> StoreRig:
    return WrappedRig(tmp_path_factory.mktemp("wrapped"))


@pytest.fixture(scope="session")
def nfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreRig]:
    from .nfs_rig import NfsRig  # which imports what this file does

    home = tmp_path_factory.mktemp("nfs")

    def mounted(descriptor: int) -> Mount | None:
        """The bridge stands for the kernel's client, whose locks reach all hosts. No other mount of the tests does."""
        found = mount_of(descriptor)
        if found is None or not Path(found.point).is_relative_to(home):
            return found
        return replace(found, fstype=found.fstype.replace("fuse.nfs", "nfs4"))

    with patch.object(roots, "mount_of", mounted), NfsRig.started(home) as rig:
        yield rig


@pytest.fixture(scope="session")
def s3(s3_server: S3Server, s3_proxy: FaultProxy) -> S3Rig:
    return S3Rig(s3_server, s3_proxy)


@pytest.fixture(scope="session")
def sloppy_s3_rig(sloppy_s3_server: S3Server) -> Iterator[StoreRig]:
    with fault_proxy(sloppy_s3_server.port) as proxy:
        yield SloppyS3Rig(sloppy_s3_server, proxy)


@pytest.fixture(scope="session")
def nginx_dav() -> Iterator[NginxDavRig]:
    with nginx_server() as server, fault_proxy(server.port) as proxy:
        yield NginxDavRig(server, proxy)


@pytest.fixture(scope="session")
def rclone_dav() -> Iterator[RcloneDavRig]:
    with rclone_server() as server, fault_proxy(server.port) as proxy:
        yield RcloneDavRig(server, proxy)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzuriteServer]:
    with azurite() as server:
        yield server


@pytest.fixture(scope="session")
def azure_proxy(azure_server: AzuriteServer) -> Iterator[FaultProxy]:
    with fault_proxy(azure_server.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def azure(azure_server: AzuriteServer, azure_proxy: FaultProxy) -> AzureRig:
    return AzureRig(azure_server, azure_proxy)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    with fake_gcs_server() as server:
        yield server


@pytest.fixture(scope="session")
def gcs(gcs_server: GcsServer) -> Iterator[GcsRig]:
    with fault_proxy(gcs_server.port) as proxy:
        yield GcsRig(gcs_server, proxy)


@pytest.fixture(scope="session")
def gcs_emulator() -> Iterator[GcsRig]:
    with gcp_storage_emulator() as server, fault_proxy(server.port) as proxy:
        yield GcsEmulatorRig(server, proxy)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> StoreRig:
    """The rig a test is parametrised with, by name."""
    fixture = {"sloppy_s3": "sloppy_s3_rig"}.get(request.param, request.param)
    found = request.getfixturevalue(fixture)
    assert isinstance(found, StoreRig)
    return found


@pytest.fixture(scope="session")
def exported_chains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Chain]]:
    """A full export and four increments; the same with another child of the third of them."""
    folder = tmp_path_factory.mktemp("chains")
    root, other_root, guest, chain = folder / "store", folder / "other", Guest(), Chain()
    for turn in range(5):
        chain.add(export(StoreSpec(root.as_uri()), guest, folder / "state")["export"]["id"], guest.now)
        if turn == 2:
            shutil.copytree(root, other_root)
            cousin = Guest("cousin")
            cousin.disks = {name: bytearray(data) for name, data in guest.disks.items()}
            cousin.write_some()
            other = export(StoreSpec(other_root.as_uri()), cousin, folder / "state")["export"]["id"]
        guest.write("disk-0", turn)
        guest.write("disk-0", 20)
        guest.clear("disk-0", 10 + turn)  # hides what the parent has
        guest.write("disk-1", 3 if turn % 2 else 0)
        if turn == 1:
            was = bytes(guest.disks["disk-0"][15 * LEAF : 16 * LEAF])
            guest.write("disk-0", 15)
        if turn == 3:
            guest.disks["disk-0"][15 * LEAF : 16 * LEAF] = was  # as the full export has it
    with_cousin = Chain([*chain.ids, other], {**chain.held, other: cousin.now})
    shutil.copytree(root, folder / "both")
    shutil.copytree(other_root / HOME / other, folder / "both" / HOME / other)
    return {"chain": (root, chain), "both": (folder / "both", with_cousin)}


def _loading(root: Path, chain: Chain) -> Callable[[Store], Chain]:
    def load(store: Store) -> Chain:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                store.put(str(path.relative_to(root)), path.read_bytes())
        return Chain(list(chain.ids), dict(chain.held))

    return load


@pytest.fixture
def chain(exported_chains: dict[str, tuple[Path, Chain]]) -> Callable[[Store], Chain]:
    """Puts it into a store."""
    return _loading(*exported_chains["chain"])


@pytest.fixture
def two_children(exported_chains: dict[str, tuple[Path, Chain]]) -> Callable[[Store], Chain]:
    return _loading(*exported_chains["both"])


@pytest.fixture
def places(tmp_path: Path, s3: S3Rig, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Makes a store of a kind, as a task names it."""
    monkeypatch.setattr("ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.store.connect", one_client)
    return lambda kind: place(kind, tmp_path, s3)
