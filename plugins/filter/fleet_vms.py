# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_vms
short_description: The VMs that looped vm_info found, once each
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Of the VMs that a looped task with M(vmferry.migrate.vm_info) found by several filters, names each once, also where
    several filters find it.
  - For the playbook C(vmferry.migrate.export_fleet), which lets a hypervisor choose its VMs so, and for plays that do
    the same.
seealso:
  - module: vmferry.migrate.vm_info
options:
  _input:
    description: What a looped task with M(vmferry.migrate.vm_info) registered.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Find all web servers, and the database servers that run
  vmferry.migrate.vm_info:
    provider: libvirt
    filters: "{{ item }}"
  loop:
    - name: web*
    - name: db*
      power_state: powered_on
  register: found

- name: Export them
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: "{{ item }}"
    url: file:///srv/exports
  loop: "{{ found | vmferry.migrate.fleet_vms }}"
"""

RETURN = r"""
_value:
  description: The names of the VMs, sorted. Where several VMs have one name, their ids.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import chosen_vms


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_vms": chosen_vms}
