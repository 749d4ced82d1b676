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
  - For the playbook C(vmferry.migrate.export_fleet).
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
- name: Name the VMs that were exported now
  ansible.builtin.debug:
    msg: "{{ ended | selectattr('state', 'equalto', 'exported') | map(attribute='vm') }}"
  vars:
    ended: "{{ rows | vmferry.migrate.fleet_outcome(exported) }}"
"""

RETURN = r"""
_value:
  description:
    - The rows, in which C(state) is V(exported), V(done) or V(failed) for each that was V(planned).
    - With V(exported) and V(done) a row also has C(job), C(export) and C(url), with V(exported) C(mode), C(bytes_read),
      C(bytes_stored), C(seconds) and C(rate), and with V(failed) C(error).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import outcome_rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_outcome": outcome_rows}
