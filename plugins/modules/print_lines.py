#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: print_lines
short_description: Print lines as they are to be read
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Prints lines of text, such as those of a table, as they are. M(ansible.builtin.debug) prints them as JSON.
  - Runs on the control node, whatever the host of the task. Control characters are left out.
  - For the playbooks of this collection, and for plays that do some of what they do.
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
  lines:
    description:
      - The lines, as the filters of this collection for tables return them.
    type: list
    elements: str
    required: true
seealso:
  - plugin: vmferry.migrate.fleet_table
    plugin_type: filter
  - plugin: vmferry.migrate.migration_table
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show what is to be done on this host, from vm_export in check mode
  vmferry.migrate.print_lines:
    lines: "{{ looked | vmferry.migrate.fleet_plan(inventory_hostname, vms) | vmferry.migrate.fleet_table('plan') }}"
"""

RETURN = r"""
lines:
  description: What was printed.
  returned: success
  type: list
  elements: str
"""
