# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: migration_table
short_description: Migrations as a table
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Makes lines of text of the rows of migrations, for M(vmferry.migrate.print_lines) or a report by mail.
  - For the role P(vmferry.migrate.vm_migrate#role), and for plays that do some of what it does.
seealso:
  - plugin: vmferry.migrate.migration_plan
    plugin_type: filter
  - plugin: vmferry.migrate.migration_outcome
    plugin_type: filter
positional: kind
options:
  _input:
    description: >-
      Rows as P(vmferry.migrate.migration_plan#filter) or P(vmferry.migrate.migration_outcome#filter) returns them.
    type: list
    elements: dict
    required: true
  kind:
    description: V(plan) for what is to be done, with everything that was found, V(summary) for what was done.
    type: str
    choices: [plan, summary]
    required: true
"""

EXAMPLES = r"""
- name: Show how it went
  vmferry.migrate.print_lines:
    lines: "{{ rows | vmferry.migrate.migration_table('summary') }}"
# web01  kvm02/web01  migrated  1.07 GB  21.4  20261121T063000Z-1a2b3c4d
"""

RETURN = r"""
_value:
  description: The lines of the table, sorted by VM, and one with the totals.
  type: list
  elements: str
"""

from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import Row
from ansible_collections.vmferry.migrate.plugins.plugin_utils._migration import plan_table, summary_table


def migration_table(rows: Sequence[Row], kind: str) -> list[str]:
    return {"plan": plan_table, "summary": summary_table}[kind](rows)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"migration_table": migration_table}
