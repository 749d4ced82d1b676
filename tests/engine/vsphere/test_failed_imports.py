# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports into vSphere that come to nothing: nothing of them stays, and what is somebody else's does."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from threading import Timer
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers import import_mark
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.import_mark import ImportMark
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import (
    import_leftovers,
    import_session,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.disk_servers import DiskServers
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.provider import VsphereProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.upload import DiskUpload
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_check import DigestCheck
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow, Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.owner import current_owner
from rigs.vsphere import VSphere

from .importing import DATA, EXPORT, MIB, SMALL, SYSTEM, Import, a_vm, config_of, killed_on_vsphere

pytestmark = pytest.mark.slow


@pytest.fixture
def importing(vcenter: VSphere, provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch) -> Import:
    monkeypatch.setattr(import_leftovers, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(import_session, "SETTLE_AGAIN", 0.01)
    monkeypatch.setattr(import_session, "SETTLE_PATIENCE", 1.0)
    return Import(provider, vcenter)


def left(vcenter: VSphere) -> tuple[Any, ...]:
    found = vcenter.leftovers()
    return found.machines, found.files, found.leases, found.running_tasks


def failed(vcenter: VSphere, importing: Import, **asked: Any) -> VmferryError:
    """However it fails, what is there afterwards is what was there before."""
    before = left(vcenter)
    with pytest.raises(VmferryError) as caught:
        importing.run(a_vm(SYSTEM, DATA), [SYSTEM, DATA], name="lost", **asked)
    assert left(vcenter) == before
    return caught.value


@pytest.mark.parametrize(
    ("on", "fault", "kind", "words"),
    [
        ("CreateImportSpec", {"action": "fault", "fault": "InvalidArgument"}, "invalid_config", "Planning lost"),
        ("ImportVApp", {"action": "fault", "fault": "NoPermission"}, "permission_denied", "Making lost"),
        ("ImportVApp", {"action": "fault", "fault": "DuplicateName"}, "conflict", "Making lost"),
        ("POST /nfc/", {"action": "status", "status": 507}, "no_space", "507"),
        ("POST /nfc/", {"action": "truncate", "bytes": 70_000}, "network", "disk-"),
        ("POST /nfc/", {"action": "drop"}, "network", "disk-"),
        ("HttpNfcLeaseComplete", {"action": "fault", "fault": "InvalidState"}, "conflict", "Making lost"),
        ("HttpNfcLeaseComplete", {"action": "drop", "times": -1}, "network", "Making lost"),
        ("ReconfigVM_Task", {"action": "task", "fault": "InvalidState"}, "conflict", "Settling lost"),
        ("ReconfigVM_Task", {"action": "drop", "times": -1}, "network", "Settling lost"),
    ],
)
def test_whatever_fails_leaves_no_vm(
    vcenter: VSphere, importing: Import, on: str, fault: dict[str, Any], kind: str, words: str
) -> None:
    vcenter.fault(on, **fault)
    error = failed(vcenter, importing)
    assert (error.kind, words in error.message) == (kind, True), error.message


@pytest.mark.parametrize(
    ("on", "how", "missing"),
    [
        ("CreateImportSpec", "fault", "VirtualMachine.Inventory.Create"),
        ("ImportVApp", "fault", "VApp.Import"),
        ("ReconfigVM_Task", "fault", "VirtualMachine.Config.Settings"),
        ("ReconfigVM_Task", "task", "VirtualMachine.Config.Annotation"),
        ("PowerOnVM_Task", "task", "VirtualMachine.Interact.PowerOn"),
    ],
)
def test_privilege_that_is_missing_for_an_import_is_named(
    vcenter: VSphere, importing: Import, provider: VsphereProvider, on: str, how: str, missing: str
) -> None:
    vcenter.fault(on, how, fault="NoPermission", missing=missing)
    with pytest.raises(VmferryError) as caught:
        importing.run(a_vm(SMALL), [SMALL], name="denied", power_on=True)
    error = caught.value
    assert (error.kind, f"the privilege {missing} is missing" in error.message) == ("permission_denied", True), error
    if on == "PowerOnVM_Task":  # it is whole, and stays
        provider.remove(provider.describe("denied"), disks=True)
    assert "denied" not in vcenter.leftovers().machines


def test_vm_that_vsphere_made_without_telling_is_found_by_its_notes(vcenter: VSphere, importing: Import) -> None:
    """Its lease, which nobody knows, ends by itself."""
    before = vcenter.leftovers()
    vcenter.fault("ImportVApp", "lose_answer")
    with pytest.raises(VmferryError, match="Making unheard failed") as caught:
        importing.run(a_vm(SMALL), [SMALL], name="unheard")
    after = vcenter.leftovers()
    assert (caught.value.kind, after.machines, after.files) == ("network", before.machines, before.files)
    vcenter.restart()  # which ends all leases, as time would


@pytest.mark.parametrize("how", ["drop", "lose_answer"])
def test_import_is_whole_where_only_the_line_broke_at_its_end(vcenter: VSphere, importing: Import, how: str) -> None:
    """Whether the lease is done is asked, and not taken for a failure."""
    vcenter.fault("HttpNfcLeaseComplete", how)
    importing.run(a_vm(SMALL), [SMALL], name=f"done-{how}")
    assert vcenter.disk_bytes(f"done-{how}") == SMALL


@pytest.mark.parametrize("how", ["drop", "lose_answer"])
def test_import_is_whole_where_the_line_broke_over_what_is_changed_of_it_last(
    vcenter: VSphere, importing: Import, provider: VsphereProvider, how: str
) -> None:
    vcenter.fault("ReconfigVM_Task", how, times=2)
    vcenter.fault("ReconfigVM_Task", "task", fault="ConcurrentAccess")  # with what was asked for first
    name = f"settled-{how}"
    made = importing.run(a_vm(SMALL), [SMALL], name=name)
    assert (made.name, made.details["imported_from"]["export"]) == (name, EXPORT)
    assert vcenter.disk_bytes(name) == SMALL
    provider.remove(made, disks=True)


def test_server_that_wants_to_know_the_length_is_told_of(vcenter: VSphere, importing: Import) -> None:
    vcenter.settings(upload_needs_length=True)
    try:
        error = failed(vcenter, importing)
    finally:
        vcenter.settings(upload_needs_length=False)
    assert (error.kind, "no stream of unknown length" in error.message) == ("unsupported", True), error.message


def test_lease_that_ends_in_the_middle_is_what_is_told(vcenter: VSphere, importing: Import) -> None:
    def end() -> None:
        vcenter.settings(lease_timeout=0.01)

    try:
        error = failed(vcenter, importing, before=end)
    finally:
        vcenter.settings(lease_timeout=300)
    assert error.kind in ("timeout", "network")


def test_data_that_is_not_what_was_exported_becomes_no_vm(vcenter: VSphere, importing: Import) -> None:
    before = left(vcenter)
    empty = DigestCheck(len(SYSTEM), iter([(0, {})]), "00" * 32, "disk-0")
    with pytest.raises(VmferryError) as caught:
        importing.run(a_vm(SYSTEM), [SYSTEM], name="wrong", check=empty)
    assert (caught.value.kind, left(vcenter)) == ("checksum_mismatch", before)


def test_job_that_is_stopped_stops_its_import(vcenter: VSphere, settings: dict[str, Any]) -> None:
    flow = Flow()
    provider = VsphereProvider(settings, flow)
    before = left(vcenter)
    try:
        cancelled = VmferryError("cancelled", "The job was cancelled.")
        with pytest.raises(VmferryError) as caught:
            Import(provider).run(
                a_vm(SYSTEM, DATA), [SYSTEM, DATA], name="stopped", before=lambda: flow.stop(cancelled)
            )
        assert caught.value is cancelled
        assert left(vcenter) == before
    finally:
        provider.close()


def test_job_that_is_stopped_waits_for_no_server_that_is_silent_over_a_file(
    vcenter: VSphere, settings: dict[str, Any]
) -> None:
    """Disks are over by then: it is the firmware's variables that are sent."""
    flow = Flow()
    provider = VsphereProvider(settings, flow)
    before = left(vcenter)
    vcenter.fault("PUT /nfc/", "delay", seconds=9)
    stop = Timer(1.0, lambda: flow.stop(VmferryError("cancelled", "The job was cancelled.")))
    stop.start()
    vm = a_vm(SMALL, provider="vsphere", firmware="uefi")
    began = time.monotonic()
    try:
        with pytest.raises(Stopped):
            Import(provider).run(vm, [SMALL], native={"web01.nvram": b"variables"}, name="silent")
        assert time.monotonic() - began < 6
        assert left(vcenter) == before
    finally:
        stop.cancel()
        provider.close()


def test_disk_that_is_interrupted_is_never_sent_in_the_clear(
    vcenter: VSphere, settings: dict[str, Any], provider: VsphereProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may be sending just then."""
    servers = DiskServers(VsphereSettings.from_options(settings), provider._session)
    connection, path = servers.connect(f"{vcenter.url}/nfc/nothing/disk-0.vmdk")
    upload = DiskUpload(connection, path, "disk-0", Flow(), MIB)
    clear: list[bytes] = []

    def send_meanwhile(_socket: socket.socket, _how: int) -> None:
        with suppress(VmferryError):
            upload.write_part(Part(1, 0, len(SMALL)), memoryview(SMALL))

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "sendall", lambda _socket, data, *_flags: clear.append(bytes(data)))
        patched.setattr(socket.socket, "shutdown", send_meanwhile)
        upload.interrupt()
    upload.abort()
    assert clear == []


def test_vm_that_does_not_start_is_there_and_whole(
    vcenter: VSphere, provider: VsphereProvider, importing: Import
) -> None:
    vcenter.fault("PowerOnVM_Task", "task", fault="InsufficientResourcesFault")
    with pytest.raises(VmferryError, match="Starting off failed") as caught:
        importing.run(a_vm(SMALL), [SMALL], name="off", power_on=True)
    assert "The import itself is complete" in caught.value.hint
    found = provider.imported("off")
    assert found is not None
    assert (found[0].power_state, found[1]) == ("powered_off", EXPORT)


# --- jobs that die ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failpoint", ["import_made", "import_sent", "import_completed"])
def test_half_vm_of_a_job_that_died_is_removed_by_the_next_run(
    vcenter: VSphere, provider: VsphereProvider, settings: dict[str, Any], failpoint: str
) -> None:
    name, before = f"killed-{failpoint}", vcenter.leftovers()
    killed_on_vsphere(failpoint, settings, name)
    assert name in vcenter.leftovers().machines
    assert provider.imported(name) is None
    assert not [one for one in provider.check_import(a_vm(SMALL), placed(name), EXPORT) if one.severity == "error"]
    ((vm, sentence),) = provider.clean_up_imports()
    assert (vm, sentence.startswith(f"Removed {name}, which a dead import job 0000")) == (name, True)
    after = vcenter.leftovers()
    assert (after.machines, after.files) == (before.machines, before.files)
    assert list(provider.clean_up_imports()) == []


def test_vm_of_a_job_that_died_in_the_middle_of_a_disk_goes_with_its_stream(
    vcenter: VSphere, provider: VsphereProvider, settings: dict[str, Any]
) -> None:
    before = vcenter.leftovers()
    killed_on_vsphere("window-delivered", settings, "cut off")
    provider.clean_up_imports()
    after = vcenter.leftovers()
    assert (after.machines, after.files) == (before.machines, before.files)


def test_vm_of_a_job_that_died_once_it_was_whole_stays(
    vcenter: VSphere, provider: VsphereProvider, settings: dict[str, Any]
) -> None:
    killed_on_vsphere("import_settled", settings, "whole before it died")
    assert list(provider.clean_up_imports()) == []
    found = provider.imported("whole before it died")
    assert found is not None
    assert found[1] == EXPORT


def placed(name: str, **asked: Any) -> Placement:
    return Placement(**{"name": name, "host": "DC0_H0", "storage": "LocalDS_0", **asked})


def half_made(vcenter: VSphere, name: str, job: str = "1" * 32, **owner: Any) -> str:
    mark = ImportMark("unfinished", EXPORT, job, "0badcafe", name, {**current_owner(), **owner})
    return vcenter.make_vm(name, [SMALL], annotation=mark.text("unfinished"))


ELSEWHERE = {"hostname": "another-host"}
DEAD = {"pid_started": 1}


def test_vm_of_a_living_job_is_let_alone(vcenter: VSphere, provider: VsphereProvider) -> None:
    half_made(vcenter, "alive")
    assert list(provider.clean_up_imports()) == []
    (found,) = [one for one in provider.check_import(a_vm(SMALL), placed("alive"), EXPORT) if one.severity == "error"]
    assert (found.kind, "is being made by import job 1111" in found.message) == ("busy", True)
    vm = provider.describe("alive")
    for act in (lambda: provider.undo("1" * 32), lambda: provider.remove(vm, disks=True)):
        with pytest.raises(VmferryError) as caught:
            act()
        assert caught.value.kind == "busy"
    assert "alive" in vcenter.leftovers().machines


def test_vm_of_a_job_elsewhere_is_removed_only_by_who_says_that_it_is_dead(
    vcenter: VSphere, provider: VsphereProvider
) -> None:
    half_made(vcenter, "elsewhere", "2" * 32, **ELSEWHERE)
    assert list(provider.clean_up_imports()) == []
    (found,) = [
        one for one in provider.check_import(a_vm(SMALL), placed("elsewhere"), EXPORT) if one.severity == "error"
    ]
    assert (found.kind, "removes the VM some minutes later by itself" in found.hint) == ("busy", True)
    assert list(provider.undo("3" * 32)) == []
    (sentence,) = provider.undo("2" * 32)
    assert sentence.startswith("Removed elsewhere, which")
    assert "elsewhere" not in vcenter.leftovers().machines


@pytest.mark.parametrize("how", ["started", "renamed", "copied", "noted by hand"])
def test_vm_that_is_in_somebodys_hands_is_never_removed(vcenter: VSphere, provider: VsphereProvider, how: str) -> None:
    name = f"mine-{how.replace(' ', '-')}"
    mark = ImportMark("unfinished", EXPORT, "4" * 32, "0badcafe", name, {**current_owner(), **DEAD})
    notes = {
        "started": mark.text("unfinished"),
        "renamed": mark.text("unfinished").replace(name, "other"),
        "copied": mark.text("whole"),
        "noted by hand": "unfinished, made by vmferry.migrate",
    }[how]
    vcenter.make_vm(name, [SMALL], annotation=notes, running=how == "started")
    assert list(provider.clean_up_imports()) == []
    assert list(provider.undo("4" * 32)) == []
    assert name in vcenter.leftovers().machines
    config = config_of(provider, name)
    assert config.annotation == notes


def test_what_cannot_be_removed_is_told_and_left_for_the_next_run(vcenter: VSphere, provider: VsphereProvider) -> None:
    half_made(vcenter, "stuck", **DEAD)
    vcenter.fault("Destroy_Task", "task", fault="ResourceInUse")
    ((vm, sentence),) = provider.clean_up_imports()
    assert (vm, sentence.startswith("Left stuck, which a dead import job")) == ("stuck", True)
    ((vm, sentence),) = provider.clean_up_imports()
    assert sentence.startswith("Removed stuck")


def test_import_waits_until_vsphere_lets_go_of_what_failed(vcenter: VSphere, importing: Import) -> None:
    vcenter.fault("ReconfigVM_Task", "task", fault="InvalidState")
    vcenter.fault("Destroy_Task", "task", fault="ResourceInUse", times=2)
    failed(vcenter, importing)
    assert len(vcenter.calls("Destroy_Task")) == 3


def test_half_vm_that_stays_is_a_warning(
    vcenter: VSphere, provider: VsphereProvider, importing: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter.fault("ReconfigVM_Task", "task", fault="InvalidState")
    vcenter.fault("Destroy_Task", "task", fault="NoPermission")
    opened: list[Any] = []
    with pytest.raises(VmferryError, match="Settling half failed"):
        importing.run(a_vm(), [], name="half", opened=opened)
    (warning,) = opened[0].warnings
    assert warning.startswith("half is left half made for the next run to remove: Removing half failed")
    monkeypatch.setattr(import_mark, "is_owner_alive", lambda owner: False)
    assert "half" in [vm for vm, _sentence in provider.clean_up_imports()]
