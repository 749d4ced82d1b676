# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Appliances to read: archives by Python's tarfile, and by hand where no tool writes such a thing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.appliance import Appliance, open_appliance
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.packages import ova_package

MIB = 1 << 20
END = bytes(1024)
VMDK = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>{files}</References>
 <DiskSection><Info>Disks</Info>{disks}</DiskSection>
 <NetworkSection><Info>Networks</Info><Network ovf:name="VM Network"><Description>of VMs</Description></Network>
 </NetworkSection>
 <VirtualSystem ovf:id="web">
  <Info>A machine</Info><Name>web</Name>
  <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest"><Info>OS</Info></OperatingSystemSection>
  <VirtualHardwareSection><Info>Hardware</Info>
   <System><vssd:ElementName>Family</vssd:ElementName><vssd:InstanceID>0</vssd:InstanceID>
    <vssd:VirtualSystemType>vmx-14</vssd:VirtualSystemType></System>
   <Item><rasd:ElementName>cpus</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>
    <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>{cpus}</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>memory</rasd:ElementName>
    <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>2048</rasd:VirtualQuantity></Item>
   <Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI 0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>
    <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
   {items}
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
"""


def descriptor(
    disks: Sequence[tuple[str, str, str]], *, cpus: str = "2", units: str = "byte", items: str = "", format: str = VMDK
) -> bytes:
    """`disks`: the file, its id and its capacity, of each."""
    attached = "".join(
        f"<Item><rasd:AddressOnParent>{number}</rasd:AddressOnParent><rasd:ElementName>disk</rasd:ElementName>"
        f"<rasd:HostResource>ovf:/disk/{disk}</rasd:HostResource><rasd:InstanceID>{10 + number}</rasd:InstanceID>"
        "<rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>"
        for number, (_unused, disk, _size) in enumerate(disks)
    )
    return OVF.format(
        cpus=cpus,
        files="".join(f'<File ovf:id="f-{disk}" ovf:href="{file}"/>' for file, disk, _unused in disks if file),
        disks="".join(
            f'<Disk ovf:diskId="{disk}" ovf:capacity="{size}" ovf:capacityAllocationUnits="{units}" '
            f'ovf:format="{format}" ' + (f'ovf:fileRef="f-{disk}"/>' if file else "/>")
            for file, disk, size in disks
        ),
        items=attached + items,
    ).encode()


def member(name: str, data: bytes, **header: object) -> bytes:
    """`header`: fields of a TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in header.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def archive(files: Mapping[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """As Python writes it, in the order of `files`."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def sums(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"SHA256({name})= {sha256(data).hexdigest()}\n" for name, data in files.items()).encode()


def reading(data: bytes) -> Callable[[int, memoryview], None]:
    def read_at(offset: int, buffer: memoryview) -> None:
        assert 0 <= offset <= offset + len(buffer) <= len(data)
        buffer[:] = data[offset : offset + len(buffer)]

    return read_at


def opened(data: bytes) -> Appliance:
    return open_appliance(ova_package(reading(data), len(data), "app.ova"))
