# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's errors in our words. https://libvirt.org/html/libvirt-virterror.html"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

from ..._errors import Kind, VmferryError

# virErrorNumber
INTERNAL, NO_CONNECT, INVALID_CONN, OPERATION_DENIED, OPERATION_FAILED = 1, 5, 6, 29, 9
SYSTEM, RPC, NO_DOMAIN, NO_NETWORK, AUTH_FAILED = 38, 39, 42, 43, 45
NO_STORAGE_POOL, NO_STORAGE_VOL, OPERATION_INVALID, UNSUPPORTED, ACCESS_DENIED = 49, 50, 55, 3, 88
OPERATION_TIMEOUT, AGENT_UNRESPONSIVE, NO_DOMAIN_BACKUP, CONFIG_UNSUPPORTED = 68, 86, 104, 67

_KINDS: dict[int, Kind] = {
    NO_CONNECT: "network",
    INVALID_CONN: "network",
    RPC: "network",
    NO_DOMAIN: "not_found",
    NO_NETWORK: "not_found",
    NO_STORAGE_POOL: "not_found",
    NO_STORAGE_VOL: "not_found",
    OPERATION_DENIED: "permission_denied",
    ACCESS_DENIED: "permission_denied",
    AUTH_FAILED: "unauthenticated",
    OPERATION_TIMEOUT: "busy",
    AGENT_UNRESPONSIVE: "unsupported",
    CONFIG_UNSUPPORTED: "unsupported",
    UNSUPPORTED: "unsupported",
    OPERATION_INVALID: "conflict",
}
LOST = frozenset({NO_CONNECT, INVALID_CONN, RPC, SYSTEM})  # what a call says when the daemon went away


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """`doing` names the verb and the VM, disk or network."""
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        said = " ".join((error.get_error_message() or str(error)).split()).rstrip(".")
        kind = _KINDS.get(code, "network" if is_lost(code, said) else "internal")
        if code == SYSTEM and "Permission denied" in said:
            kind = "permission_denied"
        hint = "Is libvirtd running, and may this user use it?" if kind in ("network", "permission_denied") else ""
        raise VmferryError(kind, f"{doing} failed: {said}.", hint) from error


def is_lost(code: int, said: str) -> bool:
    return code in LOST and ("socket" in said or "Broken pipe" in said or "End of file" in said or code != SYSTEM)
