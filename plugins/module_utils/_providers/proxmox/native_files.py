# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an export keeps beside the disks: the VM's configuration, and what its firmware and its TPM have stored.

A cloud-init drive is made anew by Proxmox VE of the configuration, so nothing of it is kept.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Dict, List, Mapping

from ..._appliances.qm_words import CONFIG, EFI_DISK, TPM_STATE
from ..._blocks import BlockSource
from ..._errors import VmferryError
from ..spec import VmSpec
from .drives import Drive, own_state
from .keeper import Keeper
from .offline_disk import open_volume
from .session import Session, part

LARGEST = 16 << 20  # bytes; they have 528 KiB to 4 MiB
_SECRET = ("cipassword",)  # a hash of a password, that a machine made anew need not have
_OURS = ("digest",)  # added by the API
FILES: Mapping[str, str] = {EFI_DISK: "efidisk0.raw", TPM_STATE: "tpmstate0.raw"}  # both are raw, whatever they lie in


def read_config(session: Session, vm: VmSpec) -> Dict[str, Any]:
    """As it runs now, not as it will after its next start."""
    with session.doing(f"Reading the configuration of {vm.name}"):
        config: Dict[str, Any] = session.get(f"nodes/{part(vm.host)}/qemu/{vm.id}/config", current=1)
    return config


def config_file(config: Mapping[str, Any]) -> Dict[str, bytes]:
    """As qm.conf(5) writes it, with the description in comments, and without secrets."""
    lines = [f"#{line}" for line in str(config.get("description") or "").splitlines()]
    left_out = ("description", *_SECRET, *_OURS)
    lines += [f"{key}: {config[key]}" for key in sorted(config) if key not in left_out]
    return {CONFIG: "".join(f"{line}\n" for line in lines).encode()}


def state_drives(config: Mapping[str, Any]) -> Mapping[str, Drive]:
    return {key: drive for key, drive in own_state(config).items() if key in FILES}


def read_state(keeper: Keeper, folder: str, vm: VmSpec, drive: Drive, warnings: List[str]) -> Dict[str, bytes]:
    """Of a drive that QEMU has not open. What cannot be had is told to `warnings`."""
    try:
        with ExitStack() as stack:
            format = drive.options.get("format") or drive.volume.format
            source = open_volume(stack, keeper, folder, drive.volume.text, format)
            return {FILES[drive.key]: read_small(source)}
    except VmferryError as error:
        if error.retryable and error.kind != "busy":
            raise
        warnings.append(f"{drive.key} of {vm.name} is left out: {error.message}")
        return {}


def read_small(source: BlockSource) -> bytes:
    if source.size > LARGEST:
        raise VmferryError("unsupported", f"It has {source.size} bytes, and such a one has at most {LARGEST}.")
    content = bytearray(source.size)
    source.read_into([(0, memoryview(content))])
    return bytes(content)
