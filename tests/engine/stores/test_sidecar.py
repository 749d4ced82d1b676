# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata beside a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores import sidecar
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

METADATA = {"vm": "Büro/主机 100%", "ticket": "CHG-1"}


def test_metadata_lies_beside_the_file_and_is_read_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {})
    info = store.put("images/disk.qcow2", b"image")
    sidecar.write_sidecar(store, "images/disk.qcow2", METADATA, info.etag)
    beside = json.loads((tmp_path / "images/disk.qcow2.meta.json").read_text())
    assert beside == {"version": 1, "etag": info.etag, "metadata": METADATA}
    assert sidecar.read_sidecar(store, "images/disk.qcow2") == METADATA
    assert sidecar.read_sidecar(store, "images/disk.qcow2", info.etag) == METADATA
    assert sidecar.is_sidecar("images/disk.qcow2.meta.json")
    assert not sidecar.is_sidecar("images/disk.qcow2")


def test_a_file_without_metadata_has_none(tmp_path: Path) -> None:
    assert sidecar.read_sidecar(open_store(str(tmp_path), {}), "disk.qcow2") == {}


def test_the_metadata_of_a_file_that_was_replaced_is_not_that_of_the_new_one(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {})
    sidecar.write_sidecar(store, "a", METADATA, store.put("a", b"old").etag)
    assert sidecar.read_sidecar(store, "a", store.put("a", b"newer").etag) == {}


def test_deleting_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), {})
    sidecar.write_sidecar(store, "a", METADATA, "e")
    sidecar.delete_sidecar(store, "a")
    sidecar.delete_sidecar(store, "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff", b"[]", b'{"version": 2, "etag": "e", "metadata": {}}', b'{"version": 1, "metadata": {}}'),
        *(b'{"version": 1, "etag": "e", "metadata": {"a": 1}}', b'{"version": 1, "etag": "e", "metadata": []}'),
        *(b"[" * 60_000, b'{"version": 1, "etag": "e", "metadata": {"a": "' + b"x" * sidecar.LIMIT + b'"}}'),
    ],
)
def test_what_somebody_else_put_there_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.meta.json").write_bytes(data)
    with pytest.raises(VmferryError, match="does not hold metadata") as raised:
        sidecar.read_sidecar(open_store(str(tmp_path), {}), "a")
    assert raised.value.kind == "invalid_config"


def test_metadata_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(VmferryError) as raised:
        sidecar.write_sidecar(open_store(str(tmp_path), {}), "a", {"a": "x" * sidecar.LIMIT}, "e")
    assert raised.value.kind == "invalid_config"
    assert list(tmp_path.iterdir()) == []
