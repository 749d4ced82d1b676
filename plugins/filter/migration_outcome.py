# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: migration_outcome
short_description: What became of a migration, as a row
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Adds to the row of P(vmferry.migrate.migration_plan#filter) what came of it.
  - For the role P(vmferry.migrate.vm_migrate#role), and for plays that do some of what it does.
seealso:
  - plugin: vmferry.migrate.migration_plan
    plugin_type: filter
  - plugin: vmferry.migrate.migration_table
    plugin_type: filter
positional: step, result
options:
  _input:
    description: The row.
    type: dict
    required: true
  step:
    description: The step that failed, or an empty string if none did.
    type: str
    required: true
  result:
    description:
      - Of a step that failed, the result of the task, which is C(ansible_failed_result) in a rescue.
      - Otherwise C(export), which is RV(vmferry.migrate.vm_export#module:export), and C(import), which is all that
        M(vmferry.migrate.vm_import) returned. Nothing where the VM had been migrated before.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Make a VM of an export, and say how it went
  block:
    - name: Import it
      vmferry.migrate.vm_import:
        provider: libvirt
        url: s3://staging/vms
        name: web01
  rescue:
    - name: Show what went wrong
      vmferry.migrate.print_lines:
        lines: "{{ [outcome] | vmferry.migrate.migration_table('summary') }}"
      vars:
        outcome: "{{ row | vmferry.migrate.migration_outcome('import', ansible_failed_result) }}"
"""

RETURN = r"""
_value:
  description: The row, with what P(vmferry.migrate.migration_plan#filter) said.
  type: dict
  contains:
    state:
      description: V(migrated), V(done) where an earlier run had made the VM, or V(failed).
      returned: always
      type: str
      sample: migrated
    export:
      description: The id of the export the VM was made of.
      returned: there was one in the store
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    bytes_moved:
      description: How much was read from the source, in bytes.
      returned: there was one in the store
      type: int
      sample: 1073741824
    seconds:
      description: How long the export and the import took, together.
      returned: there was one in the store
      type: float
      sample: 21.4
    error:
      description:
        - What went wrong, with C(message), C(hint), C(kind), both sentences as C(sentence), and C(step).
      returned: state is V(failed)
      type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._migration import outcome_row


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"migration_outcome": outcome_row}
