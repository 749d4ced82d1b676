# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_table
short_description: A batch as a table
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Makes lines of text of the rows of a batch, with the figures aligned and added up, for a report by mail. The module
    M(vmferry.migrate.print_lines) prints them.
  - For the playbook C(vmferry.migrate.export_fleet), and for plays that do some of what it does.
seealso:
  - module: vmferry.migrate.print_lines
  - plugin: vmferry.migrate.fleet_plan
    plugin_type: filter
  - plugin: vmferry.migrate.fleet_outcome
    plugin_type: filter
positional: kind
options:
  _input:
    description: Rows as P(vmferry.migrate.fleet_plan#filter) or P(vmferry.migrate.fleet_outcome#filter) returns them.
    type: list
    elements: dict
    required: true
  kind:
    description: V(plan) for what is to be done, V(summary) for what was done.
    type: str
    choices: [plan, summary]
    required: true
"""

EXAMPLES = r"""
- name: Show how it went, in the end
  vmferry.migrate.print_lines:
    lines: "{{ rows | vmferry.migrate.fleet_outcome(exported) | vmferry.migrate.fleet_table('summary') }}"

- name: Tell it, by mail
  community.general.mail:
    to: operators@example.com
    subject: The exports of this night
    body: "{{ rows | vmferry.migrate.fleet_outcome(exported) | vmferry.migrate.fleet_table('summary') | join('\n') }}"
# web01  full    1.07 GB  537 MB     12.5  85.9  s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d
"""

RETURN = r"""
_value:
  description: The lines of the table, sorted by VM, one with the totals, and the hints.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import fleet_table


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_table": fleet_table}
