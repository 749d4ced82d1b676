# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksums of whole images in a manifest, and merges into that export: neither spoils what the other did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.checksums import with_checksums
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.folding import FOLDING
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

from .chains import HOME, Chain, restored
from .test_merge_races import made, merge, once, refused, second, store

__all__ = ["made", "store"]  # fixtures
pytestmark = pytest.mark.parametrize("rig", ["filesystem"], indirect=True)


def key(made: Chain, number: int) -> str:
    return f"{HOME}/{made.ids[number]}/{MANIFEST}"


def checksums(store: Store, key: str) -> list[str]:
    return [disk.get("checksum", "") for disk in json.loads(store.get(key))["disks"]]


def fill(store: Store, key: str) -> None:
    """As a verification does that had looked for marks before there were any."""
    info, found = store.stat(key), store.get(key)
    assert info is not None
    filled = with_checksums(found, {disk["id"]: "a" * 64 for disk in json.loads(found)["disks"]})
    assert filled is not None
    store.put(key, filled, if_match=info.etag)


def verify(store: Store, made: Chain, number: int, state: Path) -> None:
    transfer = TransferOptions(state_dir=str(state))
    verify_export(VerifyRequest(StoreSpec(store.url), "stored", made.ids[number], transfer=transfer), False)


def test_a_merge_drops_the_checksums_of_the_images_it_replaces(store: Store, made: Chain, tmp_path: Path) -> None:
    verify(store, made, 3, tmp_path)
    before = checksums(store, key(made, 3))
    assert all(before)
    merge(store)
    assert checksums(store, key(made, 3)) == ["", ""]
    verify(store, made, 3, tmp_path)
    after = checksums(store, key(made, 3))
    assert all(after)
    assert set(after).isdisjoint(before)
    assert restored(store, made.ids[4]) == made.held[made.ids[4]]


def test_checksums_that_are_filled_in_just_before_the_manifest_is_swapped_do_not_fail_a_merge(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = key(made, 3)
    called = once(monkeypatch, store, "put", target, lambda: fill(second(store), target))
    assert merge(store)["merged"]
    assert called
    assert checksums(store, target) == ["", ""]
    assert store.stat(f"{HOME}/{made.ids[3]}/{FOLDING}") is None
    assert restored(store, made.ids[3]) == made.held[made.ids[3]]


def test_a_manifest_that_says_something_else_by_then_is_not_swapped(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = key(made, 3)

    def change() -> None:
        document = json.loads(store.get(target))
        document["x_vmferry"]["purpose"] = "audit"
        second(store).put(target, json.dumps(document).encode())

    once(monkeypatch, store, "put", target, change)
    refused(lambda: merge(store), "conflict")
    assert json.loads(store.get(target))["x_vmferry"]["purpose"] == "audit"


def test_a_verification_beside_a_merge_leaves_the_manifest_to_it(
    store: Store, made: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = key(made, 3)
    seen: list[list[str]] = []

    def look() -> None:
        refused(lambda: verify(second(store), made, 3, tmp_path), "conflict")
        seen.append(checksums(second(store), target))

    once(monkeypatch, store, "put", target, look)
    merge(store)
    assert seen == [["", ""]]
    assert restored(store, made.ids[3]) == made.held[made.ids[3]]
