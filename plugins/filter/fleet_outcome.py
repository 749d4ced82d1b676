# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_outcome
short_description: The rows of a plan with what came of them
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Adds to each row that was V(planned) what came of it in the looped task with M(vmferry.migrate.vm_export) that
    followed. Other rows stay as they are.
  - A task that failed before its loop began gives its error to all VMs that were V(planned).
  - For the playbook C(vmferry.migrate.export_fleet), and for plays that do some of what it does.
seealso:
  - plugin: vmferry.migrate.fleet_plan
    plugin_type: filter
  - plugin: vmferry.migrate.fleet_table
    plugin_type: filter
positional: exported
options:
  _input:
    description: The rows of one host's VMs, as P(vmferry.migrate.fleet_plan#filter) returns them.
    type: list
    elements: dict
    required: true
  exported:
    description: What M(vmferry.migrate.vm_export) returned, looped over the VMs that are V(planned), in their order.
    type: dict
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

- name: Keep what is to be done
  ansible.builtin.set_fact:
    rows: "{{ looked | vmferry.migrate.fleet_plan(inventory_hostname, ['web01', 'web02']) }}"

- name: Export what can be exported
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: "{{ item }}"
    url: file:///srv/exports
  loop: "{{ rows | selectattr('state', 'equalto', 'planned') | map(attribute='vm') }}"
  ignore_errors: true
  register: exported

- name: Name the VMs that were exported now
  ansible.builtin.debug:
    msg: "{{ ended | selectattr('state', 'equalto', 'exported') | map(attribute='vm') }}"
  vars:
    ended: "{{ rows | vmferry.migrate.fleet_outcome(exported) }}"
"""

RETURN = r"""
_value:
  description: The rows, in their order.
  type: list
  elements: dict
  contains:
    state:
      description:
        - V(exported), V(done) where an export that is wanted exists, V(failed), or V(none) for a host that has no VM.
      returned: always
      type: str
      sample: exported
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
      returned: state is V(exported), or was V(planned)
      type: str
      sample: full
    bytes_to_read:
      description: How much an export would read from the VM, in bytes.
      returned: state was V(planned)
      type: int
      sample: 1073741824
    bytes_to_send:
      description: How much an export would send to the store at most, in bytes.
      returned: state was V(planned)
      type: int
      sample: 536870912
    export:
      description: The id of the export.
      returned: state is V(exported) or V(done)
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    url:
      description: Where the export is, or the store if Ansible masks a part of the export's URL.
      returned: state is V(exported) or V(done)
      type: str
      sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d
    job:
      description: The id of the job that exported it, for M(vmferry.migrate.job_info). Empty if there was none.
      returned: state was V(planned)
      type: str
      sample: 3f1c9a2be1d04c58
    bytes_read:
      description: What was read from the VM, in bytes.
      returned: state is V(exported)
      type: int
      sample: 1073741824
    bytes_stored:
      description: What was written to the store, in bytes.
      returned: state is V(exported)
      type: int
      sample: 536870912
    seconds:
      description: How long the export took, without what it waited for its turn.
      returned: state is V(exported)
      type: float
      sample: 12.5
    rate:
      description: Bytes read each second.
      returned: state is V(exported)
      type: float
      sample: 85899345.9
    error:
      description:
        - What went wrong, with C(message), C(hint), C(kind), both sentences as C(sentence), and C(when), which is
          V(preflight) or V(export).
      returned: state is V(failed)
      type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import outcome_rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_outcome": outcome_rows}
