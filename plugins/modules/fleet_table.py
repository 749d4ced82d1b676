#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_table
short_description: Print a batch as a table
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Prints the rows of a batch as a table, as it is to be read. M(ansible.builtin.debug) would print it as JSON.
  - Runs on the control node, whatever the host of the task.
  - For the playbook C(vmferry.migrate.export_fleet), and for plays that do some of what it does.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.info_module
attributes:
  action:
    description: Has a part that runs on the control node.
    support: full
  async:
    support: none
options:
  rows:
    description:
      - The rows, as P(vmferry.migrate.fleet_plan#filter) or P(vmferry.migrate.fleet_outcome#filter) returns them.
    type: list
    elements: dict
    required: true
  kind:
    description:
      - V(plan) for what is to be done, V(summary) for what was done.
    type: str
    choices:
      - plan
      - summary
    required: true
seealso:
  - plugin: vmferry.migrate.fleet_table
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what is to be done on this host, from vm_export in check mode
  vmferry.migrate.fleet_table:
    rows: "{{ looked | vmferry.migrate.fleet_plan(inventory_hostname, vms) }}"
    kind: plan
"""

RETURN = r"""
lines:
  description: The lines of the table, sorted by VM, one with the totals, and the hints.
  returned: success
  type: list
  elements: str
"""
