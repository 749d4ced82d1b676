#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_info
short_description: Describe VMs in the same words for every provider
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Returns the hardware, disks, networks, snapshots and power state of one VM, of several, or of all.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.info_module
  - vmferry.migrate._attributes.actiongroup_any
  - vmferry.migrate._provider.any
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
  - vmferry.migrate._image
options:
  vm:
    description:
      - The VMs, each by name or by UUID. Each of them must exist. If not given, all VMs.
      - On vSphere, also by its path in the inventory, such as V(/DC0/vm/Prod/web01), or by its MoRef, such as V(vm-42).
        A name that several VMs have is refused, with their paths.
      - On AWS, by the id of the instance or by its tag C(Name). A name that several instances have is refused, with
        their ids. Those that are terminated are not there.
      - On Proxmox VE, by its vmid or its name, also behind the name of its node, as in V(pve2/web01). A name that
        several VMs have is refused, with their vmids.
      - Of O(provider=image), also by the path of a file or folder below O(image.url), or by a pattern of images such as
        V(web01-*.vmdk), which are the disks of one VM then.
    type: list
    elements: str
  filters:
    description:
      - Which VMs to return. A VM must fit all that are given.
    type: dict
    suboptions:
      name:
        description:
          - A pattern for the name, in which V(*) stands for anything, V(?) for one character and V([abc]) for one of
            these. Upper and lower case differ.
        type: str
      power_state:
        description:
          - The power state, as RV(vms[].power_state) tells it.
        type: str
        choices:
          - powered_on
          - powered_off
          - paused
          - suspended
          - crashed
          - unknown
      folder:
        description:
          - A pattern for the folder of the provider's inventory that the VM lies in, as for O(filters.name). V(*) also
            stands for what lies deeper.
          - On vSphere it begins with the datacenter, as in V(/DC0/vm/Prod*).
          - libvirt, AWS and O(provider=image) have no folders, so the module fails with V(unsupported) there.
        type: str
      tag:
        description:
          - A tag that the VM has.
          - libvirt knows no tags, so there they are the words that users keep in the VM's metadata, as
            C(virsh metadata web01 urn:vmferry:tags:1 --key vmferry --set '<tags><tag>prod</tag></tags>' --config)
            sets them. Add C(--live) for a VM that runs.
          - On AWS, V(key=value), or V(key) for one whose value is empty.
          - The tags of vSphere are not read yet, so the module fails with V(unsupported) there.
        type: str
seealso:
  - module: vmferry.migrate.vm_export
"""

EXAMPLES = r"""
- name: Describe one VM
  vmferry.migrate.vm_info:
    provider: libvirt
    vm: web01
  register: web01

- name: Find the running web servers
  vmferry.migrate.vm_info:
    provider: libvirt
    filters:
      name: web*
      power_state: powered_on
  register: found

- name: Find the running VMs of a folder of vSphere
  vmferry.migrate.vm_info:
    provider: vsphere
    vsphere:
      hostname: vcenter.example.com
      username: backup@vsphere.local
      password: "{{ vault_vcenter_password }}"
      ca_path: /etc/pki/vcenter.pem
    filters:
      folder: /DC0/vm/Prod*
      power_state: powered_on

- name: Find the running instances of AWS that are tagged so
  vmferry.migrate.vm_info:
    provider: aws
    aws:
      region: eu-central-1
      profile: production
    filters:
      tag: env=prod
      power_state: powered_on

- name: Find what is tagged prod
  vmferry.migrate.vm_info:
    provider: libvirt
    filters:
      tag: prod

- name: Describe an appliance in a bucket, and the disk images beside it
  vmferry.migrate.vm_info:
    provider: image
    image:
      url: s3://appliances/web

- name: Export the web servers
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: "{{ item.id }}"
    url: file:///srv/exports
    max_age: 12h
  loop: "{{ found.vms }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
vms:
  description: The VMs, by name.
  returned: success
  type: list
  elements: dict
  contains:
    provider:
      description: The provider that has the VM.
      returned: success
      type: str
      sample: libvirt
    id:
      description: >-
        The provider's own id; for libvirt a UUID, for vSphere the one that vCenter gave it (C(instanceUuid)), and for
        AWS that of the instance, and for Proxmox VE the vmid. Of
        files, a UUID that is made of where they are, and stays the same as long as they stay there. Files on a path are
        of their host, or of the file server that it mounts.
      returned: success
      type: str
      sample: 1f0c9a2b-7d1e-4c58-9a51-0c3a0d5b6e77
    name:
      description: The name of the VM.
      returned: success
      type: str
      sample: web01
    path:
      description: >-
        Where the VM lies in the provider's inventory; on vSphere from the datacenter on, with C(%2f) for a slash in a
        name; on AWS the region and the id. Of files, their path below O(image.url); that of a folder ends in a slash.
      returned: success
      type: str
      sample: web01
    power_state:
      description: >-
        One of V(powered_on), V(powered_off), V(paused), V(suspended), V(crashed) and V(unknown), as it is on vSphere
        where vCenter does not reach the host. On AWS, an instance that starts or stops is V(powered_on), and one that
        is hibernated V(suspended).
      returned: success
      type: str
      sample: powered_on
    cpu:
      description: How many virtual CPUs it has.
      returned: success
      type: int
      sample: 2
    memory_mb:
      description: Its memory, in MiB.
      returned: success
      type: int
      sample: 4096
    storage_bytes:
      description: The sizes of all disks added up, in bytes.
      returned: success
      type: int
      sample: 6442450944
    firmware:
      description: One of V(bios), V(uefi) and V(unknown).
      returned: success
      type: str
      sample: uefi
    secure_boot:
      description: Whether secure boot is on.
      returned: success
      type: bool
      sample: false
    tpm:
      description: Whether it has a TPM.
      returned: success
      type: bool
      sample: false
    architecture:
      description: The architecture of its CPU.
      returned: success
      type: str
      sample: x86_64
    machine:
      description: The kind of machine it is, in the provider's words.
      returned: success
      type: str
      sample: q35
    guest_os:
      description: The operating system of the guest, as far as the provider knows it.
      returned: success
      type: str
    guest_agent:
      description: Whether the guest agent is connected right now.
      returned: success
      type: bool
      sample: true
    tags:
      description: Its tags; on libvirt those in its metadata, on AWS C(key=value), or C(key) where the value is empty.
      returned: success
      type: list
      elements: str
    host:
      description: The host it is on; on AWS only one that is dedicated.
      returned: success
      type: str
      sample: kvm3
    details:
      description: >-
        Facts that only this provider has. An appliance's C(appliance) holds what no provider has words for, such as its
        EULAs, products and properties; those that are passwords have no value. Of files, C(image.files) are their
        addresses, C(image.assumed) names what they do not say, and C(image.problem) why one of several VMs cannot be
        read. On vSphere among others C(moref), C(folder), C(datacenter), C(cluster), C(resource_pool),
        C(hardware_version), C(tools), C(encrypted), C(change_tracking), C(consolidation_needed), C(template) and
        C(connection_state). On AWS among others C(instance_type), C(image_id), C(state), C(boot_mode),
        C(current_boot_mode), C(ena), C(hypervisor), C(platform), C(root_device), C(instance_store_gb),
        C(availability_zone), C(vpc), C(subnet), C(security_groups), C(auto_scaling_group), and C(tags) as a dictionary.
        On Proxmox VE among others C(node), C(reachable), C(pool), C(lock), C(template), C(uuid), C(agent_enabled),
        C(agent_freezes), C(efi_disk), C(tpm_state), C(cloud_init), C(unused_volumes), C(scsi_controller), C(os_type),
        C(ha) and C(protected).
      returned: success
      type: dict
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
        allocated:
          description: The bytes it takes on the provider, if that is known.
          returned: success
          type: int
          sample: 1073741824
        format:
          description: The format of what the provider stores.
          returned: success
          type: str
          sample: qcow2
        bus:
          description: The bus it is on.
          returned: success
          type: str
          sample: virtio
        source:
          description: The path, volume or id on the provider.
          returned: success
          type: str
          sample: /var/lib/libvirt/images/web01.qcow2
        storage:
          description: The pool or the datastore it is in, on AWS the type of the volume, or an empty string.
          returned: success
          type: str
          sample: default
        boot:
          description: Whether the VM boots from it.
          returned: success
          type: bool
          sample: true
        change_tracking:
          description: Whether the provider keeps track of what changes on it.
          returned: success
          type: bool
          sample: false
        read_only:
          description: Whether the guest cannot write to it.
          returned: success
          type: bool
          sample: false
        serial:
          description: Its serial number, or an empty string.
          returned: success
          type: str
        details:
          description: >-
            Facts that only this provider has. On vSphere C(key), C(label), C(controller), C(backing), C(mode),
            C(datastore_kind), C(thin), C(rdm_mode), C(shared), C(encrypted) and C(in_snapshots); and where O(vm) names
            ten VMs at the most, C(export_methods), the ways in which it can be read, the best first: V(nbd),
            V(datastore) and V(lease), each V(works) or V(possible), which is found out when its snapshot is there. Of
            an appliance, C(controller_model), where its descriptor names one. On AWS C(encrypted), C(kms_key),
            C(volume_type), C(iops), C(throughput), C(delete_on_termination), C(multi_attach), C(attached_to), C(state)
            and C(made_of_snapshot). On Proxmox VE C(owner), the vmid that it goes with, C(in_backups), C(shared),
            C(stands_on) and C(options).
          returned: success
          type: dict
    nics:
      description: The network cards.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: Our id of the card.
          returned: success
          type: str
          sample: nic-0
        mac:
          description: Its MAC address.
          returned: success
          type: str
          sample: 52:54:00:12:34:56
        network:
          description: The network it is connected to.
          returned: success
          type: str
          sample: default
        model:
          description: What the guest sees.
          returned: success
          type: str
          sample: virtio
        kind:
          description: How it is connected, in the provider's words.
          returned: success
          type: str
          sample: network
    snapshots:
      description: The snapshots; on AWS those that M(vmferry.migrate.disk_snapshot) made.
      returned: success
      type: list
      elements: dict
      contains:
        name:
          description: The name of the snapshot.
          returned: success
          type: str
          sample: before-upgrade
        created:
          description: When it was taken, in UTC.
          returned: success
          type: str
          sample: '2026-11-21T06:30:00Z'
        description:
          description: Its description.
          returned: success
          type: str
        current:
          description: Whether the VM runs on it.
          returned: success
          type: bool
          sample: true
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

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.argspec import (
    ArgumentSpec,
    TaskArguments,
    without_unset,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    any_provider_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import require_provider_sdk
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import vm_name

POWER_STATES = ("powered_on", "powered_off", "paused", "suspended", "crashed", "unknown")


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "list", "elements": "str"},
            "filters": {
                "type": "dict",
                "options": {
                    "name": {"type": "str"},
                    "power_state": {"type": "str", "choices": list(POWER_STATES)},
                    "folder": {"type": "str"},
                    "tag": {"type": "str"},
                },
            },
        }
    )
    return own.merge(any_provider_arguments())


def describe(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    provider = provider_spec(arguments)
    wanted = arguments["vm"] and [vm_name("vm", one) for one in arguments["vm"]]
    require_provider_sdk(provider)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms

    return describe_vms(provider, wanted, without_unset(arguments["filters"] or {}))


def main() -> None:
    run(argument_spec(), describe)


if __name__ == "__main__":
    main()
