# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vSphere's own description of a VM, kept beside its disks: `vm.ovf`, as the server writes it, and `vm.nvram`, without
which a guest with UEFI may not find what it boots.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from ..._errors import VmferryError
from ..spec import VmSpec
from .session import Session

DESCRIPTOR, VARIABLES = "vm.ovf", "vm.nvram"
LARGEST = 16 << 20  # bytes; variables of any known firmware take far less
_AT_ONCE = 1 << 16


def native_files(
    session: Session, vm: VmSpec, variables: Optional[Callable[[], bytes]], warnings: List[str]
) -> Dict[str, bytes]:
    """By file name. `variables` reads those of the firmware. What could not be had is told to `warnings`."""
    files = {}
    descriptor = _descriptor(session, vm)
    if descriptor:
        files[DESCRIPTOR] = descriptor.encode()
    if variables is not None:
        files[VARIABLES] = variables()
    elif vm.firmware == "uefi":
        warnings.append(f"The UEFI variables of {vm.name} are left out: vSphere does not offer them.")
    return files


def read_whole(read: Callable[[int], bytes], where: str) -> bytes:
    """A small file. Raises `invalid_config` for one that is not small."""
    found = bytearray()
    while data := read(_AT_ONCE):
        found += data
        if len(found) > LARGEST:
            raise VmferryError("invalid_config", f"{where} are more than {LARGEST} bytes.", "That is no such file.")
    return bytes(found)


def _descriptor(session: Session, vm: VmSpec) -> str:
    """Empty where the server does not write one: all that an import needs is in our own description, too."""
    from pyVmomi import vim

    machine = session.managed("VirtualMachine", vm.details["moref"])

    def ask(content: Any) -> str:
        wanted = vim.OvfManager.CreateDescriptorParams(name=vm.name, includeImageFiles=False)
        made = content.ovfManager.CreateDescriptor(machine, wanted)
        return str(made.ovfDescriptor or "")

    try:
        return session.read(f"Describing {vm.name}", ask)
    except VmferryError as error:
        if error.retryable:
            raise
        return ""
