#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_migrate
short_description: Move a VM from one provider to another
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Makes a VM at the O(destination) of a point in time of a VM at the O(source). Its disks are read at one end and
    written at the other as one stream, with no store between, and without temporary files.
  - The host that runs the module has to reach both ends.
  - New disks at libvirt are read back and compared with what was read, block by block, before there is a VM. See
    O(verify), also for what is done about files.
  - The source stays as it is, on or off, also where the module fails. What it writes after the point in time is not in
    the new VM; to lose nothing, shut it down first, and ask for O(consistency=powered_off).
  - A failed or cancelled migration leaves nothing at either end, and the next run begins anew. Where that would take
    too long, or where no host reaches both ends, export the VM with M(vmferry.migrate.vm_export), which can be gone on
    with, and import it with M(vmferry.migrate.vm_import). See
    U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/migration.md).
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_all
  - vmferry.migrate._two_providers
  - vmferry.migrate._placement
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
    details:
      - Runs the whole preflight of both ends and returns all RV(findings) and the RV(plan).
      - Of a run that would fail, nothing counts as changed, and what would make it fail is also told by warnings.
  diff_mode:
    support: full
    details:
      - Shows the new VM and the one it is made of, before and after.
  idempotent:
    support: full
    details:
      - A VM of that name that was made of the same VM is left as it is, whatever happened to either since, and whatever
        disks it has. To migrate again, remove it, or give another O(name).
      - Files of O(source.provider=image) are the same VM for as long as they lie in the same place.
  async:
    support: full
options:
  vm:
    description:
      - The VM to migrate, by its name or by its UUID, on vSphere also by its path or MoRef, or as
        O(vmferry.migrate.vm_export#module:vm) where its provider is V(image).
    type: str
    required: true
  name:
    description:
      - The name of the new VM. If not given, that of the old one, which is taken already where both are at the same
        hypervisor.
    type: str
  disks:
    description:
      - The disks to migrate, by the ids that M(vmferry.migrate.vm_info) shows, such as V(disk-0), or by the provider's
        own names, such as V(vda), or by what they are of, such as a volume of AWS, V(vol-0123456789abcdef0). If not
        given, all disks.
    type: list
    elements: str
  consistency:
    description:
      - How the point in time is taken, as in O(vmferry.migrate.vm_export#module:consistency).
      - RV(migration.consistency) says what was reached.
    type: str
    choices:
      - auto
      - quiesced
      - crash_consistent
      - powered_off
    default: auto
  verify:
    description:
      - V(content) reads back what was written, from the storage and not from memory, and compares it with what was read
        at the source. No digests of it stay anywhere else, and the source may be deleted next.
      - V(none) relies on the storage. That saves the time to read what was written.
      - If not given, V(content) where the O(destination) can read back what it has not made a VM of yet, which libvirt
        can, and else V(none). On vSphere it cannot be done, so that V(content) is V(unsupported) there.
      - With V(image), images such as V(qcow2) are always read back once, and compared with what was sent, as
        M(vmferry.migrate.vm_import) does. An OVA, V(ovf) and V(vmdk) are not, and their checksums are of what was sent.
    type: str
    choices:
      - none
      - content
notes:
  - There is no store between, so O(bandwidth_limit) counts what is read of the disks at the source, and what is read
    back.
  - Both ends count for O(max_jobs), which is of each. It takes one slot where both are the same hypervisor.
seealso:
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.vm_import
  - module: vmferry.migrate.vm_info
  - module: vmferry.migrate.job_info
"""

EXAMPLES = r"""
- name: Make a VM of an OVA
  vmferry.migrate.vm_migrate:
    source:
      provider: image
      image:
        url: file:///srv/appliances
    destination:
      provider: libvirt
    vm: web.ova
    name: web
    network_map:
      VM Network: default
    placement:
      power_on: true

- name: Make a VM on vSphere of an image, with the connection of the environment
  vmferry.migrate.vm_migrate:
    source:
      image:
        url: file:///srv/images
    destination:
      provider: vsphere
    vm: web.qcow2
    name: web
    hardware:
      networks: [VM Network]
    placement:
      cluster: C1
      storage: fast

- name: Copy a VM that runs, with the file systems at rest
  vmferry.migrate.vm_migrate:
    source: {provider: libvirt}
    destination: {provider: libvirt}
    vm: db01
    name: db01-rehearsal
    consistency: quiesced
    network_map:
      production: isolated
    placement:
      storage: slow
    bandwidth_limit: 50MiB/s

- name: See what stands in the way
  vmferry.migrate.vm_migrate:
    source:
      libvirt:
        uri: qemu:///session
    destination:
      libvirt:
        uri: qemu:///system
    vm: lab
    placement:
      storage: fast
      disk_bus: scsi
  check_mode: true

- name: Make an OVA of a VM that is off
  vmferry.migrate.vm_migrate:
    source:
      provider: libvirt
    destination:
      image:
        url: file:///srv/appliances
    vm: web01
    consistency: powered_off
    placement:
      disk_format: ova

- name: Make a VM of the images in a bucket
  vmferry.migrate.vm_migrate:
    source:
      image:
        url: s3://images/vms
        storage: "{{ s3_connection }}"
    destination:
      provider: libvirt
    vm: db
    hardware:
      cpu: 4
      memory: 8GiB
      networks: [production]
"""

RETURN = r"""
vm:
  description: The new VM, with the keys of RV(vmferry.migrate.vm_info#module:vms).
  returned: success, outside check mode or when the VM exists
  type: dict
  sample:
    id: 6f1d2c0e-43a5-4d6d-8a06-0e6a4d7c1b52
    name: web
    power_state: powered_off
source:
  description: The VM that it is made of.
  returned: success, outside check mode or when the new VM exists
  type: dict
  contains:
    provider:
      description: The provider that has it.
      returned: success
      type: str
      sample: libvirt
    id:
      description: Its id there.
      returned: success
      type: str
      sample: 1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77
    name:
      description: Its name there.
      returned: success
      type: str
      sample: db01
    power_state:
      description: Whether it ran when the module looked, in the words of RV(vmferry.migrate.vm_info#module:vms).
      returned: success
      type: str
      sample: powered_on
migration:
  description: What was moved, and how.
  returned: where this run made the VM
  type: dict
  contains:
    consistency:
      description: How the point in time was taken, V(quiesced), V(crash_consistent) or V(powered_off).
      returned: success
      type: str
      sample: quiesced
    taken_at:
      description: The point in time, in UTC.
      returned: success
      type: str
      sample: '2026-11-21T06:30:00Z'
    verified:
      description: How it was checked before the VM was made, V(content) or V(none).
      returned: success
      type: str
      sample: content
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
          description: The source's name of the disk.
          returned: success
          type: str
          sample: vda
        size:
          description: The size of the disk as the guest sees it, in bytes.
          returned: success
          type: int
          sample: 6442450944
        bytes_read:
          description: Bytes read at the source. What it knows to be zeros is not read.
          returned: success
          type: int
          sample: 1073741824
        bytes_written:
          description: Bytes written at the destination. Zeros are not written to a new disk.
          returned: success
          type: int
          sample: 1073610752
        digest_root:
          description:
            - The digest of the guest's data, which an export of the same data has, too. An empty string with
              O(verify=none), but where files were written.
          returned: success
          type: str
    duration:
      description: How long it took, in seconds, without what it waited for a slot.
      returned: success
      type: float
      sample: 11.2
    rate:
      description: Bytes read at the source each second of that duration.
      returned: success
      type: int
      sample: 95869805
job:
  description:
    - The transfer. Its record can be read with M(vmferry.migrate.job_info). In check mode there is none, and only
      C(vm), C(kind) and C(url) say what was looked at.
  returned: always, also on failure once the job has begun
  type: dict
  contains:
    id:
      description: The id of the job.
      returned: outside check mode
      type: str
    vm:
      description: The VM, as the task calls it at its source.
      returned: success
      type: str
      sample: web01
    kind:
      description: V(migrate).
      returned: success
      type: str
      sample: migrate
    url:
      description:
        - Where the files of O(destination.image.url) go, without what a URL may hold of secrets. Else an empty string.
      returned: success
      type: str
    record:
      description: The file with its progress, on the host that runs the module.
      returned: outside check mode
      type: str
    state_dir:
      description: The folder with the records of jobs.
      returned: outside check mode
      type: str
      sample: /var/lib/vmferry
    phase:
      description: What it did last, or how it ended.
      returned: outside async and check mode
      type: str
      sample: ready
    state:
      description: How it ended, V(ready), V(failed) or V(cancelled); or V(running) where that could not be seen.
      returned: outside async and check mode
      type: str
      sample: ready
    duration:
      description: Seconds from its start to its end.
      returned: outside async and check mode
      type: float
      sample: 11.6
    bytes_read:
      description: Bytes read at the source.
      returned: outside async and check mode
      type: int
      sample: 1073741824
    bytes_sent:
      description: Bytes sent to the new disks.
      returned: outside async and check mode
      type: int
      sample: 1074135040
    average_rate:
      description:
        - Bytes of the disks that were done each second, from the start of the job to its end, with its waits.
      returned: outside async and check mode
      type: int
      sample: 95869805
    retries:
      description: How often a request was tried again.
      returned: outside async and check mode
      type: int
      sample: 0
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
    bytes_to_read:
      description: At most so many bytes would be read at the source.
      returned: success
      type: int
    disks:
      description: The disks that would be made.
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
          description: The source's name of the disk.
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
  description: The new VM, and the one that it is made of.
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
      sample: transferring
    hint:
      description: What to do about it.
      returned: failure
      type: str
msg:
  description: One sentence that says what failed, and on which VM or disk.
  returned: failure
  type: str
"""

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import ArgumentSpec, TaskArguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.placement_options import (
    new_networks,
    placement,
    placement_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    provider_end,
    provider_ends_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_provider_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import (
    transfer_arguments,
    transfer_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import vm_name
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import MigrateRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "str", "required": True},
            "name": {"type": "str"},
            "disks": {"type": "list", "elements": "str"},
            "consistency": {
                "type": "str",
                "choices": ["auto", "quiesced", "crash_consistent", "powered_off"],
                "default": "auto",
            },
            "verify": {"type": "str", "choices": ["none", "content"]},
        }
    )
    return own.merge(provider_ends_arguments(), placement_arguments(), transfer_arguments())


def migrate_request(arguments: TaskArguments) -> MigrateRequest:
    disks, name = arguments["disks"], arguments["name"]
    return MigrateRequest(
        source=provider_end(arguments, "source"),
        destination=provider_end(arguments, "destination"),
        vm=vm_name("vm", arguments["vm"]),
        placement=placement(arguments, "" if name is None else vm_name("name", name)),
        disks=None if disks is None else tuple(disks),
        consistency=arguments["consistency"],
        verify=arguments["verify"],
        detach=tuple(arguments["detach"]),
        networks=new_networks(arguments),
        transfer=transfer_options(arguments),
    )


def migrate(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = migrate_request(arguments)
    require_provider_sdk(request.source)
    require_provider_sdk(request.destination)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm

    return migrate_vm(request, check_mode)


def main() -> None:
    run(argument_spec(), migrate)


if __name__ == "__main__":
    main()
