# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the playbook `export_fleet` are checked, passed on and described, all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

COLLECTION = Path(__file__).resolve().parents[4]
OF_THE_RUN = {"export_fleet_hosts", "export_fleet_hosts_required", "export_fleet_preflight", "export_fleet_report"}
OF_HOSTS = {"export_fleet_filters", "export_fleet_vm"}  # which VMs, and not how
BUSY = "export_fleet_busy_retries"  # of the role, and of no module


def checked() -> dict[str, Any]:
    (block,) = yaml.safe_load((COLLECTION / "playbooks/tasks/look_at_vms.yml").read_text())
    specification: dict[str, Any] = block["block"][0]["ansible.builtin.validate_argument_spec"]["argument_spec"]
    return specification


def passed_on() -> dict[str, str]:
    """By the variable of the fleet, the one of the role."""
    told = yaml.safe_load((COLLECTION / "playbooks/vars/vm_export.yml").read_text())
    return {found[0]: name for name, value in told.items() if (found := re.findall(r"export_fleet_\w+", str(value)))}


def test_all_that_is_checked_has_an_effect_and_the_other_way_round() -> None:
    assert set(checked()) | {"export_fleet_hosts", "export_fleet_report"} == (
        set(passed_on()) - {"export_fleet_vms"} | OF_THE_RUN | OF_HOSTS
    )


def test_a_variable_takes_what_the_roles_takes() -> None:
    role = yaml.safe_load((COLLECTION / "roles/vm_export/meta/argument_specs.yml").read_text())
    options = role["argument_specs"]["main"]["options"]
    for name, specification in checked().items():
        if name in passed_on():
            assert specification.get("choices") == options[passed_on()[name]].get("choices"), name
    assert f"vm_export_{BUSY.removeprefix('export_fleet_')}" in options


def test_every_variable_is_described_on_the_page_and_in_the_playbook() -> None:
    known = set(checked()) | OF_THE_RUN
    page = re.findall(r"^\| (`export_fleet_.+?) \|", (COLLECTION / "docs/batches.md").read_text(), re.MULTILINE)
    assert {name for row in page for name in re.findall(r"`(\w+)`", row)} == known
    head = (COLLECTION / "playbooks/export_fleet.yml").read_text().partition("\n- name")[0]
    assert set(re.findall(r"export_fleet_\w+", head)) == known
