# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of the configuration of a VM on Proxmox VE, as it lies in an archive (qm.conf(5), and vzdump's own comments).

https://pve.proxmox.com/pve-docs/qm.conf.5.html
"""

from __future__ import annotations

from typing import Mapping

CONFIG = "qemu-server.conf"  # the name of the file in an archive
# In the order in which Proxmox VE looks for a disk to boot from, and how many there can be of each.
PLACES: Mapping[str, int] = {"ide": 4, "scsi": 31, "virtio": 16, "sata": 6}
EFI_DISK, TPM_STATE = "efidisk0", "tpmstate0"
MAP = "#qmdump#map:"  # which disk of the archive a drive is
OWN_COMMENTS = ("#qmdump#", "#vzdump#")
DEFAULT_MEMORY_MB = 512
DEFAULT_BRIDGE = "vmbr0"
# Of an adapter: the model as the configuration has it, and in the words of QEMU.
NIC_MODELS: Mapping[str, str] = {
    "virtio": "virtio",
    "e1000": "e1000",
    "e1000-82540em": "e1000",
    "e1000-82544gc": "e1000",
    "e1000-82545em": "e1000",
    "e1000e": "e1000e",
    "i82551": "i82551",
    "i82557b": "i82557b",
    "i82559er": "i82559er",
    "ne2k_isa": "ne2k_isa",
    "ne2k_pci": "ne2k_pci",
    "pcnet": "pcnet",
    "rtl8139": "rtl8139",
    "vmxnet3": "vmxnet3",
}


def device_of(drive: str) -> str:
    """How a drive's data are called in an archive, by vzdump."""
    return f"drive-{drive}"
