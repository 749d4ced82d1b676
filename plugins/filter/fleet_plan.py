# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_plan
short_description: What check mode said of each VM of a host, one row for each
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - For the playbook C(vmferry.migrate.export_fleet).
positional: host, vms
options:
  _input:
    description: What M(vmferry.migrate.vm_export) returned in check mode, looped over O(vms).
    type: dict
    required: true
  host:
    description: The inventory host that the VMs belong to.
    type: str
    required: true
  vms:
    description: The VMs, in the order of the loop.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: See what exports would take
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: "{{ item }}"
    url: file:///srv/exports
  loop: [web01, web02]
  check_mode: true
  ignore_errors: true
  register: looked

- name: Show it
  ansible.builtin.debug:
    msg: "{{ rows | vmferry.migrate.fleet_table('plan') }}"
  vars:
    rows: "{{ looked | vmferry.migrate.fleet_plan(inventory_hostname, ['web01', 'web02']) }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary for each VM, with C(vm), C(host), C(label), C(findings) and C(state), which is V(planned), V(done)
      where an export that is wanted exists, or V(failed).
    - With V(planned) also C(mode), C(bytes_to_read) and C(bytes_to_send), with V(done) C(export) and C(url), and with
      V(failed) C(error).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import plan_rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_plan": plan_rows}
