# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: migration_plan
short_description: What was found before a migration, as a row
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Makes one row for a VM that is to be migrated, of the results of the tasks that looked at both ends. It says whether
    it can be, and what stands in the way.
  - For the role P(vmferry.migrate.vm_migrate#role), and for plays that do some of what it does.
seealso:
  - plugin: vmferry.migrate.migration_outcome
    plugin_type: filter
  - plugin: vmferry.migrate.migration_table
    plugin_type: filter
positional: wanted
options:
  _input:
    description:
      - The results of four tasks that did not stop the play when they failed. C(source) and C(destination) are
        M(vmferry.migrate.vm_info) at either end, C(export) is M(vmferry.migrate.vm_export) and C(import) is
        M(vmferry.migrate.vm_import), both in check mode.
    type: dict
    required: true
  wanted:
    description:
      - What is to be done. C(vm) becomes C(name) at C(to_host), and belongs to the inventory host
        C(host). C(power_off), C(power_on), C(delete_source) and C(reachable) are the role's variables, as truths.
        C(unknown_host) is the host that is to be logged in to, if the inventory has no such host, and may be missing.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say what was found
  vmferry.migrate.print_lines:
    lines: "{{ [looked | vmferry.migrate.migration_plan(wanted)] | vmferry.migrate.migration_table('plan') }}"
  vars:
    looked: {source: "{{ at_source }}", destination: "{{ at_target }}", export: "{{ export }}", import: "{{ import }}"}
    wanted:
      vm: web01
      name: web01
      host: web01
      to_host: kvm02
      power_off: true
      power_on: true
      delete_source: false
      reachable: false
"""

RETURN = r"""
_value:
  description: The row.
  type: dict
  contains:
    state:
      description:
        - V(planned), V(done) where an earlier run migrated the VM and cleaned up, or V(failed).
      returned: always
      type: str
      sample: planned
    vm:
      description: The VM at its source.
      returned: always
      type: str
      sample: web01
    host:
      description: The inventory host that the VM belongs to.
      returned: always
      type: str
      sample: web01
    label:
      description: The VM's name in tables. The host stands before it, unless the host is the VM.
      returned: always
      type: str
      sample: web01
    to:
      description: The host that gets the VM, and the name it gets there.
      returned: always
      type: str
      sample: kvm02/web01
    findings:
      description: What was found, one sentence each, with the end and the severity before it.
      returned: always
      type: list
      elements: str
      sample: ["destination: warning: Little room is left."]
    source_id:
      description: The provider's own id of the VM at its source.
      returned: state is V(planned) or V(done)
      type: str
      sample: 1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77
    bytes_to_move:
      description: How much an export would read at most, in bytes. Nothing where there is one already.
      returned: state is V(planned)
      type: int
      sample: 1073741824
    error:
      description:
        - What stands in the way, with C(message), C(hint), C(kind), both sentences as C(sentence), and C(step), which
          is V(preflight).
      returned: state is V(failed)
      type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._migration import plan_row


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"migration_plan": plan_row}
