# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine as an appliance describes it, and the words of its descriptor: DSP0243 (OVF 1.1.1), and the CIM resource
types of DSP1043.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional, Tuple

OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
VMW = "http://www.vmware.com/schema/ovf"
OWN = "urn:vmferry:ovf:1"  # what a descriptor has no words for, in a section that others leave out

PROCESSOR, MEMORY, IDE, SCSI, NIC, FLOPPY = "3", "4", "5", "6", "10", "14"  # resource types
CD, DVD, DISK, STORAGE, USB = "15", "16", "17", "20", "23"

VMDK_URI = "http://www.vmware.com/interfaces/specifications/vmdk.html"
# Written as the first of each format, and read as any.
FORMAT_URIS: Mapping[str, Tuple[str, ...]] = {
    "vmdk": (f"{VMDK_URI}#streamOptimized", f"{VMDK_URI}#compressed"),
    "vmdk_sparse": (f"{VMDK_URI}#sparse", VMDK_URI),
    "qcow2": ("http://www.gnome.org/~markmc/qcow-image-format.html",),
    "vhd": ("http://go.microsoft.com/fwlink/?LinkId=137171",),
    "raw": ("urn:vmferry:image:raw",),
    "vhdx": ("urn:vmferry:image:vhdx",),
}
WRITTEN_AS: Mapping[str, str] = {"vhd_dynamic": "vhd"}  # formats that have no name of their own in a descriptor


@dataclass(frozen=True)
class Disk:
    """`file`: of the package; empty for a disk that begins empty. Sizes in bytes, as the guest sees them."""

    id: str
    file: str
    capacity: int
    format: str = "vmdk"  # as the table of image formats has it; empty where the descriptor says nothing we know
    bus: str = "scsi"  # ide, scsi, sata, nvme, virtio, usb
    controller: str = ""  # its model: lsilogic, ahci …
    bus_number: int = 0
    unit: int = 0
    populated: Optional[int] = None


@dataclass(frozen=True)
class Nic:
    name: str
    network: str
    model: str = ""  # as the descriptor has it: E1000, VmxNet3, virtio …
    mac: str = ""


@dataclass(frozen=True)
class Property:
    """What whoever deploys the machine is asked for, or told to the guest as it is. A `password` has no value here:
    what is known of a machine is in results and in files that anybody may see.
    """

    key: str
    type: str = "string"
    value: str = ""
    label: str = ""
    description: str = ""
    user_configurable: bool = False
    class_: str = ""  # of its product
    instance: str = ""
    password: bool = False


@dataclass(frozen=True)
class Product:
    """Of one product section; `properties` belong to it."""

    name: str = ""
    vendor: str = ""
    version: str = ""
    full_version: str = ""
    class_: str = ""
    instance: str = ""


@dataclass(frozen=True)
class Machine:
    """`firmware`: bios or uefi. `os_type`: CIM_OperatingSystem's number. `virtual_system_type`: vmx-13 and the like."""

    name: str
    cpus: int
    memory: int  # bytes
    disks: Tuple[Disk, ...]
    nics: Tuple[Nic, ...] = ()
    firmware: str = "bios"
    secure_boot: bool = False
    tpm: bool = False
    os_type: int = 1
    os_name: str = ""
    virtual_system_type: str = ""
    architecture: str = ""
    machine: str = ""
    cores_per_socket: int = 0
    networks: Mapping[str, str] = field(default_factory=dict)  # descriptions by name
    annotation: str = ""
    eulas: Tuple[str, ...] = ()
    products: Tuple[Product, ...] = ()
    properties: Tuple[Property, ...] = ()
    removable: Tuple[str, ...] = ()  # floppy and cdrom drives, by kind
    warnings: Tuple[str, ...] = ()  # what was left out when it was read
    made_of: str = ""  # by an import of ours: the id of what
    made_as: str = ""  # and the format that was asked for
    nvram: str = ""  # the name of the file with the variables of its firmware, as VMware keeps them
