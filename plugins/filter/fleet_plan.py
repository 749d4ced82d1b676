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
  - Makes one row for each VM of a looped task with M(vmferry.migrate.vm_export) in check mode. It says whether the VM
    can be exported, and how.
  - A task that failed before its loop began gives its error to all VMs. A host that has no VMs gets one row.
  - For the playbook C(vmferry.migrate.export_fleet), and for plays that do some of what it does.
seealso:
  - plugin: vmferry.migrate.fleet_outcome
    plugin_type: filter
  - plugin: vmferry.migrate.fleet_table
    plugin_type: filter
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
  vmferry.migrate.print_lines:
    lines: "{{ rows | vmferry.migrate.fleet_table('plan') }}"
  vars:
    rows: "{{ looked | vmferry.migrate.fleet_plan(inventory_hostname, ['web01', 'web02']) }}"
"""

RETURN = r"""
_value:
  description: One row for each VM, in the order of the loop.
  type: list
  elements: dict
  contains:
    state:
      description:
        - V(planned), V(done) where an export that is wanted exists, V(failed), or V(none) for a host that has no VM.
      returned: always
      type: str
      sample: planned
    vm:
      description: The VM, as it was named in the loop. Empty for a host without a VM.
      returned: always
      type: str
      sample: web01
    host:
      description: The inventory host that the VM belongs to.
      returned: always
      type: str
      sample: kvm01
    label:
      description: The VM's name in tables. The host stands before it, unless the host is the VM.
      returned: always
      type: str
      sample: kvm01/web01
    findings:
      description: What check mode found, one sentence each, with its severity before it.
      returned: always
      type: list
      elements: str
      sample: ["warning: Little room is left."]
    hints:
      description: What to do about the findings.
      returned: always
      type: list
      elements: str
      sample: [Free some space, or choose another store.]
    mode:
      description: The mode of the export.
      returned: state is V(planned)
      type: str
      sample: full
    bytes_to_read:
      description: How much an export would read from the VM, in bytes.
      returned: state is V(planned)
      type: int
      sample: 1073741824
    bytes_to_send:
      description: How much an export would send to the store at most, in bytes.
      returned: state is V(planned)
      type: int
      sample: 536870912
    export:
      description: The id of the export.
      returned: state is V(done)
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    url:
      description: Where the export is, or the store if Ansible masks a part of the export's URL.
      returned: state is V(done)
      type: str
      sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d
    error:
      description:
        - What went wrong, with C(message), C(hint), C(kind), both sentences as C(sentence), and C(when), which is
          V(preflight).
      returned: state is V(failed)
      type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import plan_rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_plan": plan_rows}
