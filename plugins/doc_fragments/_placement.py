# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a VM lands: the same for every module that makes one."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  hardware:
    description:
      - The hardware of the VM, where it is to be another than it was, or than an appliance says.
      - Images of disks say nothing of it, so here are its defaults.
    type: dict
    suboptions:
      cpu:
        description:
          - How many processors. If not given, as it had, and V(2) with images of disks.
        type: int
      memory:
        description:
          - How much memory, for example V(4GiB), in whole mebibytes. If not given, as it had, and V(2GiB) with images
            of disks.
        type: str
      networks:
        description:
          - With images of disks alone, the networks that the VM is in, with a network card in each. If not given,
            V(default). An empty list leaves it without one.
          - Other VMs have the network cards that they had, in the networks of O(network_map).
        type: list
        elements: str
  placement:
    description:
      - How the VM lands.
    type: dict
    suboptions:
      storage:
        description:
          - Where the disks go. For libvirt, a storage pool or the path of a folder. For vSphere, a datastore or a
            datastore cluster, by name, path or MoRef; of a cluster, the datastore with the most room is taken. For
            Proxmox VE, a storage of the node that takes disk images.
          - AWS refuses it; see O(placement.volume_type).
          - If not given, the provider's default. On vSphere that is the only datastore there, and on Proxmox VE the
            only such storage; where there are several, it has to be given.
          - Must not be given where the provider is V(image), whose files go below its URL.
        type: str
      disk_format:
        description:
          - The format of the disks on the provider, for example V(qcow2) or V(raw). If not given, the provider's
            default. On vSphere all are VMDKs; see O(placement.disk_provisioning). AWS refuses it. On Proxmox VE, a
            format that the storage takes; its default is that of the storage.
          - Where the provider is V(image), what is written. V(ova) is one archive, V(ova_gz) the same within gzip;
            V(ovf), V(qcow2), V(raw), V(vmdk), V(vmdk_sparse), V(vhd), V(vhd_dynamic) or V(vhdx) is a folder with an OVF
            descriptor, checksums, and images in that format, in V(vmdk) where it is V(ovf). If not given, V(qcow2).
        type: str
      disk_bus:
        description:
          - The bus of the disks, for example V(virtio), V(scsi) or V(sata). If not given, as it was.
          - With images of disks, V(virtio) for qcow2, QED and raw, and V(sata), which every system knows, for what
            other hypervisors write.
          - Where files are written, V(ide), V(scsi), V(sata), V(nvme), V(virtio) or V(usb).
          - AWS refuses it, since the type of an instance says on which bus its volumes are.
          - On vSphere, V(pvscsi), V(lsilogic), V(lsisas1068), V(buslogic), V(sata), V(nvme), V(ide), or V(scsi) for the
            model that it had, or V(pvscsi). Disks that were on a bus that vSphere has not, such as V(virtio), go on
            V(sata).
          - On Proxmox VE, V(virtio), V(scsi), V(sata) or V(ide), or a model of SCSI controller, V(virtio-scsi-single),
            V(virtio-scsi-pci), V(pvscsi), V(megasas), V(lsi) or V(lsi53c810). Disks that were on a bus or a controller
            that it has not, such as V(nvme), go on V(sata).
        type: str
      disk_provisioning:
        description:
          - On vSphere, how the disks are made. V(thin) takes room as it is written to, V(thick) all of it at once, and
            V(eager) overwrites it with zeros as well. If not given, V(thin).
          - Other providers refuse it, and the next four, as V(unsupported), but for O(placement.host) and
            O(placement.resource_pool) on Proxmox VE.
        type: str
        choices:
          - thin
          - thick
          - eager
      folder:
        description:
          - On vSphere, the folder of the VM in the inventory, by path such as V(/DC0/vm/Prod), name or MoRef. If not
            given, the folder C(vm) of the datacenter.
          - The name of the VM has to be free in it.
        type: str
      cluster:
        description:
          - On vSphere, the cluster that the VM is to run on, by name, path or MoRef.
          - One of O(placement.cluster), O(placement.host) and O(placement.resource_pool) is needed where there are
            several clusters or hosts.
          - One without DRS, which would choose a host, needs O(placement.host) if it has several.
        type: str
      host:
        description:
          - On vSphere, the ESXi host that the VM is to run on, by name, path or MoRef.
          - On Proxmox VE, the node that the VM is made on, by name. If not given, the node that the task runs on, the
            only one, or the one that the API is reached at.
        type: str
      resource_pool:
        description:
          - On vSphere, the resource pool of the VM, by name, path or MoRef. If not given, that of the cluster or host.
          - On Proxmox VE, the pool of the VM. If not given, it is in none.
        type: str
      firmware:
        description:
          - The firmware. If not given, as it was.
          - With images of disks, V(uefi) where the first has an EFI system partition and no boot partition for a BIOS.
        type: str
        choices:
          - bios
          - uefi
      keep_mac:
        description:
          - Whether network cards keep their MAC addresses. Otherwise they get new ones, where files are written from
            whoever makes a VM of them.
          - AWS refuses V(true), since it gives every network card its address.
        type: bool
        default: false
      keep_uuid:
        description:
          - On vSphere and Proxmox VE, whether the VM keeps the UUID that its guest sees. Otherwise it gets a new one.
          - Two VMs with the same UUID confuse whoever tells VMs apart by it, such as backups. Other providers refuse
            V(true) as V(unsupported).
        type: bool
        default: false
      power_on:
        description:
          - Whether to start the VM. One that an earlier run has made is started too if it is off.
          - V(true) is refused where files are written.
          - EC2 starts every instance that it makes. With V(false) the instance is stopped as soon as it runs, so that
            its guest boots for some seconds; where it must not, use O(placement.stop_at=image).
        type: bool
        default: false
      stop_at:
        description:
          - On AWS, what is made. V(snapshot) makes a snapshot of each disk, V(image) an image (AMI) of them, and
            V(instance) an instance of that. If not given, V(instance).
          - What an instance was made of, its image and snapshots, is removed once it is there.
          - Snapshots that stay take the next increment of what they were made of. An import of that, under another
            name, writes only what changed since.
          - Other providers refuse it, and all that follow, as V(unsupported).
        type: str
        choices:
          - snapshot
          - image
          - instance
      instance_type:
        description:
          - On AWS, the type of the instance, for example V(m7i.large). If not given, that of an instance that was
            exported, or the smallest type for general purposes that has as many CPUs and as much memory as the VM.
        type: str
      subnet_id:
        description:
          - On AWS, the subnet of the first network card, by id or by the tag C(Name). A subnet that O(network_map) has
            for its network goes first. If not given, one of the default VPC, as AWS chooses.
          - Other network cards are made where O(network_map) names a subnet for their network, and left out, with a
            warning, where it does not.
        type: str
      security_groups:
        description:
          - On AWS, the security groups of the instance, by id or by name. If not given, that of the VPC.
        type: list
        elements: str
      key_name:
        description:
          - On AWS, the name of the key pair of the instance.
        type: str
      iam_instance_profile:
        description:
          - On AWS, the instance profile of the instance, by name or by ARN.
        type: str
      volume_type:
        description:
          - On AWS, the type of the volumes. If not given, V(gp3). With O(storage_map), disks get other ones.
        type: str
        choices:
          - gp3
          - gp2
          - st1
          - sc1
          - standard
      encrypted:
        description:
          - On AWS, whether snapshots and volumes are encrypted. An account may have all of them encrypted anyway.
        type: bool
        default: false
      kms_key_id:
        description:
          - On AWS, the ARN of the key of KMS that they are encrypted with. If not given, the account's default.
          - EBS direct takes neither ids nor aliases.
        type: str
      vmid:
        description:
          - On Proxmox VE, the id of the VM, which has to be free. If not given, the next that is.
          - Other providers refuse it as V(unsupported).
        type: int
  network_map:
    description:
      - For networks that the VM was in, the networks to use instead. Those that are not named keep their names.
      - For one network card, give its MAC address in the place of the network that it was in.
      - On vSphere, networks are named by name, path or MoRef. On AWS, they are subnets, by id or by the tag C(Name). On
        Proxmox VE, they are bridges, with a VLAN behind a dot, as V(vmbr0) or V(vmbr0.20).
    type: dict
  storage_map:
    description:
      - For disks of the VM, by id or by name, the storage to use instead of O(placement.storage). On AWS, the type of
        the volume, instead of O(placement.volume_type).
      - Must not be given where files are written.
    type: dict
  detach:
    description:
      - CD and floppy drives that the VM is made without.
      - Drives that it had and that are not named are there again, and empty.
      - A host whose QEMU was built without floppy drives starts no VM that has one; give V(floppy) there.
    type: list
    elements: str
    choices:
      - cdrom
      - floppy
    default: []
"""
