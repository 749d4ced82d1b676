# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's errors in the collection's words. The codes are those of virErrorNumber in virterror.h."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Dict, Iterator, Tuple

from ..._errors import Kind, VmferryError

if TYPE_CHECKING:
    import libvirt

LOCKED = "Another job holds this VM. Wait until it is done; `virsh domjobinfo` names it."
DENIED = "Run the task as root (become: true), or as a user who may use this libvirt connection."
AGENT = "Install and start qemu-guest-agent in the guest, or choose another consistency."

_KINDS: Dict[int, Tuple[Kind, str]] = {
    2: ("no_space", "The host is short of memory."),  # NO_MEMORY
    3: ("unsupported", "This libvirt or its hypervisor cannot do that."),  # NO_SUPPORT
    5: ("network", "Is libvirtd, or virtqemud, running? Is the URI right?"),  # NO_CONNECT
    8: ("invalid_config", ""),  # INVALID_ARG
    9: ("conflict", ""),  # OPERATION_FAILED: also "already exists"
    27: ("invalid_config", ""),  # XML_ERROR
    29: ("permission_denied", DENIED),  # OPERATION_DENIED
    42: ("not_found", ""),  # NO_DOMAIN
    43: ("not_found", ""),  # NO_NETWORK
    45: ("unauthenticated", DENIED),  # AUTH_FAILED
    49: ("not_found", ""),  # NO_STORAGE_POOL
    50: ("not_found", ""),  # NO_STORAGE_VOL
    55: ("conflict", ""),  # OPERATION_INVALID: the domain's state does not allow it
    67: ("unsupported", ""),  # CONFIG_UNSUPPORTED
    68: ("busy", LOCKED),  # OPERATION_TIMEOUT
    72: ("not_found", ""),  # NO_DOMAIN_SNAPSHOT
    74: ("unsupported", ""),  # ARGUMENT_UNSUPPORTED: also "no guest agent is configured"
    77: ("conflict", "The VM differs from what it was then; see virsh snapshot-revert --force."),  # REVERT_RISKY
    78: ("unsupported", ""),  # OPERATION_ABORTED
    79: ("unauthenticated", DENIED),  # AUTH_CANCELLED
    80: ("not_found", ""),  # NO_DOMAIN_METADATA
    83: ("busy", LOCKED),  # BLOCK_COPY_ACTIVE: any block job
    84: ("unsupported", ""),  # OPERATION_UNSUPPORTED
    86: ("timeout", AGENT),  # AGENT_UNRESPONSIVE
    87: ("busy", LOCKED),  # RESOURCE_BUSY
    88: ("permission_denied", DENIED),  # ACCESS_DENIED
    90: ("conflict", ""),  # STORAGE_VOL_EXIST
    97: ("timeout", AGENT),  # AGENT_UNSYNCED
    103: ("not_found", "The next export will be a full one."),  # NO_DOMAIN_CHECKPOINT
    104: ("not_found", ""),  # NO_DOMAIN_BACKUP
    109: ("conflict", "The dirty bitmaps of this VM are broken; the next export has to be a full one."),
}
INTERNAL_ERROR, SYSTEM_ERROR, RPC_ERROR = 1, 38, 39
NO_DOMAIN, NO_CHECKPOINT, CHECKPOINT_BROKEN = 42, 103, 109
# What libvirt answers where it, QEMU or a disk cannot have a checkpoint: INTERNAL_ERROR is a refusal of QEMU's.
CHECKPOINT_REFUSED = (INTERNAL_ERROR, 3, 9, 55, 67, 84)
BROKEN_CONNECTION = (
    "Broken pipe",
    "Connection reset",
    "Connection refused",
    "End of file",
    "Failed to connect",
    "client socket is closed",
)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Whatever libvirt raises inside comes out as a `VmferryError` whose sentence begins with `doing`."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise explained(error, doing) from error


def code_of(error: VmferryError) -> int:
    """Of virErrorNumber, what libvirt said; 0 where it was not libvirt."""
    import libvirt

    cause = error.__cause__
    return int(cause.get_error_code()) if isinstance(cause, libvirt.libvirtError) else 0


def explained(error: libvirt.libvirtError, doing: str) -> VmferryError:
    said = " ".join((error.get_error_message() or "no reason was given").split())
    if is_disconnect(error):
        kind, hint = _KINDS[5]
        if "Permission denied" in said:
            kind, hint = "permission_denied", DENIED
    else:
        kind, hint = _KINDS.get(error.get_error_code(), ("internal", ""))
    if "agent is not connected" in said:
        kind = "unsupported"
    if "No space left" in said:
        kind, hint = "no_space", "Free some space where libvirt writes, or set scratch_dir."
    elif "Permission denied" in said:
        hint = (
            "QEMU runs as a user of its own, and AppArmor or SELinux may confine it: see the host's audit log, and "
            "set scratch_dir to a folder that it may use."
        )
        kind = "permission_denied"
    return VmferryError(kind, f"{doing} failed: {said}.", hint)


def is_disconnect(error: libvirt.libvirtError) -> bool:
    """The daemon is gone, or was; the VM knows nothing of it."""
    code = error.get_error_code()
    if code in (5, RPC_ERROR):
        return True
    said = error.get_error_message() or ""
    return code in (INTERNAL_ERROR, SYSTEM_ERROR) and any(words in said for words in BROKEN_CONNECTION)
