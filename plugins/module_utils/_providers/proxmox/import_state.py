# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine itself keeps: the variables of its firmware, and the state of its TPM, where an export has them.

Both lie raw on small volumes of the VM's, which Proxmox VE makes; its firmware is OVMF, as libvirt's is.
"""

from __future__ import annotations

from typing import Dict, Iterator, Mapping

from ..._appliances.qm_words import EFI_DISK, TPM_STATE
from ..base import Placement
from ..finding import Finding
from ..spec import VmSpec
from .import_hardware import firmware_of

EFI_VARIABLES = 540672  # bytes, of the firmware with 4 MiB of flash (efitype=4m): OVMF_VARS_4M.fd
# Of a firmware volume: EFI_FIRMWARE_VOLUME_HEADER in the UEFI Platform Initialization Specification, volume 3.
_SIGNATURE_AT, _SIGNATURE = 40, b"_FVH"
# In exports of which provider the file of that name has what.
_FILES: Mapping[str, Mapping[str, str]] = {
    "proxmox": {EFI_DISK: "efidisk0.raw", TPM_STATE: "tpmstate0.raw"},
    "libvirt": {EFI_DISK: "nvram.fd"},
}


def kept_state(vm: VmSpec, placement: Placement, native: Mapping[str, bytes]) -> Dict[str, bytes]:
    """What belongs on the volumes, by their keys in the configuration."""
    files = _FILES.get(vm.provider, {})
    found: Dict[str, bytes] = {}
    if firmware_of(vm, placement) == "uefi":
        variables = native.get(files.get(EFI_DISK, ""), b"")
        if _are_variables(variables):
            found[EFI_DISK] = variables[:EFI_VARIABLES]
    state = native.get(files.get(TPM_STATE, ""), b"")
    if vm.tpm and state:
        found[TPM_STATE] = state
    return found


def state_findings(vm: VmSpec, placement: Placement, kept: Mapping[str, bytes] | None = None) -> Iterator[Finding]:
    """What begins anew. `kept`: what is known to be there; None: whatever exports of its provider have."""
    known = _FILES.get(vm.provider, {}) if kept is None else kept
    if vm.firmware == "uefi" and firmware_of(vm, placement) == "uefi" and EFI_DISK not in known:
        text = f"The variables of the firmware of {vm.name} begin anew."
        yield Finding("warning", text, "If the guest does not boot, choose its boot loader in the firmware's setup.")
    if vm.tpm and TPM_STATE not in known:
        text = f"The TPM of {vm.name} is a new one: what the old one kept is left behind."
        yield Finding("warning", text, "Have the recovery keys of encrypted disks (BitLocker) at hand.")


def _are_variables(content: bytes) -> bool:
    """Those of a volume that was larger have zeros behind them. Those of a smaller firmware fit no other."""
    is_volume = content[_SIGNATURE_AT : _SIGNATURE_AT + len(_SIGNATURE)] == _SIGNATURE
    return is_volume and len(content) >= EFI_VARIABLES and not any(content[EFI_VARIABLES:])
