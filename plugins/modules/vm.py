#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vm
short_description: Start a VM, shut it down, or remove it
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Brings a VM into the state that is asked for, and returns once that is true.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_hypervisors
  - vmferry.migrate._provider.hypervisors
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the power state, or the name of a VM that is removed.
  idempotent:
    support: full
  async:
    support: full
options:
  vm:
    description:
      - The VM, by name or by UUID. On vSphere, also by its path in the inventory, such as V(/DC0/vm/Prod/web01), or by
        its MoRef. On AWS, by the id of the instance or by its tag C(Name).
      - On Proxmox VE, by its vmid or its name, also behind the name of its node, as in V(pve2/web01). A name that
        several VMs have is refused, with their vmids.
    type: str
    required: true
  state:
    description:
      - V(powered_on) starts it if it is off.
      - V(powered_off) has its guest shut itself down, by the guest agent where it is connected and by ACPI otherwise,
        and waits until it is off.
        On vSphere that takes VMware Tools, or open-vm-tools. AWS itself cuts the power of a guest that takes longer
        than some minutes; what was on an instance store is gone in any case. On Proxmox VE, a VM that is hibernated is
        refused.
      - V(absent) removes it. It must be off, and its memory must not be saved. Its snapshots, and its firmware's
        variables, go with it. On vSphere, without O(remove_disks) it is unregistered, so that all of its files stay.
        On AWS it is terminated; without O(remove_disks) its volumes stay. Its snapshots stay always, but for
        those by which exports told what changed. Proxmox VE removes no VM without its disks, so there it takes
        O(remove_disks), unless the VM has no disk of its own.
    type: str
    choices:
      - powered_on
      - powered_off
      - absent
    required: true
  timeout:
    description:
      - For how long to wait for the guest to shut itself down, for example V(5m).
    type: str
    default: 5m
  force:
    description:
      - Whether to cut the power of a VM whose guest did not shut itself down within O(timeout). Without it, the module
        fails then with the kind V(timeout).
      - A guest that is paused is not asked at all.
    type: bool
    default: false
  remove_disks:
    description:
      - Whether O(state=absent) deletes its disks as well.
      - On AWS, a volume that is attached to another instance as well stays. An instance that is protected from
        termination is not removed.
      - What is no file, is read only or shared, or belongs to another VM too, stays, and so do the images that its
        disks stand on. A warning tells which disks stay.
      - On vSphere, raw devices and disks that another VM has as well are detached before. Where the snapshots of the VM
        hold such a disk, as those that a linked clone stands on, the module fails with V(conflict) and removes nothing.
    type: bool
    default: false
seealso:
  - module: vmferry.migrate.vm_info
"""

EXAMPLES = r"""
- name: Shut a VM down, for an export of everything that it wrote
  vmferry.migrate.vm:
    provider: libvirt
    vm: web01
    state: powered_off
    timeout: 10m

- name: Export it
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: file:///srv/exports
    consistency: powered_off

- name: Start it again
  vmferry.migrate.vm:
    provider: libvirt
    vm: web01
    state: powered_on

- name: Remove a VM that was restored for a test, with its disks
  vmferry.migrate.vm:
    provider: libvirt
    vm: web01-restored
    state: absent
    remove_disks: true
"""

RETURN = r"""
vm:
  description:
    - The VM, with the keys of RV(vmferry.migrate.vm_info#module:vms), in check mode as it was. Null for one that is not
      there.
  returned: success
  type: dict
  sample:
    id: 6f1d2c0e-43a5-4d6d-8a06-0e6a4d7c1b52
    name: web01
    power_state: powered_off
diff:
  description: The power state, or the VM.
  returned: in diff mode
  type: dict
  contains:
    before:
      description: Before the run.
      returned: success
      type: raw
    after:
      description: After it.
      returned: success
      type: raw
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
      sample: no_space
    retryable:
      description: Whether the same task may go through later.
      returned: failure
      type: bool
      sample: false
    phase:
      description: What was under way.
      returned: failure
      type: str
      sample: exporting
    hint:
      description: What to do about it.
      returned: failure
      type: str
msg:
  description: One sentence that says what failed, and on which VM, disk or URL.
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec, TaskArguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    hypervisor_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_provider_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import duration, vm_name
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import VmRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["powered_on", "powered_off", "absent"], "required": True},
            "timeout": {"type": "str", "default": "5m"},
            "force": {"type": "bool", "default": False},
            "remove_disks": {"type": "bool", "default": False},
        }
    )
    return own.merge(hypervisor_arguments())


def bring(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = VmRequest(
        provider=provider_spec(arguments),
        vm=vm_name("vm", arguments["vm"]),
        state=arguments["state"],
        timeout=duration("timeout", arguments["timeout"]),
        force=arguments["force"],
        remove_disks=arguments["remove_disks"],
    )
    require_provider_sdk(request.provider)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm

    return bring_vm(request, check_mode)


def main() -> None:
    run(argument_spec(), bring)


if __name__ == "__main__":
    main()
