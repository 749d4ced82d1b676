# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running VM goes to Azure and back: killed and gone on with, proved, read by standard tools, imported."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from rigs.azurite import AzuriteServer, azurite
from rigs.domain import Guest
from rigs.libvirt import LibvirtRig

from .conftest import DATA
from .exports import Bench, compare
from .test_resume import kill, stored

CONTAINER = "exports"


@pytest.fixture(scope="module")
def server(marked: None) -> Iterator[AzuriteServer]:
    with azurite() as started:
        started.client().create_container(CONTAINER)
        yield started


@pytest.fixture
def azure_bench(rig: LibvirtRig, folder: Path, server: AzuriteServer, machines_as_they_were: None) -> Bench:
    """A prefix of its own in a container, entered with a SAS for that container alone."""
    prefix, client = secrets.token_hex(4), server.client().get_container_client(CONTAINER)

    def names(**options: Any) -> list[str]:
        return [one.name.removeprefix(f"{prefix}/") for one in client.list_blobs(f"{prefix}/", **options)]

    def unfinished() -> list[str]:
        return sorted(set(names(include=["uncommittedblobs"])) - set(names()))

    def read(key: str) -> bytes:
        found: bytes = client.download_blob(f"{prefix}/{key}").readall()
        return found

    settings = {"endpoint_url": server.endpoint_url, "sas_token": server.sas(CONTAINER, "rcwdl")}
    return Bench(rig, folder, StoreSpec(f"azblob://{CONTAINER}/{prefix}", settings), names, read, unfinished)


def test_a_killed_export_goes_on_is_proved_and_comes_back(
    azure_bench: Bench, small: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, source = azure_bench, azure_bench.rig.directory / "small.qcow2"
    kill(bench, monkeypatch, "data-sent", vm="small")
    assert [key.rpartition("/")[2] for key in bench.uploads()] == ["disk-0.qcow2"]
    result = bench.export("small")
    assert result["resumed"]["reason"] == ""
    assert result["resumed"]["bytes_kept"] >= DATA
    compare(stored(bench, result, tmp_path), "qcow2", source, "qcow2")
    bench.assert_nothing_left("small")
    checked = bench.verify(export=result["export"]["id"], level="content")
    assert (checked["changed"], checked["problems"]) == (True, [])
    bench.import_("from-azure", export=result["export"]["id"])
    try:
        (restored,) = bench.images.glob("from-azure*.qcow2")
        compare(restored, "qcow2", source, "qcow2")
    finally:
        bench.rig.connect().lookupByName("from-azure").undefine()
