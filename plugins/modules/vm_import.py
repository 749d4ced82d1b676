#!/usr/bin/python
# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vm_import
short_description: Import a VM from a store
version_added: 0.1.0
author:
  - the vmferry.migrate authors (@vmferry)
description:
  - Makes a VM of an export, by reading the images out of the store as it writes the disks, without temporary files.
  - With O(provider=image), writes it as files, an OVA, an OVF or disk images with a descriptor, below O(image.url).
  - Every block is compared with the digest that was taken when it was read from the source.
  - A VM or a disk that exists and was not made by the same import is never touched.
  - Where O(url) ends in C(.ova), C(.ova.gz) or C(.ovf), it is an appliance that other tools packed, with its files in
    it or beside it. It is read where it lies, without being unpacked; its disks are inspected first, and nothing of
    them is used that was not compared with the checksums that it has, for which they are read twice.
  - Where O(url) ends in C(.vma), C(.vma.gz) or C(.vma.zst), it is an archive of Proxmox VE. It is read once, from its
    first byte to its last, and all of its disks are written as they come. Those that are packed with zstd need the
    Python package C(zstandard). With O(provider=image) or O(provider=vsphere), it must not be packed, and is read disk
    by disk.
  - Where O(url) ends in C(.qcow2), C(.vmdk), C(.vhd), C(.vpc), C(.vhdx), C(.avhdx), C(.vdi), C(.qed), C(.qcow),
    C(.raw), C(.img), C(.tar.gz) or C(.tgz), it is a disk image that other tools made. It is inspected first, and
    becomes the disk of a VM whose O(hardware) the task says. What format it has is told by its content.
  - Where O(url) is a folder with an Artifact Manifest 1.0 that another tool wrote, called C(manifest.json) or
    C(artifact-manifest.json), or such a manifest itself, ending in C(.json), the VM is made of the images beside it, as
    of an appliance. Which of its disks boots is found out where the manifest does not say so, with a warning.
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_any_storage
  - vmferry.migrate._provider.any
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
  - vmferry.migrate._image
  - vmferry.migrate._placement
  - vmferry.migrate._signing.trust
  - vmferry.migrate._encryption
  - vmferry.migrate._storage
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
attributes:
  check_mode:
    support: full
    details:
      - Runs the whole preflight and returns all RV(findings) and the RV(plan).
      - Of a run that would fail, nothing counts as changed, and what would make it fail is also told by warnings.
  diff_mode:
    support: full
    details:
      - Shows the VM and the export it is made of, before and after.
  idempotent:
    support: full
    details:
      - A VM that was made from the same export is left as it is, whatever happened to it since.
      - Without O(export), a newer export in the store is another one, and the module fails because the VM exists.
      - So is an appliance whose descriptor or checksums differ, and a disk image that was written to or replaced.
      - With O(provider=image), the same in another O(placement.disk_format) is a conflict.
      - With O(provider=aws), so is the same with another O(placement.stop_at) or O(placement.instance_type).
      - With O(provider=proxmox), so is the same with another O(placement.vmid) or O(placement.disk_format).
  async:
    support: full
options:
  state:
    description:
      - V(present) makes sure that the VM exists.
    type: str
    choices:
      - present
    default: present
  name:
    description:
      - The name of the VM to make.
      - With O(provider=image) also that of its files, so at most 60 letters, digits, dots, dashes and underscores.
    type: str
    required: true
  export:
    description:
      - The export, by its id or by its name. If not given, the newest.
      - O(url) may also be the folder of one VM or of one export.
      - Must not be given with an appliance or a disk image.
    type: str
  vm:
    description:
      - The VM that was exported, by its name or by its UUID.
      - May be left out when O(url) has the exports of only one VM.
      - Must not be given with an appliance or a disk image.
    type: str
  source_vm:
    description:
      - The VM as it is at its source, one of RV(vmferry.migrate.vm_info#module:vms).
      - In check mode, and as long as there is no such export, the preflight is about this VM. So a migration is looked
        at before anything is exported. Outside check mode it has no effect.
    type: dict
  method:
    description:
      - How the disks are written, with O(provider=aws). Other providers have one way, and refuse any other than
        V(auto).
      - V(direct) writes the blocks of snapshots by the EBS direct APIs, and V(auto) does so, too.
      - V(vendor_task) writes an image of each disk to O(staging), of which AWS makes a snapshot by a task of VM
        Import/Export. It is for credentials that may not write blocks. See
        U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/aws_import_tasks.md).
    type: str
    choices: [auto, direct, vendor_task]
    default: auto
  staging:
    description:
      - The bucket, and a prefix in it, that the images are written to with O(method=vendor_task), for example
        V(s3://staging-bucket/vm-imports). It is in the account and the region of the VM that is made.
    type: str
  task_role:
    description:
      - The name of the service role in which AWS reads O(staging).
    type: str
    default: vmimport
  poll_interval:
    description:
      - How often AWS is asked how far its tasks are.
    type: str
    default: 10s
  task_timeout:
    description:
      - How long the tasks of AWS may take, counted from when the last image is written. Those that take longer are
        cancelled, and the import fails.
    type: str
    default: 2h
  cleanup_staging:
    description:
      - Whether the images in O(staging) are removed once the import is made. With V(false) they stay, and a warning
        says where. An import that fails, or was killed, leaves none.
    type: bool
    default: true
seealso:
  - module: vmferry.migrate.vm_export
  - module: vmferry.migrate.export_info
  - module: vmferry.migrate.job_info
"""

EXAMPLES = r"""
- name: Import the newest export of the only VM in a folder
  vmferry.migrate.vm_import:
    provider: libvirt
    url: file:///srv/exports
    name: web01-restored

- name: Bring a VM back as it was, and start it
  vmferry.migrate.vm_import:
    provider: libvirt
    storage: "{{ s3_connection }}"
    url: s3://backups/vms
    vm: web01
    export: 20261121T063000Z-1a2b3c4d
    name: web01
    placement:
      keep_mac: true
      power_on: true

- name: Import only what one of two hosts signed
  vmferry.migrate.vm_import:
    provider: libvirt
    url: s3://backups/vms
    vm: web01
    name: web01
    trusted_keys: "{{ [hosts_public_key, old_hosts_public_key] }}"

- name: Import an encrypted export
  vmferry.migrate.vm_import:
    provider: libvirt
    url: s3://backups/vms
    vm: web01
    name: web01
    encryption:
      passphrase_command: [pass, show, backups/web01]

- name: Import into another pool and network
  vmferry.migrate.vm_import:
    provider: libvirt
    url: file:///srv/exports
    vm: db01
    export: before-upgrade
    name: db01-test
    placement:
      storage: fast
      disk_format: raw
      disk_bus: scsi
    network_map:
      production: isolated
    storage_map:
      disk-1: slow

- name: Make a VM on vSphere, with the connection of the environment
  vmferry.migrate.vm_import:
    provider: vsphere
    url: s3://backups/vms
    vm: web01
    name: web01-restored
    placement:
      cluster: C1
      storage: fast
      folder: /DC0/vm/Prod
    network_map:
      default: VM Network

- name: Make a VM of an appliance
  vmferry.migrate.vm_import:
    provider: libvirt
    url: file:///srv/appliances/web.ova
    name: web
    placement:
      disk_bus: sata
    network_map:
      VM Network: default

- name: Make an instance of AWS of the newest export, and start it
  vmferry.migrate.vm_import:
    provider: aws
    aws:
      region: eu-west-1
    url: s3://backups/vms
    vm: web01
    name: web01
    placement:
      subnet_id: subnet-0f1e2d3c
      security_groups: [web]
      power_on: true

- name: Make an AMI of a disk image, of which nothing runs yet
  vmferry.migrate.vm_import:
    provider: aws
    aws:
      region: eu-west-1
    url: file:///srv/images/web.qcow2
    name: web
    hardware:
      networks: []
    placement:
      stop_at: image
      firmware: uefi

- name: Make a VM of Proxmox VE of the newest export, in a VLAN
  vmferry.migrate.vm_import:
    provider: proxmox
    proxmox:
      api_host: pve1.example.com
      api_user: backup@pve
      api_token_id: automation
      api_token_secret: "{{ vault_pve_token }}"
    url: s3://backups/vms
    vm: web01
    name: web01
    placement:
      storage: local-lvm
      vmid: 120
      power_on: true
    network_map:
      production: vmbr0.20

- name: Make an instance of AWS of images that AWS itself reads in a bucket
  vmferry.migrate.vm_import:
    provider: aws
    aws:
      region: eu-west-1
    url: file:///srv/exports
    vm: web01
    name: web01
    method: vendor_task
    staging: s3://staging-bucket/vm-imports

- name: Make a VM of a disk of Hyper-V, with a qcow2 image as its disk
  vmferry.migrate.vm_import:
    provider: libvirt
    url: file:///srv/images/web.vhdx
    name: web
    hardware:
      cpu: 4
      memory: 8GiB
      networks: [production]
    placement:
      disk_format: qcow2

- name: Write an OVA of the newest export
  vmferry.migrate.vm_import:
    provider: image
    image:
      url: s3://handover
      storage: "{{ s3_connection }}"
    url: file:///srv/exports
    vm: web01
    name: web01
    placement:
      disk_format: ova

- name: Make a qcow2 image of a VHDX, in a folder with a descriptor
  vmferry.migrate.vm_import:
    provider: image
    image:
      url: file:///srv/vms
    url: file:///srv/images/web.vhdx
    name: web

- name: Make a VM on vSphere of the newest export
  vmferry.migrate.vm_import:
    provider: vsphere
    vsphere:
      hostname: vcenter.example.com
      username: backup@vsphere.local
      password: "{{ vault_vcenter_password }}"
    url: s3://backups/vms
    vm: web01
    name: web01
    placement:
      folder: /DC0/vm/Prod
      cluster: C1
      storage: fast
      power_on: true
    network_map:
      default: VM Network

- name: Make a VM of what hypersdk exported
  vmferry.migrate.vm_import:
    provider: libvirt
    url: file:///var/lib/hypersdk/exports/web
    name: web
    network_map:
      VM Network: default

- name: See what stands in the way of an import of a VM that is not exported yet
  vmferry.migrate.vm_import:
    provider: libvirt
    url: s3://staging/vms
    storage: "{{ s3_connection }}"
    vm: "{{ web01.vms[0].id }}"  # registered by vm_info on the other host
    name: web01
    source_vm: "{{ web01.vms[0] }}"
  check_mode: true
"""

RETURN = r"""
vm:
  description: The VM, with the keys of RV(vmferry.migrate.vm_info#module:vms).
  returned: success, outside check mode or when the VM exists
  type: dict
  sample:
    id: 6f1d2c0e-43a5-4d6d-8a06-0e6a4d7c1b52
    name: web01-restored
    power_state: powered_off
export:
  description: The export the VM was made of.
  returned: success, outside check mode or when the export exists, unless O(url) is what other tools packed
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
    fell_back:
      description: Why O(ignore:mode=auto) could not take an increment, or an empty string.
      returned: success
      type: str
      sample: there is no export to stand on
    change_token:
      description: By which the VM remembers this point in time, or an empty string.
      returned: success
      type: str
      sample: vmferry-5e6f7a8b-1a2b3c4d
    snapshot:
      description: The name of the snapshot that was exported, or an empty string where the VM itself was.
      returned: success
      type: str
      sample: before-upgrade
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
    compression:
      description: How clusters of the disk images are compressed.
      returned: success
      type: str
      sample: none
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
    checked_at:
      description:
        - When the VM was last seen to equal the export, because a later run found nothing changed, in UTC. An empty
          string if there was no such run.
      returned: success
      type: str
      sample: "2026-11-21T07:30:00Z"
    encryption:
      description: How its images are encrypted, V(luks) or V(none).
      returned: success
      type: str
      sample: none
    signature:
      description: >-
        V(none) where the manifest is not signed, V(unchecked) where it is and O(trusted_keys) is left out, V(valid)
        where one of the trusted keys signed it, or the passphrase of O(encryption).
      returned: success
      type: str
      sample: valid
    signed_by:
      description: The public keys that the manifest says it is signed with, in hexadecimal digits.
      returned: success
      type: list
      elements: str
      sample: [d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a]
    pinned:
      description: Whether M(vmferry.migrate.export_cleanup) leaves it alone, since an object C(pinned) lies beside it.
      returned: success
      type: bool
      sample: false
    pin_reason:
      description: What is written in that object, or an empty string.
      returned: success
      type: str
    last_verified:
      description: What M(vmferry.migrate.export_verify) last found when it looked at the export again.
      returned: success
      type: dict
      contains:
        at:
          description: When that was, in UTC. An empty string if it never was looked at again.
          returned: success
          type: str
          sample: "2026-11-22T03:00:00Z"
        level:
          description: How it was looked at, or an empty string.
          returned: success
          type: str
          sample: content
        passed:
          description:
            - Whether it passed. A failure stays until its level, or a higher one, passes.
          returned: success
          type: bool
          sample: true
        problems:
          description: How many problems were found.
          returned: success
          type: int
          sample: 0
        levels:
          description:
            - For each level, when it last passed, in UTC. An empty string where it did not, or not since the last
              failure.
          returned: success
          type: dict
          contains:
            manifest:
              description: When V(manifest) last passed.
              returned: success
              type: str
            stored:
              description: When V(stored) last passed.
              returned: success
              type: str
            content:
              description: When V(content) last passed.
              returned: success
              type: str
              sample: "2026-11-22T03:00:00Z"
            boot:
              description: When V(boot) last passed.
              returned: success
              type: str
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
        sent_as:
          description:
            - How the image was sent, V(parts) or V(stream), or V(joined_parts) where the store has no parts and they
              were joined by reading them back. Empty for an export that does not say.
          returned: success
          type: str
          sample: parts
        read_by:
          description:
            - How the disk was read, where the provider has several ways. On vSphere V(nbd), V(datastore) or V(lease).
          returned: success
          type: str
          sample: lease
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
        sha256:
          description:
            - The SHA-256 of the whole image, once M(vmferry.migrate.export_verify) has read all of it with
              O(ignore:level=stored); of an image in an OVA or an OVF, from the start. An empty string before.
          returned: success
          type: str
        offset:
          description:
            - Where in the object at its URL the image begins, in bytes. V(0) but in an OVA or a VMA. In a compressed
              OVA, where in what that unpacks to.
          returned: success
          type: int
          sample: 0
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
    files:
      description: What lies in the folder of the export, without its manifest.
      returned: success
      type: list
      elements: dict
      contains:
        path:
          description: The name of the file, below the folder of the export.
          returned: success
          type: str
          sample: web01.ova
        size:
          description: Its size in bytes.
          returned: success
          type: int
          sample: 1074135040
        sha256:
          description:
            - Its SHA-256. Of an image or an OVA it is known once M(vmferry.migrate.export_verify) has read all of it
              with O(ignore:level=stored), and of an image in an OVF from the start. An empty string before.
          returned: success
          type: str
        url:
          description: Its URL.
          returned: success
          type: str
          sample: s3://backups/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d/web01.ova
    duration:
      description: How long the export took, in seconds, without what it waited for a slot.
      returned: success
      type: float
      sample: 11.2
    rate:
      description: Bytes read from the VM each second of that duration. What is sent may be less.
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
appliance:
  description: The appliance, archive of Proxmox VE, or Artifact Manifest of another tool that the VM was made of.
  returned: success, outside check mode or when the VM exists, where O(url) is one
  type: dict
  contains:
    id:
      description: Of its content, as far as its descriptor and its checksums tell, or the header of an archive.
      returned: success
      type: str
      sample: appliance-5f0c9a2b4c1d7e8f90a1b2c3
    url:
      description: Where it lies.
      returned: success
      type: str
      sample: file:///srv/appliances/web.ova
    name:
      description: The name of the machine in it.
      returned: success
      type: str
      sample: web
    has_checksums:
      description: Whether its files were compared with checksums of its own, which no archive has. A signature of it is
        looked at by nobody.
      returned: success
      type: bool
    eulas:
      description: The licences that its author asks to be agreed to. Nobody was asked.
      returned: success
      type: list
      elements: str
image:
  description: The disk image the VM was made of.
  returned: success, outside check mode or when the VM exists, where O(url) is one
  type: dict
  contains:
    id:
      description: Of this very image. Another one as soon as it is written to.
      returned: success
      type: str
      sample: image-5f0c9a2b4c1d7e8f90a1b2c3
    url:
      description: Where it lies.
      returned: success
      type: str
      sample: file:///srv/images/web.vhdx
    format:
      description: What it was found to be, V(qcow2), V(qcow), V(qed), V(vdi), V(vmdk), V(vhd), V(vhdx), V(raw) or
        V(raw_tar_gz).
      returned: success
      type: str
      sample: vhdx
    size:
      description: The size of the disk as the guest sees it, in bytes.
      returned: success
      type: int
      sample: 6442450944
    files:
      description: The names of the files that it is in, the one of O(url) first.
      returned: success
      type: list
      elements: str
      sample: [web.vhdx]
resumed:
  description: That a run before this one had died over this VM. An import always begins anew.
  returned: when one had
  type: dict
  contains:
    export:
      description: An empty string, as nothing was gone on with.
      returned: always
      type: str
    bytes_kept:
      description: V(0).
      returned: always
      type: int
    bytes_sent:
      description: V(0).
      returned: always
      type: int
    reason:
      description: What became of what that run had made.
      returned: always
      type: str
      sample: Removed what a dead import job 3f1c9a2b (process 4711 on kvm01, for 12 s) had made of web01.
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
      description: The VM to be, by the name that the task gave it.
      returned: success
      type: str
      sample: web01
    kind:
      description: V(import).
      returned: success
      type: str
      sample: import
    url:
      description: The store, without what a URL may hold of secrets.
      returned: success
      type: str
      sample: s3://backups/vms
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
      description: Bytes read from the store.
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
    export:
      description: The id of the export that would be imported, or an empty string where it does not exist yet.
      returned: success
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    bytes_to_read:
      description: At most so many bytes would be read from the store.
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
        size:
          description: The size of the disk as the guest sees it, in bytes.
          returned: success
          type: int
        bytes_to_read:
          description: At most so many bytes of its image would be read.
          returned: success
          type: int
diff:
  description: The VM, and the export, appliance or image it was made of.
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
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.encryption_options import (
    encryption_arguments,
    with_passphrase,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.method_options import (
    method_arguments,
    vendor_task,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.placement_options import (
    new_networks,
    placement,
    placement_arguments,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.provider_options import (
    any_provider_arguments,
    provider_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.run import run
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.sdk import (
    require_provider_sdk,
    require_store_sdk,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.signing_options import trust, trust_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import (
    transfer_arguments,
    transfer_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import vm_name
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ImportRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "state": {"type": "str", "choices": ["present"], "default": "present"},
            "name": {"type": "str", "required": True},
            "export": {"type": "str"},
            "vm": {"type": "str"},
            "source_vm": {"type": "dict"},
        }
    )
    common = (any_provider_arguments(), placement_arguments(), storage_arguments(), transfer_arguments())
    return own.merge(*common, method_arguments(), trust_arguments(), encryption_arguments())


def import_request(arguments: TaskArguments) -> ImportRequest:
    return ImportRequest(
        provider=provider_spec(arguments),
        store=store_spec(arguments),
        placement=placement(arguments, vm_name("name", arguments["name"])),
        export=arguments.text("export"),
        vm=arguments.text("vm"),
        source_vm=arguments["source_vm"],
        detach=tuple(arguments["detach"]),
        networks=new_networks(arguments),
        method=arguments["method"],
        vendor_task=vendor_task(arguments, needs_role=True),
        seals=with_passphrase(trust(arguments), arguments, strict=True),
        transfer=transfer_options(arguments),
    )


def import_(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = import_request(arguments)
    require_provider_sdk(request.provider)
    require_store_sdk(request.store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.import_vm import import_vm

    return import_vm(request, check_mode)


def main() -> None:
    run(argument_spec(), import_)


if __name__ == "__main__":
    main()
