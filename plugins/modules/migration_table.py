#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: migration_table
short_description: Print migrations as a table
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Prints the rows of migrations as a table, as it is to be read. M(ansible.builtin.debug) would print it as JSON.
  - Runs on the control node, whatever the host of the task.
  - For the role P(vmferry.migrate.vm_migrate#role), and for plays that do some of what it does.
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
      - The rows, as P(vmferry.migrate.migration_plan#filter) or P(vmferry.migrate.migration_outcome#filter) returns
        them.
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
  - plugin: vmferry.migrate.migration_plan
    plugin_type: filter
  - plugin: vmferry.migrate.migration_outcome
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show how it went
  vmferry.migrate.migration_table:
    rows: "{{ rows }}"
    kind: summary
# web01  kvm02/web01  migrated  1.07 GB  21.4  20261121T063000Z-1a2b3c4d
"""

RETURN = r"""
lines:
  description: The lines of the table, sorted by VM, and one with the totals.
  returned: success
  type: list
  elements: str
"""
