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
  - With O(signing) or O(trusted_keys), only exports that a trusted key signed count as being there; the key that signs
    is trusted, too. An increment stands on no other, and the first export after O(signing) was set is a full one.
  - With O(encryption), the images are encrypted before they leave the host. A chain has one passphrase. An export with
    another one, or the first with or without one, is a full export. O(encryption) needs O(format=qcow2), and takes no
    O(compression).
extends_documentation_fragment:
  - vmferry.migrate._attributes
  - vmferry.migrate._attributes.actiongroup_any_storage
  - vmferry.migrate._provider.any
  - vmferry.migrate._aws
  - vmferry.migrate._libvirt
  - vmferry.migrate._proxmox
  - vmferry.migrate._vsphere
  - vmferry.migrate._image
  - vmferry.migrate._signing
  - vmferry.migrate._signing.trust
  - vmferry.migrate._encryption
  - vmferry.migrate._storage
  - vmferry.migrate._transfer
  - vmferry.migrate._transfer.state_dir
  - vmferry.migrate._two_stores.copies
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
      - Without them, every run takes a new point in time. Where nothing changed since the last export, no new one is
        made and nothing counts as changed. With O(name), or with O(tags) or
        O(purpose) that the last export does not have, one is made all the same, since it will be looked for.
  async:
    support: full
options:
  vm:
    description:
      - The VM, by name or by UUID.
      - Of O(provider=image), also by the path of a file or folder below O(image.url), or by a pattern of images such as
        V(web01-*.vmdk), which are the disks of one VM then.
    type: str
    required: true
  disks:
    description:
      - The disks to export, by the ids that M(vmferry.migrate.vm_info) shows, such as V(disk-0), or by the provider's
        own names, such as V(vda), or by what they are of, such as a volume of AWS, V(vol-0123456789abcdef0). If not
        given, all disks.
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
  mode:
    description:
      - Whether everything is exported, or what changed since the last export of these disks in this store.
      - V(auto) takes an increment when it safely can, and a full export otherwise. RV(export.fell_back) says why.
      - V(incremental) fails where no increment can be taken.
      - V(full) begins a new chain.
      - An increment is a qcow2 image on the image before it, so O(format) must be V(qcow2).
    type: str
    choices:
      - auto
      - full
      - incremental
    default: auto
  full_after:
    description:
      - The age from which a full export gets no further increments, so that O(mode=auto) takes a new one.
    type: str
    default: 30d
  max_chain:
    description:
      - The number of increments that stand on one full export at the most.
    type: int
    default: 30
  spot_check:
    description:
      - How much of what is said to be unchanged is read and compared all the same, in pieces of 64 KiB that hold data,
        others each time. The first and the last mebibyte of a disk are always compared.
      - On AWS, several pieces are of one block of 512 KiB, which is what a request brings. There are 8 such blocks,
        or as many as the pieces need.
      - If anything differs, the change tracking cannot be trusted. The export is a full one then, and says so.
      - What nobody tracks is read in full, and needs no such check.
    type: int
    default: 32
  track_changes:
    description:
      - Whether the VM remembers this point in time, so that the next increment reads only what changed since. On
        libvirt that is a checkpoint with a dirty bitmap in every qcow2 disk.
      - On vSphere nothing is left on the VM, but changed block tracking is switched on if it is off, and stays on. See
        U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/vsphere_methods.md).
      - On AWS the snapshots of the export stay, which cost what EBS snapshots cost. See
        U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/aws_exports.md).
      - Each export drops what an earlier one of the same disks to the same store left on the VM.
      - Without it, an increment reads the whole disk and stores what differs.
    type: bool
    default: true
  resume_window:
    description:
      - For how long the point in time is held after the export was killed, for example C(1h). The same task run again
        goes on where it stopped, at the same point in time, and sends little again.
      - Meanwhile a running VM goes on writing, and what it overwrites takes room in O(libvirt.scratch_dir). If that
        runs low, or the time is over, the point in time is given up.
      - An export from vSphere begins anew, and its snapshot goes then.
      - On AWS the snapshots of the export are held, and the guest has no part in it. When the time is over, they stay
        until the next export of that instance, or M(vmferry.migrate.export_cleanup) with C(orphans).
      - With V(0) nothing is held. What the store has of an export of a VM that is off is gone on with all the same, as
        long as its disks are as they were.
    type: str
    default: 1h
  snapshot:
    description:
      - Export a snapshot, not the VM as it is now. With O(snapshot.source) that is one that is there already. Otherwise
        a new one is made first, as M(vmferry.migrate.disk_snapshot) does, with O(consistency) in the place of its
        O(vmferry.migrate.disk_snapshot#module:quiesce); the export is of that very moment.
      - The VM may run, be started or be shut down meanwhile.
      - On vSphere this is V(unsupported).
      - Nobody tells what changed since a snapshot. So all of it is read, O(track_changes) does nothing, and an
        increment stores what differs from the newest export that is not younger than the snapshot. Increments of the VM
        itself go on as if no snapshot had been exported between them.
      - A snapshot of which it cannot be told that it still is what it was, for example since its images were merged by
        hand, is refused.
    type: dict
    suboptions:
      name:
        description:
          - The name of the snapshot that is made, a template as in M(vmferry.migrate.disk_snapshot). The default is
            C(vmferry-{date}T{time}Z).
        type: str
      source:
        description:
          - The name of a snapshot that is there, whoever made it. It stays.
          - On AWS, the name that M(vmferry.migrate.disk_snapshot) gave it, or the id of one that somebody else made.
          - If there is an export of it already, with the same disks, O(format), O(mode), O(name), O(tags) and
            O(purpose), nothing is done.
        type: str
      memory:
        description:
          - Whether the snapshot that is made holds the memory of the VM too. It is not exported, but can be gone back
            to as long as the snapshot stays.
        type: bool
        default: false
      keep:
        description:
          - How many of the snapshots that this collection made for this VM stay once the export is made, the new one
            included. The oldest are removed, also those that somebody gave a name such as V(before-upgrade) with
            M(vmferry.migrate.disk_snapshot). Those of others are neither counted nor touched.
          - With V(0), the new one is removed, and no other. On AWS this is refused, as every export there does that.
          - If the export fails, the new one is removed. If it is killed, the next run removes it; or, with more than
            V(0), it counts among those that stay.
        type: int
        default: 0
  on_failure:
    description:
      - What becomes of an export that fails for a reason that may pass, such as a network or a store that went away, or
        whose controller did, for example since the play was interrupted.
      - V(keep) leaves what was made, and holds the point in time, for O(resume_window); the same task run again goes on
        with it, and RV(kept) says what was left. After that time the point in time is given up, and what is in the
        store is removed by the next run, or by M(vmferry.migrate.export_cleanup) with
        O(vmferry.migrate.export_cleanup#module:orphans).
      - An export that was cancelled with M(vmferry.migrate.job) is removed at once all the same, as is one that would
        come no further a second time, or that could not be held.
      - V(undo) removes what was made.
    type: str
    choices: [keep, undo]
    default: keep
  method:
    description:
      - How the disks are read, with O(provider=aws). Other providers have one way, and refuse any other than V(auto).
      - V(direct) reads the blocks of snapshots by the EBS direct APIs, and V(auto) does so, too.
      - V(vendor_task) has AWS write the image of the boot disk to O(staging) by a task of VM Import/Export, and reads
        it there, straight into the export. It is for credentials that may not read blocks, and has limits. See
        U(https://github.com/vmferry/vmferry.migrate/blob/main/docs/aws_export_tasks.md).
      - By V(vendor_task) nothing is held for O(resume_window), O(track_changes) does nothing, and an increment reads
        the whole disk.
    type: str
    choices: [auto, direct, vendor_task]
    default: auto
  staging:
    description:
      - The bucket, and a prefix in it, that AWS writes the image to with O(method=vendor_task), for example
        V(s3://staging-bucket/vm-exports). It is in the account and the region of the VM, and not encrypted by KMS.
    type: str
  task_role:
    description:
      - The name of the service role in which AWS writes to O(staging). It then writes an AMI that is made of a
        snapshot.
      - With an empty one, AWS writes the instance itself by an instance export task, which needs no role, but WRITE and
        READ_ACP in the ACL of the bucket for the account of VM Import/Export. That is for instances of one disk and one
        network card that are off, as they are when the task begins; AWS may reboot one that runs.
    type: str
    default: vmimport
  poll_interval:
    description:
      - How often AWS is asked how far its task is.
    type: str
    default: 10s
  task_timeout:
    description:
      - How long the task of AWS may take. One that takes longer is cancelled.
    type: str
    default: 2h
  cleanup_staging:
    description:
      - Whether the image in O(staging) is removed once the export is made. With V(false) it stays, and a warning says
        where. An export that fails, or was killed, leaves none.
    type: bool
    default: true
  attach:
    description:
      - What to do while another run is exporting this VM to this store.
      - V(false) fails with the kind V(busy), and says which job of which process on which host does so, and since when.
      - V(true) follows that job. This task shows how far it is, ends when it does, and returns the export that it made,
        with RV(attached). If it fails, this task fails with its error. If it dies, or makes something else than is
        asked for here, this task exports the VM itself.
      - To cancel the job that follows ends only that. O(max_duration) limits it as any other.
    type: bool
    default: false
  consistency:
    description:
      - How the point in time is taken.
      - V(quiesced) asks the guest agent to freeze the file systems and fails if it cannot.
      - V(crash_consistent) takes the disks as a power failure would leave them.
      - V(powered_off) needs the VM to be off, and to have been shut down. On libvirt, one whose memory was saved
        (C(virsh managedsave)) was not; V(auto) takes it as crash consistent.
      - On vSphere, VMware Tools play the part of the guest agent, and a VM that runs is exported by a snapshot that is
        removed at the end.
      - On AWS nobody can freeze the file systems of a guest, so that V(quiesced) is refused, and V(auto) is crash
        consistent where the instance runs.
      - V(auto) quiesces where the guest agent answers, and is crash consistent where it does not.
      - A file does not tell how its guest was stopped, so O(provider=image) is always crash consistent, and refuses
        V(quiesced) and V(powered_off).
      - With V(powered_off) and O(shutdown_timeout), a VM that runs is shut down first.
      - RV(export.consistency) says what was reached.
    type: str
    choices:
      - auto
      - quiesced
      - crash_consistent
      - powered_off
    default: auto
  shutdown_timeout:
    description:
      - For how long the guest of a VM that runs may take to shut down, once it was asked to. Goes with
        O(consistency=powered_off) alone, which refuses such a VM without it, and not with O(snapshot).
      - The VM is exported while it is off, and started again as soon as its disks were read, also where the export
        fails or is cancelled. Its power is never cut, and one that was off before stays off.
      - If the run is killed, a process of its own starts the VM. That it is to be started is also written into the
        store first, so if the whole host is gone, the next export of the VM to that store starts it, and so do
        M(vmferry.migrate.job) with O(vmferry.migrate.job#module:state=cancelled)
        and M(vmferry.migrate.export_cleanup) with O(vmferry.migrate.export_cleanup#module:orphans), given the provider.
      - AWS cuts the power by itself where the guest takes longer than some minutes. What is in an instance store is
        lost, and an Auto Scaling group may terminate an instance that is off, of which warnings tell.
      - Nobody can go on with such an export that failed, so nothing of it is kept for O(resume_window).
      - Without a guest agent, VMware Tools or ACPI in the guest, nobody hears of it, and the task fails after that time
        with the kind V(timeout).
    type: str
  format:
    description:
      - The format of the disk images, or of an appliance that has all of them in it.
      - V(qcow2) leaves out what is empty, and is the only one that increments, O(encryption) and all of O(compression)
        go with; V(raw) is as large as the disk, with holes where the store has any.
      - V(vmdk) is a stream-optimized VMDK, which is always compressed, as it lies in an OVA; V(vmdk_sparse) is one from
        which VMware's desktop products run a VM.
      - V(vhd) is a fixed VHD, a whole number of mebibytes as Azure wants it; V(vhd_dynamic) and V(vhdx) leave out what
        is empty, for Hyper-V.
      - What V(vhd) and V(vhd_dynamic) have room for is a disk of 2040 GiB; an image in V(vmdk), V(vmdk_sparse) or
        V(vhd_dynamic) has to be shorter than 2 TiB.
      - V(raw_tar_gz) is what Google Compute Engine makes an image of, a whole number of gibibytes as it wants it. It is
        always compressed.
      - V(ova) is one file with a descriptor (OVF), the disks as V(vmdk) and their checksums, written as it streams.
        V(ovf) is the same as files beside each other, in the folder of the export. Both are for VMware, VirtualBox and
        whoever else takes appliances, and are exports as any other.
      - V(ova_gz) is an V(ova) within a gzip file, C(.ova.gz), for whoever asks for one. It is no shorter, since the
        disks are compressed already.
      - V(vma) is one file with the configuration of a VM on Proxmox VE and the disks, for its C(qmrestore). Disks of up
        to 8 TiB fit.
      - V(native) is, of each disk, V(qcow2) or V(raw), whichever the provider has it in. It is the content that is
        kept, as by all formats, and no snapshot or dirty bitmap inside of a qcow2. With O(provider=image), V(native)
        takes raw images alone, which stay the same file, byte for byte.
      - An V(ova), V(ova_gz), V(ovf) or V(vma) that was killed or failed begins anew, so nothing is held for
        O(resume_window).
    type: str
    choices:
      - qcow2
      - raw
      - vmdk
      - vmdk_sparse
      - vhd
      - vhd_dynamic
      - vhdx
      - raw_tar_gz
      - ova
      - ova_gz
      - ovf
      - vma
      - native
    default: qcow2
  compression:
    description:
      - Whether clusters of the images are compressed. What does not shrink by an eighth is stored as it is.
      - C(qemu-img), version 5.1 or newer for V(zstd), reads such images as any other, and so does every increment on
        them, whatever its own compression.
      - V(zstd) is the faster by far. It needs the Python package C(zstandard) wherever an export is made or read by
        this collection.
      - Needs O(format=qcow2). A V(vmdk), also in an V(ova), V(ova_gz) or V(ovf), and a V(raw_tar_gz) are always
        compressed as by V(zlib), which may be said or not.
    type: str
    choices:
      - none
      - zstd
      - zlib
    default: none
  compression_level:
    description:
      - How hard to compress, from 1 to 19 for V(zstd), where 1 is used if nothing is said, and from 1 to 9 for
        V(zlib), where that is 6. With O(format=vmdk), V(raw_tar_gz), V(ova), V(ova_gz) or V(ovf), from 1 to 9, and 1
        if nothing is said.
      - If nothing is said, a V(vmdk), also in an V(ova), V(ova_gz) or V(ovf), is packed by ISA-L where the Python
        package C(isal) is installed, as tightly as with 1 and several times as fast.
    type: int
  part_size:
    description:
      - The size of the parts that an image is sent and proven in, for example V(64MiB), at most V(512MiB). It is
        rounded up to whole 64 KiB.
      - A bucket gets an image in parts, of which three are held in memory at a time. Larger ones help on a way that is
        fast and long.
      - If not given, parts are of 8 MiB, and as much larger as it takes for an image to have no more than 10,000. Where
        that is more than memory has room for, they are sent in pieces that the server puts together, if it can.
      - A size that the store does not take, or that would make more parts, is refused.
      - An export that goes on with an unfinished one keeps the parts of that.
    type: str
  verify:
    description:
      - How the export is checked before it is committed.
      - V(stored) has the store acknowledge the checksum of every part and the size of every object. Where the
        store was seen to refuse data that a checksum does not fit, a sample of the parts is read again, and elsewhere
        all of them. What is read again counts against O(bandwidth_limit).
      - V(content) reads everything back and compares it with the digests of what was read from the VM.
      - V(none) relies on the transfer.
    type: str
    choices:
      - none
      - stored
      - content
    default: stored
  detach:
    description:
      - CD and floppy drives that the description of the VM is written without, so that no import makes them.
      - Drives that are not named are described as empty ones. What lies in a drive is never exported.
      - What the provider itself says of the VM is kept beside it as it is.
    type: list
    elements: str
    choices:
      - cdrom
      - floppy
    default: []
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

- name: Export a VM of vSphere from the controller; what changed, from the second time on
  vmferry.migrate.vm_export:
    vsphere:
      hostname: vcenter.example.com
      username: backup@vsphere.local
      password: "{{ vault_vcenter_password }}"
      ca_path: /etc/pki/vcenter.pem
    vm: /DC0/vm/Prod/web01
    url: s3://backups/vms
  delegate_to: localhost

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

- name: Shut a VM down for as long as its disks are read
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: ledger01
    url: file:///srv/exports
    consistency: powered_off
    shutdown_timeout: 5m

- name: Bring an appliance from a share into a bucket, as an export
  vmferry.migrate.vm_export:
    provider: image
    image:
      url: nfs:///mnt/appliances
    vm: web.ova
    url: s3://backups/vms

- name: Export the snapshot that was made before the upgrade, whatever became of the VM since
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: db01
    url: file:///srv/exports
    snapshot:
      source: before-upgrade

- name: Export one volume of an instance of AWS, as a snapshot has it that somebody else made
  vmferry.migrate.vm_export:
    provider: aws
    aws:
      region: eu-west-1
    vm: db01
    disks: [vol-0123456789abcdef0]
    url: s3://backups/vms
    snapshot:
      source: snap-0123456789abcdef0

- name: Make a snapshot to go back to, export that moment, and keep the last three of them
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: db01
    url: file:///srv/exports
    snapshot:
      name: nightly-{date}
      keep: 3

- name: Export an instance of AWS without reading blocks, by an image that AWS writes to a bucket
  vmferry.migrate.vm_export:
    provider: aws
    aws:
      region: eu-west-1
    vm: web01
    disks: [disk-0]
    url: file:///srv/exports
    method: vendor_task
    staging: s3://staging-bucket/vm-exports

- name: Sign the export, so that what is restored is known to be what this host exported
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: s3://backups/vms
    signing:
      key: "{{ vault_signing_key }}"

- name: Encrypt the export with a passphrase that a vault keeps
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: s3://backups/vms
    encryption:
      passphrase: "{{ vault_backup_passphrase }}"

- name: Hand a VM to somebody who runs VMware or VirtualBox, without its CD drive
  vmferry.migrate.vm_export:
    provider: libvirt
    vm: web01
    url: file:///srv/handover
    format: ova
    detach: [cdrom]

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
unchanged_since:
  description:
    - Where the VM was looked at and nothing had changed since its last export, the id of that export. No new one was
      made, and RV(export) is that one, with a new RV(export.checked_at). An empty string where an export was made, or
      was there already by its O(name) or O(max_age), so that the VM was not looked at.
  returned: success, outside check mode or when the export exists
  type: str
  sample: 20261121T063000Z-1a2b3c4d
export:
  description:
    - The export that was made, or that was there already. What it says of how it was made, such as its mode, reason,
      duration and rate, is of the run that made it.
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
      description: The point in time, in UTC. Of an export of a snapshot, when that was made.
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
    encryption:
      description: How its images are encrypted, V(luks) or V(none).
      returned: success
      type: str
      sample: none
    signature:
      description: >-
        V(none) where the manifest is not signed, V(unchecked) where it is and neither O(signing) nor O(trusted_keys) is
        given, V(valid) where a key that is trusted signed it, or the passphrase of O(encryption).
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
      description: The VM, by the name that the task used.
      returned: success
      type: str
      sample: web01
    kind:
      description: V(export).
      returned: success
      type: str
      sample: export
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
      description: Bytes read from the VM.
      returned: outside async and check mode
      type: int
      sample: 1073741824
    bytes_sent:
      description: Bytes sent to the store.
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
resumed:
  description: What became of the export that a run before this one had left unfinished.
  returned: when there was one
  type: dict
  contains:
    export:
      description: Its id, where this run went on with it; else an empty string.
      returned: always
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    bytes_kept:
      description: Bytes of the images that were in the store already and were not sent again.
      returned: always
      type: int
      sample: 536870912
    bytes_sent:
      description: Bytes of the images that this run sent.
      returned: always
      type: int
      sample: 570425344
    reason:
      description: Why the export began anew, or an empty string.
      returned: always
      type: str
      sample: the backup job of web01 that a dead run had begun is gone
copies:
  description: The copies in further stores, in the order of O(copies_to).
  returned: with O(copies_to), outside check mode, also where one of them failed
  type: list
  elements: dict
  contains:
    url:
      description: The folder of the export there.
      returned: success
      type: str
      sample: s3://offsite/vms/web01-1f0c9a2b/20261121T063000Z-1a2b3c4d
    holds:
      description: Whether the export is there, with everything that it stands on.
      returned: success
      type: bool
      sample: true
    changed:
      description: Whether anything was copied.
      returned: success
      type: bool
      sample: true
    exports:
      description: The ids of the exports that were copied, the full one first, without those that were there.
      returned: success
      type: list
      elements: str
      sample: [20261121T063000Z-1a2b3c4d]
    bytes_sent:
      description: Bytes that were sent there.
      returned: success
      type: int
      sample: 1074135040
    duration:
      description: How long it took, in seconds.
      returned: success
      type: float
      sample: 12.5
    msg:
      description: Why it does not hold, or an empty string.
      returned: success
      type: str
attached:
  description: The job that was followed, as it was exporting the VM already.
  returned: with O(ignore:attach=true), when there was one
  type: dict
  contains:
    job:
      description: Its id.
      returned: always
      type: str
      sample: 3f1c9a2b7d1e4c589a510c3a0d5b6e77
    hostname:
      description: The host that ran it.
      returned: always
      type: str
      sample: kvm01
    pid:
      description: Its process there.
      returned: always
      type: int
      sample: 4711
kept:
  description: What a failed export left for the next run to go on with.
  returned: failure, with O(ignore:on_failure=keep), where there is something to keep
  type: dict
  contains:
    export:
      description: Its id.
      returned: always
      type: str
      sample: 20261121T063000Z-1a2b3c4d
    until:
      description: Until when its point in time is held.
      returned: always
      type: str
      sample: "2026-11-21T07:31:12Z"
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
    fell_back:
      description: Why no increment could be taken, or an empty string.
      returned: success
      type: str
    parent:
      description: The id of the export it would stand on, or an empty string.
      returned: success
      type: str
    bytes_to_read:
      description: At most so many bytes would be read from the VM.
      returned: success
      type: int
    bytes_to_send:
      description: >-
        At most so many bytes would be sent to the store, with the tables of the images and the digests. In an object
        store, the holes of raw images come on top.
      returned: success
      type: int
    bytes_saved:
      description: At least so many bytes would not be sent because they are empty, or unchanged.
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
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.copies_options import copies, copies_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.encryption_options import (
    encryption_arguments,
    with_passphrase,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.method_options import (
    method_arguments,
    vendor_task,
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
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.signing_options import seals, signing_arguments
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.snapshot_options import (
    shutdown_timeout,
    snapshot_arguments,
    snapshot_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.storage_options import (
    storage_arguments,
    store_spec,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.transfer_options import (
    transfer_arguments,
    transfer_options,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import (
    count,
    duration,
    duration_or_zero,
    label,
    optional_duration,
    part_size,
    vm_name,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.packed import EXPORT_FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ExportRequest


def argument_spec() -> ArgumentSpec:
    own = ArgumentSpec(
        {
            "vm": {"type": "str", "required": True},
            "disks": {"type": "list", "elements": "str"},
            "name": {"type": "str"},
            "max_age": {"type": "str"},
            "mode": {"type": "str", "choices": ["auto", "full", "incremental"], "default": "auto"},
            "full_after": {"type": "str", "default": "30d"},
            "max_chain": {"type": "int", "default": 30},
            "spot_check": {"type": "int", "default": 32},
            "track_changes": {"type": "bool", "default": True},
            "resume_window": {"type": "str", "default": "1h"},
            "attach": {"type": "bool", "default": False},
            "on_failure": {"type": "str", "choices": ["keep", "undo"], "default": "keep"},
            "consistency": {
                "type": "str",
                "choices": ["auto", "quiesced", "crash_consistent", "powered_off"],
                "default": "auto",
            },
            "shutdown_timeout": {"type": "str"},
            "format": {"type": "str", "choices": list(EXPORT_FORMATS), "default": "qcow2"},
            "compression": {"type": "str", "choices": ["none", "zstd", "zlib"], "default": "none"},
            "compression_level": {"type": "int"},
            "part_size": {"type": "str"},
            "verify": {"type": "str", "choices": ["none", "stored", "content"], "default": "stored"},
            "detach": {"type": "list", "elements": "str", "choices": ["cdrom", "floppy"], "default": []},
            "tags": {"type": "list", "elements": "str", "default": []},
            "purpose": {"type": "str"},
        }
    )
    common = (any_provider_arguments(), storage_arguments(), transfer_arguments(), snapshot_arguments())
    return own.merge(*common, method_arguments(), copies_arguments(), signing_arguments(), encryption_arguments())


def export_request(arguments: TaskArguments) -> ExportRequest:
    disks = arguments["disks"]
    return ExportRequest(
        provider=provider_spec(arguments),
        store=store_spec(arguments),
        vm=vm_name("vm", arguments["vm"]),
        disks=None if disks is None else tuple(disks),
        name=label("name", arguments["name"]),
        max_age=optional_duration("max_age", arguments["max_age"]),
        mode=arguments["mode"],
        full_after=duration("full_after", arguments["full_after"]),
        max_chain=count("max_chain", arguments["max_chain"], 1),
        spot_check=count("spot_check", arguments["spot_check"], 0),
        track_changes=arguments["track_changes"],
        resume_window=duration_or_zero("resume_window", arguments["resume_window"]),
        snapshot=snapshot_options(arguments),
        on_failure=arguments["on_failure"],
        method=arguments["method"],
        vendor_task=vendor_task(arguments, needs_role=False),
        attach=arguments["attach"],
        copies_to=copies(arguments),
        detach=tuple(arguments["detach"]),
        consistency=arguments["consistency"],
        shutdown_timeout=shutdown_timeout(arguments),
        format=arguments["format"],
        compression=arguments["compression"],
        compression_level=arguments["compression_level"],
        part_size=part_size("part_size", arguments["part_size"]),
        verify=arguments["verify"],
        tags=tuple(label("tags", tag) for tag in arguments["tags"]),
        purpose=label("purpose", arguments["purpose"]),
        seals=with_passphrase(seals(arguments), arguments),
        transfer=transfer_options(arguments),
    )


def export(arguments: TaskArguments, check_mode: bool) -> dict[str, Any]:
    request = export_request(arguments)
    require_provider_sdk(request.provider)
    for store in (request.store, *request.copies_to):
        require_store_sdk(store)
    # Here, so that wrong arguments are told without loading the engine.
    from ansible_collections.vmferry.migrate.plugins.module_utils._operations.export_vm import export_vm

    return export_vm(request, check_mode)


def main() -> None:
    run(argument_spec(), export)


if __name__ == "__main__":
    main()
