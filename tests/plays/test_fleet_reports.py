# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback tells of a batch: also of VMs whose export never began, and of those that did not change."""

from __future__ import annotations

import json
from pathlib import Path

from rigs.libvirt import LibvirtRig

from .fleet_rig import Fleet, off_vms

SETTINGS = """
[defaults]
callbacks_enabled = vmferry.migrate.transfers
[callback_vmferry_transfers]
metrics_file = x.prom
audit_log = audit.jsonl
"""


def metrics(folder: Path, name: str) -> dict[str, float]:
    lines = (folder / "x.prom").read_text().splitlines()
    found = [line.rsplit(" ", 1) for line in lines if line.startswith(f"vmferry_transfer_{name}{{")]
    return {labels.partition('vm="')[2].partition('"')[0]: float(value) for labels, value in found}


def test_a_vm_that_the_preflight_leaves_out_is_a_failure_in_every_report(fleet: Fleet, rig: LibvirtRig) -> None:
    (fleet.folder / "ansible.cfg").write_text(SETTINGS)
    fleet.add_hosts(["app01", "app02"], "kvm01")
    with off_vms(rig, ["app01", "app02"]):
        assert fleet.run(vm_export_verify="none").rc == 0
        assert metrics(fleet.folder, "success") == {"app01": 1, "app02": 1}
    with off_vms(rig, ["app01"]):
        assert fleet.run("--check").rc == 2
        assert metrics(fleet.folder, "success") == {"app01": 1, "app02": 1}, "nothing was to be exported"
        (fleet.folder / "audit.jsonl").unlink()
        ended = fleet.run(vm_export_verify="none")
    assert ended.rc == 2
    assert metrics(fleet.folder, "success") == {"app01": 1, "app02": 0}
    assert "1 failed" in ended.output
    entries = [json.loads(line) for line in (fleet.folder / "audit.jsonl").read_text().splitlines()]
    failures = [entry for entry in entries if entry["vm"] == "app02"]
    assert [(entry["check"], entry["outcome"], entry["url"]) for entry in failures] == [
        (True, "failed", fleet.url),
        (False, "failed", fleet.url),
    ]
    assert {entry["error"]["kind"] for entry in failures} == {"not_found"}


def test_a_vm_that_did_not_change_is_unchanged_and_its_recovery_point_is_new(fleet: Fleet, rig: LibvirtRig) -> None:
    (fleet.folder / "ansible.cfg").write_text(SETTINGS)
    fleet.add_hosts(["app01"], "kvm01")
    with off_vms(rig, ["app01"]):
        fleet.run()
        taken = metrics(fleet.folder, "export_taken_timestamp_seconds")["app01"]
        ended = fleet.run()
    assert "TRANSFERS: 1 unchanged" in ended.output
    assert "ready in 0:" in ended.output
    assert " · nothing changed since " in ended.output
    assert metrics(fleet.folder, "export_taken_timestamp_seconds") == {"app01": taken}
    assert metrics(fleet.folder, "export_checked_timestamp_seconds")["app01"] > taken
    assert metrics(fleet.folder, "bytes_stored") == {"app01": 0}
