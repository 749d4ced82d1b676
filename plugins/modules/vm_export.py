#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_export
short_description: Export a VM to a store while it runs
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Takes a point in time of a VM and writes its disks and its description to a store, without temporary files.
  - A running VM keeps running. All of its disks are of the same moment.
  - An export exists once its manifest is written, which is the last step. Whatever interrupts it before, nothing of it
    is ever taken for an export.
  - The images can be used without this collection; C(qemu-img) reads them as they are.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_libvirt_storage
  - vmferry.migrate._provider
  - vmferry.migrate._libvirt
  - vmferry.migrate._storage
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
    details:
      - Runs the whole preflight and returns all RV(findings) and the RV(plan).
      - Of a run that would fail, nothing counts as changed, and what would make it fail is also told by warnings.
      - Whether the store can be written is proved by a small object that is removed again.
  diff_mode:
    support: full
    details:
      - Shows the exports of the VM in the store, before and after.
  idempotent:
    support: partial
    details:
      - With O(name), or with O(max_age) while the newest export is younger than that, a second run changes nothing.
      - Without them, every run takes a new point in time.
  async:
    support: full
options:
  vm:
    description:
      - The VM, by name or by UUID.
    type: str
    required: true
  disks:
    description:
      - The disks to export, by the ids that M(vmferry.migrate.vm_info) shows, such as V(disk-0), or by the provider's
        own names, such as V(vda). If not given, all disks.
    type: list
    elements: str
  name:
    description:
      - A name for the export, unique among the exports of the VM in this store.
      - If an export of this name exists with the same disks, O(format) and O(consistency), nothing is done. If it
        exists with others, the module fails.
    type: str
  max_age:
    description:
      - Do nothing if the newest export of the VM in this store is younger than this, for example V(12h) or V(7d).
    type: str
  consistency:
    description:
      - How the point in time is taken.
      - V(quiesced) asks the guest agent to freeze the file systems and fails if it cannot.
      - V(crash_consistent) takes the disks as a power failure would leave them.
      - V(powered_off) needs the VM to be off.
      - V(auto) quiesces where the guest agent answers, and is crash consistent where it does not.
      - RV(export.consistency) says what was reached.
    type: str
    choices:
      - auto
      - quiesced
      - crash_consistent
      - powered_off
    default: auto
  format:
    description:
      - The format of the disk images. V(qcow2) leaves out what is empty; V(raw) is as large as the disk.
    type: str
    choices:
      - qcow2
      - raw
    default: qcow2
  verify:
    description:
      - How the export is checked before it is committed.
      - V(stored) has the store acknowledge the checksum of every part and the size of every object. In a V(file://)
        store the head and a sample of the parts are read again from the disk.
      - V(content) reads everything back and compares it with the digests of what was read from the VM.
      - V(none) relies on the transfer.
    type: str
    choices:
      - none
      - stored
      - content
    default: stored
  tags:
    description:
      - Words to find the export by, kept in its manifest.
    type: list
    elements: str
    default: []
  purpose:
    description:
      - What the export is for, for example V(backup) or V(migration), kept in its manifest.
    type: str
seealso:
  - module: vmferry.migrate.vm_import
  - module: vmferry.migrate.export_info
  - module: vmferry.migrate.job_info
"""

EXAMPLES = r"""
- name: Export a VM to a folder of the KVM host
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: file:///srv/exports

- name: Export every VM once a day, however often the play runs
  vmferry.migrate.vm_export:
    libvirt: "{{ kvm_connection }}"
    storage: "{{ s3_connection | combine({'region': 'eu-central-1'}) }}"
    vm: "{{ inventory_hostname }}"
    url: s3://backups/vms
    max_age: 20h
    bandwidth_limit: 50MiB/s
    tags: [daily]
    purpose: backup

- name: Export the boot disk before an upgrade, with the file systems frozen
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: db01
    disks: [disk-0]
    url: file:///srv/exports
    name: before-upgrade
    consistency: quiesced
    verify: content

- name: See what an export would take and what stands in its way
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: file:///srv/exports
  check_mode: true
  register: preflight

- name: Export for as long as it takes, without holding a connection
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: file:///srv/exports
    job_id: "{{ export_job_id }}"
  async: 86400
  poll: 0
"""

RETURN = r"""
export:
  description: The export, new or found.
  returned: success, outside check mode or when the export exists
  type: dict
  contains:
    id:
      description: The id of the export. Ids sort by time.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    chain_id:
      description: The id of the chain the export belongs to.
      returned: success
      type: str
      sample: 5e6f7a8b
    name:
      description: The name it was given, or an empty string.
      returned: success
      type: str
      sample: before-upgrade
    url:
      description: The folder of the export.
      returned: success
      type: str
      sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d
    manifest:
      description: The URL of its manifest.
      returned: success
      type: str
      sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/manifest.json
    mode:
      description: Whether it stands on its own.
      returned: success
      type: str
      sample: full
    parent:
      description: The id of the export it stands on, if any.
      returned: success
      type: str
    reason:
      description: Why the mode was chosen.
      returned: success
      type: str
    consistency:
      description: How the point in time was taken.
      returned: success
      type: str
      sample: quiesced
    format:
      description: The format of the disk images.
      returned: success
      type: str
      sample: qcow2
    tags:
      description: The tags it was given.
      returned: success
      type: list
      elements: str
      sample: [daily]
    purpose:
      description: The purpose it was given, or an empty string.
      returned: success
      type: str
      sample: backup
    verified:
      description: How it was checked before it was committed.
      returned: success
      type: str
      sample: stored
    taken_at:
      description: The point in time, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    created_at:
      description: When the export was committed, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:42:10Z'
    vm:
      description: The VM that was exported.
      returned: success
      type: dict
      contains:
        id:
          description: The provider's own id of the VM.
          returned: success
          type: str
          sample: 1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77
        name:
          description: The name of the VM at that time.
          returned: success
          type: str
          sample: web01
        provider:
          description: The provider that had the VM.
          returned: success
          type: str
          sample: libvirt
    disks:
      description: The disks, the boot disk first.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: Our id of the disk.
          returned: success
          type: str
          sample: disk-0
        name:
          description: The provider's name of the disk.
          returned: success
          type: str
          sample: vda
        size:
          description: The size of the disk as the guest sees it, in bytes.
          returned: success
          type: int
          sample: 6442450944
        bytes_read:
          description: Bytes read from the VM.
          returned: success
          type: int
          sample: 1073741824
        bytes_stored:
          description: The size of the image in the store, in bytes.
          returned: success
          type: int
          sample: 1074135040
        bytes_changed:
          description: Bytes that differ from the parent; for a full export, all that is not empty.
          returned: success
          type: int
          sample: 1073741824
        bytes_saved:
          description: What did not have to be stored, in bytes.
          returned: success
          type: int
          sample: 5368315904
        digest_root:
          description: The digest of the guest's data, independent of the format.
          returned: success
          type: str
        url:
          description: The URL of the image.
          returned: success
          type: str
          sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/disk-0.qcow2
        duration:
          description: How long the disk took, in seconds.
          returned: success
          type: float
          sample: 9.4
        rate:
          description: Bytes read per second.
          returned: success
          type: int
          sample: 114227853
    duration:
      description: How long the export took, in seconds.
      returned: success
      type: float
      sample: 11.2
    rate:
      description: Bytes read per second.
      returned: success
      type: int
      sample: 95869805
    structure:
      description: The ids of the exports a restore reads, the full one first.
      returned: success
      type: list
      elements: str
      sample: [20261121T063000Z-1a2b3c4d]
    warnings:
      description: What the export met that is worth knowing and did not stop it.
      returned: success
      type: list
      elements: str
job:
  description: The transfer. Its record can be read with M(vmferry.migrate.job_info).
  returned: outside check mode, also on failure once the job has begun
  type: dict
  contains:
    id:
      description: The id of the job.
      returned: success
      type: str
    record:
      description: The file with its progress, on the host that runs the module.
      returned: success
      type: str
    state_dir:
      description: The folder with the records of jobs.
      returned: success
      type: str
      sample: /var/lib/vmferry
findings:
  description: Everything the preflight found, all at once.
  returned: check mode
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) would stop the run, V(warning) would weaken its result, V(info) is worth knowing.
      returned: success
      type: str
      sample: error
    message:
      description: What was found.
      returned: success
      type: str
    hint:
      description: What to do about it.
      returned: success
      type: str
    kind:
      description: For V(error), the kind of the failure it would be, as in RV(error.kind).
      returned: success
      type: str
      sample: no_space
plan:
  description: What a run would do.
  returned: check mode
  type: dict
  contains:
    mode:
      description: Whether the export would stand on its own.
      returned: success
      type: str
      sample: full
    reason:
      description: Why.
      returned: success
      type: str
    bytes_to_read:
      description: At most so many bytes would be read from the VM.
      returned: success
      type: int
    bytes_to_send:
      description: At most so many bytes would be sent to the store.
      returned: success
      type: int
    bytes_saved:
      description: At least so many bytes would not be sent because they are empty.
      returned: success
      type: int
    disks:
      description: The disks that would be exported.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: Our id of the disk.
          returned: success
          type: str
          sample: disk-0
        name:
          description: The provider's name of the disk.
          returned: success
          type: str
          sample: vda
        size:
          description: The size of the disk as the guest sees it, in bytes.
          returned: success
          type: int
        bytes_to_read:
          description: At most so many bytes of it would be read.
          returned: success
          type: int
diff:
  description: The exports of the VM in the store.
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
    provider_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import (
    require_provider_sdk,
    require_store_sdk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import (
    transfer_arguments,
    transfer_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import label, optional_duration
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import ExportRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "str", "required": True},
            "disks": {"type": "list", "elements": "str"},
            "name": {"type": "str"},
            "max_age": {"type": "str"},
            "consistency": {
                "type": "str",
                "choices": ["auto", "quiesced", "crash_consistent", "powered_off"],
                "default": "auto",
            },
            "format": {"type": "str", "choices": ["qcow2", "raw"], "default": "qcow2"},
            "verify": {"type": "str", "choices": ["none", "stored", "content"], "default": "stored"},
            "tags": {"type": "list", "elements": "str", "default": []},
            "purpose": {"type": "str"},
        }
    )
    return own.merge(provider_arguments(), storage_arguments(), transfer_arguments())


def export_request(arguments: TaskArguments) -> ExportRequest:
    disks = arguments["disks"]
    return ExportRequest(
        provider=provider_spec(arguments),
        store=store_spec(arguments),
        vm=arguments["vm"],
        disks=None if disks is None else tuple(disks),
        name=label("name", arguments["name"]),
        max_age=optional_duration("max_age", arguments["max_age"]),
        consistency=arguments["consistency"],
        format=arguments["format"],
        verify=arguments["verify"],
        tags=tuple(label("tags", tag) for tag in arguments["tags"]),
        purpose=label("purpose", arguments["purpose"]),
        transfer=transfer_options(arguments),
    )


def export(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = export_request(arguments)
    require_provider_sdk(request.provider)
    require_store_sdk(request.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm

    return export_vm(request, check_mode)


def main() -> None:
    run(argument_spec(), export)


if __name__ == "__main__":
    main()
