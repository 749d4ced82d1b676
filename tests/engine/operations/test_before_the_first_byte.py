# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an export is needed at all, and whether what another job left may be removed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import CatalogEntry
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import (
    DiskRecord,
    Machine,
    Manifest,
    StoredFile,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations import export_vm as export_vm_module
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt_life import is_dead
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.export_plan import (
    chosen_disks,
    insist_on_disks,
    satisfying_export,
    too_large,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ExportRequest,
    ProviderSpec,
    SnapshotOptions,
    StoreSpec,
    TransferOptions,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import DiskSpec, VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import insist_on_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner

NAMES = ("vda", "vdb")
DISKS = tuple(DiskSpec(f"disk-{n}", name, 1 << 20, "qcow2", "virtio", f"/{name}") for n, name in enumerate(NAMES))
VM = VmSpec("libvirt", "uuid", "web01", "web01", "powered_on", 1, 512, "bios", DISKS)
REQUEST = ExportRequest(ProviderSpec("libvirt"), StoreSpec("file:///x"), "web01")


def nothing_known(_entry: CatalogEntry) -> str:
    return ""


def made(age: float, *names: str, name: str = "") -> CatalogEntry:
    empty = StoredFile("d", 0, "")
    disks = tuple(DiskRecord(one, one, 0, False, one, "qcow2", 0, 0, 0, "", empty, (), "") for one in names)
    machine = Machine("libvirt", "uuid", "web01", 1, 512, "bios")
    taken = time.time() - age
    return CatalogEntry(
        "f", Manifest("id", "chain", "job", machine, taken, taken, "crash_consistent", "qcow2", disks, (), name=name)
    )


def test_a_young_export_of_all_disks_is_enough() -> None:
    entry = made(60, "vda", "vdb")
    assert satisfying_export(replace(REQUEST, max_age=3600), VM, DISKS, [entry], nothing_known) is entry


def test_a_young_export_that_is_known_to_be_damaged_is_not_enough() -> None:
    young, by_name = made(60, "vda", "vdb"), made(60, "vda", "vdb", name="before")
    assert satisfying_export(replace(REQUEST, max_age=3600), VM, DISKS, [young], lambda entry: "it is cut off") is None
    asked = replace(REQUEST, name="before")
    assert satisfying_export(asked, VM, DISKS, [by_name], lambda entry: "it is cut off") is by_name


@pytest.mark.parametrize("entry", [made(7200, "vda", "vdb"), made(60, "vda")])
def test_an_old_export_or_one_of_fewer_disks_is_not_enough(entry: CatalogEntry) -> None:
    assert satisfying_export(replace(REQUEST, max_age=3600), VM, DISKS, [entry], nothing_known) is None


def test_a_name_that_means_something_else_already_is_a_conflict() -> None:
    with pytest.raises(VmferryError) as refused:
        satisfying_export(replace(REQUEST, name="before"), VM, DISKS, [made(60, "vda", name="before")], nothing_known)
    assert refused.value.kind == "conflict"


def test_a_name_of_an_export_of_a_snapshot_is_not_one_of_the_vm_as_it_is_now() -> None:
    own = made(60, "vda", "vdb", name="monthly")
    of_old = CatalogEntry("f", replace(own.manifest, snapshot="before-upgrade"))
    asked = replace(REQUEST, name="monthly")
    assert satisfying_export(asked, VM, DISKS, [own], nothing_known) is own
    with pytest.raises(VmferryError, match="exists with the snapshot before-upgrade"):
        satisfying_export(asked, VM, DISKS, [of_old], nothing_known)
    of_snapshot = replace(asked, snapshot=SnapshotOptions(source="before-upgrade"))
    assert satisfying_export(of_snapshot, VM, DISKS, [of_old], nothing_known) is of_old
    with pytest.raises(VmferryError, match="exists with no snapshot"):
        satisfying_export(of_snapshot, VM, DISKS, [own], nothing_known)


def test_disks_are_named_by_our_id_by_the_providers_name_or_by_what_they_are_of() -> None:
    assert chosen_disks(VM, ("vdb", "disk-0")) == DISKS
    assert chosen_disks(VM, ("/vdb",)) == DISKS[1:]
    insist_on_disks(VM, ("/vda", "/vdb"))
    with pytest.raises(VmferryError, match="no disk vdc"):
        insist_on_disks(VM, ("vda", "vdc"))
    with pytest.raises(VmferryError, match="no disk to export"):
        insist_on_disks(replace(VM, disks=()), None)


def intent(owner: Mapping[str, Any], lease: float) -> Intent:
    return Intent("20261121T063000Z-aaaaaaaa", "job", "uuid", "web01", 0.0, time.time() + lease, owner)


def test_a_job_of_another_host_of_our_name_lives_as_long_as_its_lease() -> None:
    twin = {**current_owner(), "boot_id": "of another host"}
    assert not is_dead(intent(twin, lease=60))
    assert is_dead(intent(twin, lease=-1))


def test_a_job_of_this_host_is_dead_when_its_process_is_whatever_its_lease_says() -> None:
    gone = {**current_owner(), "pid": 2**22 + 1}
    assert is_dead(intent(gone, lease=60))
    assert not is_dead(intent(current_owner(), lease=-1))


def test_an_export_from_the_future_is_not_young() -> None:
    entry = made(-7200, "vda", "vdb")
    assert satisfying_export(replace(REQUEST, max_age=3600), VM, DISKS, [entry], nothing_known) is None
    older = made(60, "vda", "vdb")
    assert satisfying_export(replace(REQUEST, max_age=3600), VM, DISKS, [older, entry], nothing_known) is older


@pytest.mark.parametrize("asked", [{"consistency": "quiesced"}, {"format": "raw"}])
def test_an_export_that_is_less_than_what_is_asked_for_is_not_enough(asked: Mapping[str, Any]) -> None:
    entry = made(60, "vda", "vdb")
    assert satisfying_export(replace(REQUEST, max_age=3600, **asked), VM, DISKS, [entry], nothing_known) is None


def test_a_disk_that_no_format_can_describe_is_refused_before_the_first_byte() -> None:
    largest = replace(DISKS[0], size=64 << 40)
    assert too_large([largest], "qcow2") == []
    (finding,) = too_large([largest, replace(DISKS[1], size=(64 << 40) + 512)], "qcow2")
    assert (finding.severity, finding.kind) == ("error", "unsupported")
    assert "disk-1" in finding.message


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("of_copies", [True, False])
def test_page_blobs_which_hold_no_exports_are_refused_before_the_vm_is_looked_at(
    check_mode: bool, of_copies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_what: Any) -> Any:
        pytest.fail("it looked")

    monkeypatch.setattr(export_vm_module, "open_provider", never)
    url = "https://account.blob.core.windows.net/exports"
    pages, blocks = (StoreSpec(url, {"blob_type": kind}) for kind in ("page", "block"))
    request = replace(
        REQUEST,
        store=blocks if of_copies else pages,
        copies_to=(blocks, pages) if of_copies else (),
        transfer=TransferOptions(state_dir=str(tmp_path)),
    )
    with pytest.raises(VmferryError, match="blob_type is page") as refused:
        export_vm_module.export_vm(request, check_mode)
    assert refused.value.kind == "invalid_config"
    assert "Leave blob_type out" in refused.value.hint


def test_only_azure_is_asked_what_it_makes_of_an_export() -> None:
    insist_on_exports("s3://exports", {"blob_type": "page"})
    insist_on_exports("azblob://exports", {"blob_type": "auto"})
