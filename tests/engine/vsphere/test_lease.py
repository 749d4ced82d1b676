# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lease is kept as long as it is held, ends well only where it is completed, and says why where it does not begin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere import lease as rooms
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.lease import Lease
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from rigs.vsphere import VSphere

pytestmark = pytest.mark.slow
PATIENCE = 60.0


@pytest.fixture
def session(vcenter: VSphere, settings: dict[str, Any]) -> Iterator[Session]:
    opened = Session(VsphereSettings.from_options(settings))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def machine(server: VSphere) -> str:
    return server.make_vm("of-a-lease", [bytes(65536), b"data" * 1024], nvram=b"variables")


@pytest.fixture
def lease(session: Session, machine: str) -> Lease:
    vm = session.managed("VirtualMachine", machine)
    return Lease(session, "Exporting of-a-lease", lambda _content: vm.ExportVm())


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def outcomes(vcenter: VSphere, before: dict[str, str]) -> list[str]:
    return [how for name, how in vcenter.leases().items() if name not in before]


def test_lease_tells_its_files_and_is_completed(vcenter: VSphere, lease: Lease, machine: str) -> None:
    before = vcenter.leases()
    with lease:
        disks = [file for file in lease.urls if file.is_disk]
        assert [file.key.rpartition(":")[2] for file in disks] == ["0", "1"]
        assert [file.target_id for file in lease.urls if not file.is_disk] == ["of-a-lease.nvram"]
        assert lease.entity == machine
        lease.complete()
    assert outcomes(vcenter, before) == ["completed"]


def test_lease_is_completed_where_only_its_progress_cannot_be_told(vcenter: VSphere, lease: Lease) -> None:
    before = vcenter.leases()
    with lease:
        vcenter.fault("HttpNfcLeaseProgress", "drop", times=-1)
        lease.complete()
    assert outcomes(vcenter, before) == ["completed"]


def test_lease_that_nobody_wants_any_more_is_not_waited_for(vcenter: VSphere, session: Session, machine: str) -> None:
    vm, before, asked = session.managed("VirtualMachine", machine), vcenter.leases(), [0]

    def going_on() -> None:
        asked[0] += 1
        if asked[0] > 1:
            raise VmferryError("cancelled", "The job was cancelled.")

    vcenter.settings(lease_start=rooms.READY_LIMIT)
    try:
        with pytest.raises(VmferryError, match="was cancelled"):
            Lease(session, "Exporting of-a-lease", lambda _content: vm.ExportVm(), going_on).__enter__()
    finally:
        vcenter.settings(lease_start=0)
    assert outcomes(vcenter, before) == ["aborted"]


def test_lease_that_is_left_otherwise_is_aborted(vcenter: VSphere, lease: Lease) -> None:
    before = vcenter.leases()
    with pytest.raises(KeyError), lease:
        raise KeyError("broken")
    assert outcomes(vcenter, before) == ["aborted"]


def test_lease_is_aborted_over_a_line_that_breaks(vcenter: VSphere, lease: Lease) -> None:
    before = vcenter.leases()
    vcenter.fault("HttpNfcLeaseAbort", "drop")
    with pytest.raises(KeyError), lease:
        raise KeyError("broken")
    assert outcomes(vcenter, before) == ["aborted"]


def test_lease_is_renewed_with_what_is_done(vcenter: VSphere, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "RENEW", 0.05)
    before = vcenter.progress()
    done = [0.0]
    with lease:
        lease.progress(lambda: done[0])

        def told() -> list[int]:
            return [one for name, all in vcenter.progress().items() if name not in before for one in all or ()]

        until(lambda: 0 in told())
        done[0] = 40.7
        until(lambda: 40 in told())
        done[0] = 400
        until(lambda: 99 in told())
        lease.complete()
    assert told()[-1] == 100


def test_lease_of_a_server_that_waits_for_no_long_time_is_renewed_in_time(vcenter: VSphere, lease: Lease) -> None:
    vcenter.settings(lease_timeout=4)
    try:
        with lease:
            time.sleep(6)
            lease.check()
            lease.complete()
    finally:
        vcenter.settings(lease_timeout=300)


def test_lease_that_the_server_ended_is_told(vcenter: VSphere, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "RENEW", 0.05)
    with lease:
        vcenter.restart()

        def lost() -> bool:
            try:
                lease.check()
            except VmferryError as error:
                return error.kind == "timeout" and error.retryable and "Exporting of-a-lease" in error.message
            return False

        until(lost)
        with pytest.raises(VmferryError, match="ended before its time"):
            lease.complete()


def test_lease_outlives_a_session(vcenter: VSphere, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "RENEW", 0.05)
    with lease:
        vcenter.expire_sessions()
        told = len(vcenter.calls("HttpNfcLeaseProgress"))
        until(lambda: len([call for call in vcenter.calls("HttpNfcLeaseProgress")[told:] if not call.ended]) > 1)
        lease.complete()


def test_lease_that_is_refused_says_why(vcenter: VSphere, lease: Lease) -> None:
    vcenter.fault("ExportVm", "fault", fault="FileLocked")
    with pytest.raises(VmferryError) as refused, lease:
        raise AssertionError("it began")
    assert refused.value.kind == "busy"
    assert "Exporting of-a-lease" in refused.value.message


def test_lease_that_does_not_get_ready_is_aborted(
    vcenter: VSphere, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "READY_LIMIT", 1.0)
    vcenter.settings(lease_start=3600)
    before = vcenter.leases()
    try:
        with pytest.raises(VmferryError) as late, lease:
            raise AssertionError("it began")
    finally:
        vcenter.settings(lease_start=0.02)
    assert late.value.kind == "timeout"
    assert outcomes(vcenter, before) == ["aborted"]
