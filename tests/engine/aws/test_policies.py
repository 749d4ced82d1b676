# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy that the documentation asks for is what the modules call: nothing is missing, and nothing too much."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    ProviderSpec,
    SnapshotRequest,
    VmRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_snapshots import list_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import snapshot_set
from rigs.aws import AwsServer

from .exports import Exports

pytestmark = pytest.mark.slow
PAGE = Path(__file__).resolve().parents[3] / "docs" / "aws.md"
LOOK = "`vm_info`, `disk_snapshot_info`"


def told() -> dict[str, set[str]]:
    """By the first column of the table."""
    rows = re.findall(r"^\| (.+?) \| ((?:`\w+:\w+`(?:, )?)+) \|$", PAGE.read_text(), re.MULTILINE)
    return {for_whom: set(re.findall(r"\w+:\w+", actions)) for for_whom, actions in rows}


def look(spec: ProviderSpec) -> None:
    describe_vms(spec, ["policies"], {})
    describe_vms(spec, None, {"name": "policies"})
    list_snapshots(spec, "policies", "")


def snapshot(spec: ProviderSpec) -> None:
    common: dict[str, Any] = {"quiesce": "auto", "memory": False, "method": "auto", "keep": None, "timeout": 60.0}
    for state, name in (("present", "one"), ("present", "two"), ("absent", "one"), ("absent", "")):
        request = SnapshotRequest(provider=spec, vm="policies", state=state, name=name, **common)
        manage_snapshots(request, check_mode=True)
        manage_snapshots(request, check_mode=False)


def power(spec: ProviderSpec, *states: str, vm: str = "policies") -> None:
    for state in states:
        more: dict[str, Any] = {"timeout": 30.0, "force": False, "remove_disks": True}
        bring_vm(VmRequest(provider=spec, vm=vm, state=state, **more), False)


def test_each_module_calls_what_its_row_says_and_nothing_else(aws: AwsServer, settings: dict[str, Any]) -> None:
    spec = ProviderSpec("aws", settings)
    aws.make_instance("policies")
    table = told()
    known: set[str] = set()
    for row, act in (
        (LOOK, look),
        ("`disk_snapshot`, also", snapshot),
        ("`vm`, also", lambda spec: power(spec, "powered_off", "powered_on", "powered_off")),
    ):
        aws.forget_calls()
        act(spec)
        assert aws.permissions() - known == table[row], row
        known = table[LOOK]


def test_what_ends_with_an_instance_and_behind_it_is_in_their_rows(
    aws: AwsServer, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance of which increments were to be made, and one that was terminated without a word to anybody."""
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(snapshot_set, "FIRST_LOOK", 0.02)
    spec, table, exports = ProviderSpec("aws", settings), told(), Exports(aws, tmp_path)
    gone, there = (aws.make_instance(name, [b"x"], running=False) for name in ("gone", "going"))
    kept = {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}}
    aws.ec2.modify_instance_attribute(InstanceId=there, BlockDeviceMappings=[kept])
    for vm in (gone, there):
        exports.make(vm)
    aws.ec2.terminate_instances(InstanceIds=[gone])
    aws.forget_calls()
    request = CleanupRequest(exports.store, Limits(), Protections(), orphans=True, provider=spec)
    assert clean_up_exports(request, False)["orphans"]
    assert aws.permissions() - {"sts:GetCallerIdentity"} - table[LOOK] == table["`export_cleanup`, also"]
    aws.forget_calls()
    power(spec, "absent", vm="going")
    assert aws.permissions() - table[LOOK] == table["`vm` with `state: absent`, also"]


def test_the_example_of_a_policy_allows_snapshots_and_no_more() -> None:
    (policy,) = (json.loads(text) for text in re.findall(r"```json\n(.+?)```", PAGE.read_text(), re.DOTALL)[:1])
    allowed: set[str] = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    table = told()
    assert allowed == table[LOOK] | table["`disk_snapshot`, also"]
