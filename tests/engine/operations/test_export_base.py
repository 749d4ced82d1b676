# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an export stands on: never a broken chain; and one that cannot be read just now is not broken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine.exports.samples import UUID, disk
from engine.exports.shelves import commit, folder_of

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.verifications import VERIFIED, Verifications
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.export_base import choose_base
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.resumable import _base
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.keeping import NotResumable
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    StoreSpec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_filesystem(str(tmp_path / "store"), {})


@pytest.fixture
def refuse(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Kind], None]:
    """From now on the store answers so when it is asked for the manifest of this export."""

    def refuse(export: str, kind: Kind) -> None:
        get = store.get

        def refusing(key: str, *words: int) -> bytes:
            if key == f"{folder_of(export)}/{MANIFEST}":
                raise VmferryError(kind, "The store does not answer.")
            return get(key, *words)

        monkeypatch.setattr(store, "get", refusing)

    return refuse


def asked(store: Store) -> tuple[ExportRequest, list[DiskSpec]]:
    """The next export of what `commit` has made."""
    made = disk()
    request = ExportRequest(vm="web01", provider=ProviderSpec("libvirt"), store=StoreSpec(store.url))
    return request, [DiskSpec(made.id, made.name, made.size, "qcow2", "virtio", "/vda")]


@pytest.mark.parametrize("kind", ["timeout", "network", "rate_limited", "permission_denied", "unauthenticated"])
def test_a_store_that_does_not_answer_makes_no_export_a_full_one(
    store: Store, refuse: Callable[[str, Kind], None], kind: Kind
) -> None:
    """Terabytes would be sent for a moment's silence."""
    full = commit(store, 2, number=1)
    newest = commit(store, 1, number=2, parent=full)
    existing = Catalog(store).of_vm(UUID)
    refuse(full, kind)
    request, disks = asked(store)
    for choosing in (
        lambda: choose_base(request, disks, existing, store, time.time()),
        lambda: _base(store, existing, newest),
    ):
        with pytest.raises(VmferryError) as caught:
            choosing()
        assert caught.value.kind == kind


def test_a_chain_that_is_broken_makes_it_a_full_one(store: Store) -> None:
    full = commit(store, 2, number=1)
    newest = commit(store, 1, number=2, parent=full)
    existing = Catalog(store).of_vm(UUID)
    store.delete(f"{folder_of(full)}/{MANIFEST}")
    request, disks = asked(store)
    choice = choose_base(request, disks, existing, store, time.time())
    assert (choice.base, choice.fell_back) == (None, True)
    assert "the chain is broken" in choice.reason
    with pytest.raises(NotResumable, match="the chain is broken"):
        _base(store, existing, newest)


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_is_made_to_stand_on_what_a_verification_found_damaged(store: Store, number: int) -> None:
    """Else every night would add one more increment that nobody can restore."""
    made = [commit(store, 2, number=1)]
    made.append(commit(store, 1, number=2, parent=made[0]))
    key = f"{folder_of(made[number])}/{VERIFIED}"
    failed = Verifications().with_failure("content", time.time(), "a" * 32, 1)
    store.put(key, failed.to_json())
    existing = Catalog(store).of_vm(UUID)
    request, disks = asked(store)
    choice = choose_base(request, disks, existing, store, time.time())
    assert (choice.base, choice.fell_back) == (None, True)
    assert f"{made[number]} is known to be damaged" in choice.reason
    with pytest.raises(VmferryError, match="known to be damaged") as caught:
        choose_base(replace(request, mode="incremental"), disks, existing, store, time.time())
    assert caught.value.kind == "conflict"
    with pytest.raises(NotResumable, match="known to be damaged"):
        _base(store, existing, made[1])
    for level, stands in (("stored", True), ("content", False)):  # a look at less puts nothing right
        store.put(key, failed.with_pass(level, time.time(), "b" * 32, {}).to_json())
        reason = choose_base(request, disks, existing, store, time.time()).reason
        assert ("known to be damaged" in reason) == stands


def test_a_guest_that_did_not_boot_makes_no_export_a_full_one(store: Store) -> None:
    full = commit(store, 2, number=1)
    key, now = f"{folder_of(full)}/{VERIFIED}", time.time()
    request, disks = asked(store)
    for failed, damaged in (
        (Verifications().with_failure("boot", now, "a" * 32, 1, damaged=False), False),
        (Verifications().with_failure("boot", now, "a" * 32, 1), True),
        (Verifications().with_failure("boot", now, "a" * 32, 1).with_pass("content", now, "b" * 32, {}), False),
    ):
        store.put(key, failed.to_json())
        choice = choose_base(request, disks, Catalog(store).of_vm(UUID), store, now)
        assert ("known to be damaged" in choice.reason) == damaged
