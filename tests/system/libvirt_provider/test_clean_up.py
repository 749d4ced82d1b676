# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead run left is undone, what a living one or a stranger does is not touched."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import libvirt
import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.libvirt.provider import LibvirtProvider
from rigs.domain import Guest
from rigs.libvirt import LibvirtRig

from .harness import exporter, no_job, open_session, problems, watchdog_of


def test_the_job_of_a_dead_exporter_is_aborted(
    provider: LibvirtProvider, rig: LibvirtRig, busy_guest: Guest, scratch: Path
) -> None:
    process = exporter(rig.uri, scratch, "busy", "crash_consistent")
    assert process.stdout is not None
    process.stdout.readline()
    watchdog = watchdog_of(scratch)
    os.kill(watchdog, signal.SIGKILL)  # as after a power cut of the session: nobody is left to undo it
    process.kill()
    process.wait()
    vm = provider.describe("busy")
    assert [finding.severity for finding in problems(provider, vm, "auto")] == ["warning"]
    said = provider.clean_up(vm)
    assert len(said) == 1
    assert f"process {process.pid}" in said[0].sentence
    assert said[0].given_up == "", "nobody held it"
    assert no_job(busy_guest)
    assert provider.clean_up(vm) == []


def test_a_folder_without_a_job_is_removed(provider: LibvirtProvider, busy_guest: Guest, scratch: Path) -> None:
    left = scratch / "vmferry-0123abcd"
    left.mkdir()
    owner = {"hostname": os.uname().nodename, "pid": 1, "boot_id": "another boot", "pid_namespace": 1, "started": 1}
    record = {
        "purpose": "export",
        "vm_id": provider.describe("busy").id,
        "vm_name": "busy",
        "job_id": "j",
        "attempt": "0123abcd",
        "owner": owner,
        "started_at": 0,
        "made": [],
    }
    (left / "owner.json").write_text(json.dumps(record))
    assert len(provider.clean_up(provider.describe("busy"))) == 1
    assert not left.exists()


def test_a_folder_of_another_user_is_not_believed(
    provider: LibvirtProvider, busy_guest: Guest, scratch: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    planted = scratch / "vmferry-0123abcd"
    planted.mkdir()
    record = {
        "purpose": "import",
        "vm_id": "",
        "vm_name": "x",
        "job_id": "",
        "attempt": "0123abcd",
        "owner": {"hostname": os.uname().nodename, "boot_id": "old"},
        "started_at": 0,
        "made": [{"part": str(precious)}],
    }
    (planted / "owner.json").write_text(json.dumps(record))
    os.chown(planted, 12345, 12345)
    try:
        assert provider.clean_up(provider.describe("busy")) == []
        assert precious.exists()
    finally:
        (planted / "owner.json").unlink()
        planted.rmdir()


def test_a_living_export_is_busy(provider: LibvirtProvider, busy_guest: Guest) -> None:
    with open_session(provider, "busy", "crash_consistent") as session:
        with pytest.raises(VmferryError, match=f"process {os.getpid()}") as caught:
            provider.clean_up(session.vm)
        assert caught.value.kind == "busy"
        findings = problems(provider, session.vm, "crash_consistent")
        assert [(finding.severity, finding.kind) for finding in findings] == [("error", "busy")]
        assert not no_job(busy_guest)


def test_a_job_of_another_program_is_named_and_left_alone(
    provider: LibvirtProvider, rig: LibvirtRig, busy_guest: Guest
) -> None:
    socket, scratch = rig.directory / "theirs.sock", rig.directory / "theirs.scratch"
    busy_guest.domain.backupBegin(
        f"<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>"
        f"<disk name='vdb' backup='yes' type='file'><scratch file='{scratch}'/></disk>"
        "<disk name='vda' backup='no'/></disks></domainbackup>",
        None,
    )
    try:
        vm = provider.describe("busy")
        with pytest.raises(VmferryError, match=r"theirs\.sock") as caught:
            provider.clean_up(vm)
        assert caught.value.kind == "busy"
        assert [finding.kind for finding in problems(provider, vm, "auto")] == ["busy"]
        assert busy_guest.domain.jobStats()["operation"] == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
    finally:
        busy_guest.domain.abortJob()
