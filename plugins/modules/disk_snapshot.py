#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: disk_snapshot
short_description: Make, remove, merge and go back to snapshots of a VM
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - A snapshot keeps the disks of a VM as they are at one moment, where the VM is. It is no backup, for it is lost with
    the disks; M(vmferry.migrate.vm_export) makes one.
  - What this collection makes carries a mark. Only what is named, or has the mark of this VM, is ever removed.
  - 'On libvirt: an external snapshot puts a new image, an overlay, on each disk, and what is written goes there. An
    internal one lies in the qcow2 images of the VM, with its memory if it runs.'
  - 'On vSphere: a snapshot puts a delta disk on each disk that takes part in snapshots, with the memory of the VM where
    that is asked for. vSphere takes up to 32 on each other, and each makes the VM slower.'
  - 'On AWS: the snapshots of all EBS volumes of an instance, made by one request and of the same moment, are one
    snapshot here. They lie beside the volumes, slow nothing down, and each stands for itself. Those of others, such as
    of AWS Backup, are listed one by one, and called by their ids. Flags such as fast restore are left alone.'
  - 'On Proxmox VE: a snapshot is what the storage makes, of all disks, with the memory of the VM where that is asked
    for. What a storage cannot is told before. If the guest agent answers, Proxmox VE itself freezes the file systems.'
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
    details:
      - Looks at the guest agent, at free space, at permissions and at what stands on which image, and returns all that
        it finds with the plan.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - A name with C({date}), C({time}) or C({job}) is another one in each run, and so is the default.
      - O(state=reverted) goes back each time.
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
      - V(present) makes the snapshot, unless the VM has one of this name.
      - V(absent) removes the snapshot O(name), whoever made it. Without a name, it removes all that this collection
        made for this VM, but for the O(keep) newest. The VM stays as it is; what was written since an external snapshot
        is merged into the image below.
      - V(reverted) makes the disks what they were at that moment. What was written since is lost. With memory, the VM
        goes on as it was then. On libvirt, without memory an internal snapshot leaves the VM off, and an external one
        can be gone back to while the VM is off, if no other snapshot was made after it. On vSphere, one without memory
        leaves the VM off.
      - V(consolidated) merges all external snapshots that this collection made for this VM, so that it has its own
        images only. On vSphere, it also merges delta disks that were left behind, where vSphere says that the disks of
        the VM need consolidation.
      - On Proxmox VE, V(reverted) leaves a VM off where the snapshot holds no memory, ZFS goes back to the newest
        snapshot alone, and V(consolidated) is V(unsupported).
      - On AWS, V(reverted) and V(consolidated) are V(unsupported), and V(absent) refuses what an AMI is made of or an
        export goes by.
    type: str
    choices:
      - present
      - absent
      - reverted
      - consolidated
    default: present
  name:
    description:
      - The name of the snapshot, in which C({vm}) stands for the name of the VM, C({date}) for the day like V(20261121)
        and C({time}) for the time like V(063000), both in UTC, and C({job}) for the id of the task's job.
      - Where the VM has a snapshot of this very name, braces and all, it is that one.
      - Needed for O(state=reverted). For O(state=present) the default is C(vmferry-{date}T{time}Z).
      - Not used with O(state=consolidated).
    type: str
  quiesce:
    description:
      - Whether the file systems of a running guest are frozen for the moment, through its agent.
      - On AWS it cannot be done. There V(auto) makes a snapshot that is crash-consistent, and V(required) is
        V(unsupported) while the instance runs.
      - On Proxmox VE, V(never) cannot keep a guest whose agent answers from being frozen, and warns.
      - V(auto) does so if the agent answers, and warns if not. V(required) fails then. V(never) does not ask.
      - Of O(state=present). A snapshot with memory is never quiesced, or the guest would be frozen after each revert.
    type: str
    choices:
      - auto
      - required
      - never
    default: auto
  memory:
    description:
      - Whether the snapshot of a VM that runs holds its memory too. The guest is paused while it is written.
      - On libvirt, all disks must be qcow2, and the firmware BIOS. On vSphere, no disk may be independent.
        On AWS it is V(unsupported).
      - Of O(state=present).
    type: bool
    default: false
  method:
    description:
      - How libvirt keeps the snapshot. V(auto) is V(internal) with O(memory), else V(external). On vSphere, all are
        V(external). On AWS and Proxmox VE only V(auto) is known.
      - V(external) suits any disk that is a file, qcow2 or raw, of a VM that runs or is off.
      - V(internal) is for disks that are all qcow2, of a VM that is off, or with O(memory).
      - Of O(state=present).
    type: str
    choices:
      - auto
      - internal
      - external
    default: auto
  keep:
    description:
      - How many of the snapshots that this collection made for this VM stay, the new one included. The oldest are
        removed, also those that were given a O(name), such as V(before-upgrade). Those of others are neither counted
        nor touched.
      - Of O(state=present), where at least 1 stays, and of O(state=absent) without O(name). All stay if it is not given
        with O(state=present), and none with O(state=absent).
    type: int
  timeout:
    description:
      - For how long the task may take, for example V(10m). After that it fails; a merge that was under way is stopped,
        and goes on with the next run. The VM stays as usable as it was.
      - AWS copies what changed since the last snapshot of a volume, and the whole volume at first, which may take
        hours. A snapshot that was not completed in time is removed.
    type: str
    default: 10m
seealso:
  - module: vmferry.migrate.disk_snapshot_info
  - module: vmferry.migrate.vm_export
"""

EXAMPLES = r"""
- name: Make a snapshot before an upgrade
  vmferry.migrate.disk_snapshot:
    provider: libvirt
    vm: web01
    name: before-upgrade
    quiesce: required

- name: Go back to it, with the VM off
  vmferry.migrate.disk_snapshot:
    provider: libvirt
    vm: web01
    name: before-upgrade
    state: reverted

- name: Remove it; what was written since stays
  vmferry.migrate.disk_snapshot:
    provider: libvirt
    vm: web01
    name: before-upgrade
    state: absent

- name: A snapshot with memory, and at most three of them
  vmferry.migrate.disk_snapshot:
    provider: libvirt
    vm: web01
    name: "nightly-{date}"
    memory: true
    keep: 3

- name: Make a snapshot on vSphere, with the connection of the environment
  vmferry.migrate.disk_snapshot:
    provider: vsphere
    vm: /DC0/vm/Prod/web01
    name: before-upgrade

- name: Merge all that this collection made
  vmferry.migrate.disk_snapshot:
    provider: libvirt
    vm: web01
    state: consolidated
    timeout: 2h
"""

RETURN = r"""
snapshot:
  description: The snapshot that was made, found or gone back to; null with other states.
  returned: success, not in check mode
  type: dict
  contains:
    name:
      description: >-
        The name of the snapshot.
      returned: success, not in check mode
      type: str
      sample: before-upgrade
    created:
      description: >-
        When it was taken, in UTC.
      returned: success, not in check mode
      type: str
      sample: '2026-11-21T06:30:00Z'
    description:
      description: >-
        Its description, without the line that marks snapshots of this collection.
      returned: success, not in check mode
      type: str
    current:
      description: >-
        Whether the VM stands on it directly.
      returned: success, not in check mode
      type: bool
      sample: true
    parent:
      description: >-
        The name of the snapshot before it, or an empty string.
      returned: success, not in check mode
      type: str
    children:
      description: >-
        The names of the snapshots right after it.
      returned: success, not in check mode
      type: list
      elements: str
    power_state:
      description: >-
        The power state of the VM at that moment.
      returned: success, not in check mode
      type: str
      sample: powered_on
    memory:
      description: >-
        Whether it holds the memory of the VM too.
      returned: success, not in check mode
      type: bool
      sample: false
    method:
      description: >-
        V(internal), V(external), on AWS V(ebs), on Proxmox VE V(storage), or an empty string where it holds no disk.
      returned: success, not in check mode
      type: str
      sample: external
    ours:
      description: >-
        Whether this collection made it, for this VM.
      returned: success, not in check mode
      type: bool
      sample: true
    job:
      description: >-
        The job that made it; empty if it is not ours.
      returned: success, not in check mode
      type: str
      sample: 3f1c9a2b7d1e4c589a510c3a0d5b6e77
    consistency:
      description: >-
        What its disks alone are, V(quiesced), V(crash_consistent) or V(powered_off); empty if it is not ours.
      returned: success, not in check mode
      type: str
      sample: quiesced
    whole:
      description: >-
        Whether it can be reverted to. Not so once its removal has begun; the same task run again goes on with it.
      returned: success, not in check mode
      type: bool
      sample: true
    disks:
      description: What it holds of each disk.
      returned: success, not in check mode
      type: list
      elements: dict
      contains:
        name:
          description: >-
            The provider's name of the disk.
          returned: success, not in check mode
          type: str
          sample: vda
        image:
          description: >-
            The image that holds the disk as it was.
          returned: success, not in check mode
          type: str
          sample: /var/lib/libvirt/images/web01.qcow2
        overlay:
          description: >-
            The image that takes what was written since; empty for an internal snapshot, where it is the same one.
          returned: success, not in check mode
          type: str
          sample: /var/lib/libvirt/images/web01.qcow2.vmferry-7d1e4c58
removed:
  description: The names of the snapshots that were removed, in that order.
  returned: success, not in check mode
  type: list
  elements: str
  sample:
    - vmferry-20261118T063000Z
snapshots:
  description: All snapshots of the VM afterwards, the oldest first, each as RV(snapshot).
  returned: success, not in check mode
  type: list
  elements: dict
job:
  description: The job.
  returned: success, not in check mode
  type: dict
  contains:
    id:
      description: The id that the mark of a new snapshot carries.
      returned: success, not in check mode
      type: str
      sample: 3f1c9a2b7d1e4c589a510c3a0d5b6e77
findings:
  description: What stands in the way, or will be different from what might be expected.
  returned: check mode
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) if the task would fail, else V(warning) or V(info).
      returned: check mode
      type: str
      sample: warning
    message:
      description: What was found.
      returned: check mode
      type: str
    hint:
      description: What to do about it.
      returned: check mode
      type: str
    kind:
      description: The kind of the error that it would be.
      returned: check mode
      type: str
      sample: no_space
plan:
  description: What the task would do.
  returned: check mode
  type: dict
  contains:
    create:
      description: The name of the snapshot that it would make, or an empty string.
      returned: check mode
      type: str
      sample: before-upgrade
    method:
      description: How, or an empty string.
      returned: check mode
      type: str
      sample: external
    remove:
      description: The names of those that it would remove, in that order.
      returned: check mode
      type: list
      elements: str
    revert:
      description: The name of the one that it would go back to, or an empty string.
      returned: check mode
      type: str
    consolidate:
      description: Whether it would merge delta disks that no snapshot stands for any more.
      returned: check mode
      type: bool
      sample: false
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
    invalid,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    hypervisor_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_provider_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import count, duration, vm_name
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import SnapshotRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["present", "absent", "reverted", "consolidated"],
                "default": "present",
            },
            "name": {"type": "str"},
            "quiesce": {"type": "str", "choices": ["auto", "required", "never"], "default": "auto"},
            "memory": {"type": "bool", "default": False},
            "method": {"type": "str", "choices": ["auto", "internal", "external"], "default": "auto"},
            "keep": {"type": "int"},
            "timeout": {"type": "str", "default": "10m"},
        },
    )
    return own.merge(hypervisor_arguments())


def bring_about(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = SnapshotRequest(
        provider=provider_spec(arguments),
        vm=vm_name("vm", arguments["vm"]),
        state=arguments["state"],
        name=_name(arguments),
        quiesce=arguments["quiesce"],
        memory=arguments["memory"],
        method=arguments["method"],
        keep=_keep(arguments),
        timeout=duration("timeout", arguments["timeout"]),
    )
    require_provider_sdk(request.provider)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.manage_snapshots import manage_snapshots

    return manage_snapshots(request, check_mode)


def _name(arguments: TaskArguments) -> str:
    name, state = arguments["name"], arguments["state"]
    if name == "":
        raise invalid("name is empty.", "Leave it out, or give the snapshot's name.")
    if name is None and state == "reverted":
        raise invalid("state: reverted needs a name.", "List the snapshots with vmferry.migrate.disk_snapshot_info.")
    if name is not None and state == "consolidated":
        raise invalid("name is not used with state: consolidated.", "Remove one snapshot with state: absent.")
    return name or ""


def _keep(arguments: TaskArguments) -> int | None:
    keep, state = arguments["keep"], arguments["state"]
    if keep is None:
        return None
    if state in ("reverted", "consolidated") or (state == "absent" and arguments["name"]):
        raise invalid(f"keep says nothing about state: {state} here.", "Use it with present, or absent without name.")
    return count("keep", keep, 1 if state == "present" else 0)


def main() -> None:
    run(argument_spec(), bring_about)


if __name__ == "__main__":
    main()
