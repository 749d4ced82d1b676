# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers behind the contracts, started once a session and only when a test asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rigs.fault_proxy import FaultProxy, fault_proxy
from rigs.s3_server import S3Server
from rigs.seaweedfs import seaweedfs
from rigs.sloppy_s3 import sloppy_s3

from .store_rigs import FilesystemRig, S3Rig, SloppyS3Rig, StoreRig, WrappedRig


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
def s3(s3_server: S3Server, s3_proxy: FaultProxy) -> S3Rig:
    return S3Rig(s3_server, s3_proxy)


@pytest.fixture(scope="session")
def sloppy_s3_rig(sloppy_s3_server: S3Server) -> Iterator[StoreRig]:
    with fault_proxy(sloppy_s3_server.port) as proxy:
        yield SloppyS3Rig(sloppy_s3_server, proxy)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> StoreRig:
    """The rig a test is parametrised with, by name."""
    fixture = {"sloppy_s3": "sloppy_s3_rig"}.get(request.param, request.param)
    found = request.getfixturevalue(fixture)
    assert isinstance(found, StoreRig)
    return found
