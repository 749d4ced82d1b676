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

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    ProviderSpec,
    SnapshotRequest,
    VmRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_snapshots import list_snapshots
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots
from rigs.aws import AwsServer

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


def power(spec: ProviderSpec, *states: str) -> None:
    for state in states:
        more: dict[str, Any] = {"timeout": 30.0, "force": False, "remove_disks": True}
        bring_vm(VmRequest(provider=spec, vm="policies", state=state, **more), False)


def test_each_module_calls_what_its_row_says_and_nothing_else(aws: AwsServer, settings: dict[str, Any]) -> None:
    spec = ProviderSpec("aws", settings)
    instance = aws.make_instance("policies")
    kept = {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": False}}
    aws.ec2.modify_instance_attribute(InstanceId=instance, BlockDeviceMappings=[kept])
    table = told()
    known: set[str] = set()
    for row, act in (
        (LOOK, look),
        ("`disk_snapshot`, also", snapshot),
        ("`vm`, also", lambda spec: power(spec, "powered_off", "powered_on", "powered_off")),
        ("`vm` with `state: absent`, also", lambda spec: power(spec, "absent")),
    ):
        aws.forget_calls()
        act(spec)
        assert aws.permissions() - known == table[row], row
        known = table[LOOK] | ({"ec2:StopInstances", "ec2:StartInstances"} if row == "`vm`, also" else set())


def test_the_example_of_a_policy_allows_snapshots_and_no_more() -> None:
    (policy,) = (json.loads(text) for text in re.findall(r"```json\n(.+?)```", PAGE.read_text(), re.DOTALL)[:1])
    allowed: set[str] = set()
    for statement in policy["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    table = told()
    assert allowed == table[LOOK] | table["`disk_snapshot`, also"]
