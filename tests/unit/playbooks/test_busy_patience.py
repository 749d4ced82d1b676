# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is started right after a worker died gets its turn: it waits for longer than the dead job's lease."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import BEAT, LEASE

ROOT = Path(__file__).resolve().parents[3]


def test_the_fleet_waits_for_busy_vms_longer_than_a_lease_lasts() -> None:
    variables = yaml.safe_load((ROOT / "playbooks/vars/vm_export.yml").read_text())
    defaults = yaml.safe_load((ROOT / "roles/vm_export/defaults/main.yml").read_text())
    retries = re.fullmatch(
        r"\{\{ export_fleet_busy_retries \| default\((\d+)\) \}\}", variables["vm_export_busy_retries"]
    )
    assert retries is not None
    assert int(retries[1]) * defaults["vm_export_busy_delay"] > LEASE + BEAT
    told = f"that another job is exporting, each {defaults['vm_export_busy_delay']} s"
    assert f"{told} | {retries[1]} |" in (ROOT / "docs/batches.md").read_text()
    assert f"{told} ({retries[1]})" in (ROOT / "playbooks/export_fleet.yml").read_text()
