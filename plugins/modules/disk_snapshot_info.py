#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: disk_snapshot_info
short_description: List the snapshots of a VM
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Returns the snapshots of a VM, whoever made them, with where they lie and which of them this collection made.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.info_module
  - vmferry.migrate._attributes.actiongroup_hypervisors
  - vmferry.migrate._provider.hypervisors
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
options:
  vm:
    description:
      - The VM, by name or by UUID. On vSphere, also by its path in the inventory, such as V(/DC0/vm/Prod/web01), or by
        its MoRef. On AWS, by the id of the instance or by its tag C(Name).
      - On Proxmox VE, by its vmid or its name, also behind the name of its node, as in V(pve2/web01). A name that
        several VMs have is refused, with their vmids.
    type: str
    required: true
  name:
    description:
      - Only the snapshot of this name. It is no error if there is none.
    type: str
seealso:
  - module: vmferry.migrate.disk_snapshot
"""

EXAMPLES = r"""
- name: List the snapshots of a VM
  vmferry.migrate.disk_snapshot_info:
    provider: libvirt
    vm: web01
  register: found

- name: Show those that this collection made, the oldest first
  ansible.builtin.debug:
    msg: "{{ found.snapshots | selectattr('ours') | map(attribute='name') }}"
"""

RETURN = r"""
vm:
  description: The VM.
  returned: success
  type: dict
  contains:
    id:
      description: The provider's id of the VM.
      returned: success
      type: str
      sample: 9d2877a7-5503-4c62-8f6c-0b7bb1bc3134
    name:
      description: The name of the VM.
      returned: success
      type: str
      sample: web01
snapshots:
  description: The snapshots, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: >-
        The name of the snapshot.
      returned: success
      type: str
      sample: before-upgrade
    created:
      description: >-
        When it was taken, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    description:
      description: >-
        Its description, without the line that marks snapshots of this collection.
      returned: success
      type: str
    current:
      description: >-
        Whether the VM stands on it directly.
      returned: success
      type: bool
      sample: true
    parent:
      description: >-
        The name of the snapshot before it, or an empty string.
      returned: success
      type: str
    children:
      description: >-
        The names of the snapshots right after it.
      returned: success
      type: list
      elements: str
    power_state:
      description: >-
        The power state of the VM at that moment.
      returned: success
      type: str
      sample: powered_on
    memory:
      description: >-
        Whether it holds the memory of the VM too.
      returned: success
      type: bool
      sample: false
    method:
      description: >-
        V(internal), V(external), on AWS V(ebs), on Proxmox VE V(storage), or an empty string where it holds no disk.
      returned: success
      type: str
      sample: external
    ours:
      description: >-
        Whether this collection made it, for this VM.
      returned: success
      type: bool
      sample: true
    job:
      description: >-
        The job that made it; empty if it is not ours.
      returned: success
      type: str
      sample: 3f1c9a2b7d1e4c589a510c3a0d5b6e77
    consistency:
      description: >-
        What its disks alone are, V(quiesced), V(crash_consistent) or V(powered_off); empty if it is not ours.
      returned: success
      type: str
      sample: quiesced
    whole:
      description: >-
        Whether it can be reverted to. Not so once its removal has begun; the same task run again goes on with it.
      returned: success
      type: bool
      sample: true
    disks:
      description: What it holds of each disk.
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: >-
            The provider's name of the disk.
          returned: success
          type: str
          sample: vda
        image:
          description: >-
            The image that holds the disk as it was.
          returned: success
          type: str
          sample: /var/lib/libvirt/images/web01.qcow2
        overlay:
          description: >-
            The image that takes what was written since; empty for an internal snapshot, where it is the same one.
          returned: success
          type: str
          sample: /var/lib/libvirt/images/web01.qcow2.vmferry-7d1e4c58
error:
  description: What went wrong, for programs. The sentence for people is in RV(msg).
  returned: failure
  type: dict
  contains:
    kind:
      description: >-
        One of V(not_found), V(permission_denied), V(unauthenticated), V(network), V(timeout), V(rate_limited),
        V(checksum_mismatch), V(invalid_config), V(no_space), V(conflict), V(busy), V(unsupported), V(quota),
        V(cancelled), V(internal).
      returned: failure
      type: str
      sample: conflict
    retryable:
      description: Whether the same task may go through later.
      returned: failure
      type: bool
      sample: false
    phase:
      description: What was under way.
      returned: failure
      type: str
      sample: validating
    hint:
      description: What to do about it.
      returned: failure
      type: str
msg:
  description: One sentence that says what failed, and on which VM, disk or snapshot.
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import (
    ArgumentSpec,
    TaskArguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    hypervisor_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_provider_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import vm_name


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec({"vm": {"type": "str", "required": True}, "name": {"type": "str"}})
    return own.merge(hypervisor_arguments())


def show(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    provider, vm = provider_spec(arguments), vm_name("vm", arguments["vm"])
    require_provider_sdk(provider)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_snapshots import list_snapshots

    return list_snapshots(provider, vm, arguments.text("name"))


def main() -> None:
    run(argument_spec(), show)


if __name__ == "__main__":
    main()
