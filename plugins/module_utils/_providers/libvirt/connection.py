# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One libvirt connection, opened when first needed and again when the daemon was restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence, TypeVar

from ..._errors import VmferryError
from .errors import NO_DOMAIN, translated

if TYPE_CHECKING:
    import libvirt

Result = TypeVar("Result")


class LibvirtConnection:
    """Used by one thread at a time. Daemon restarts are survived by looking a domain up anew for each call."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._connection: libvirt.virConnect | None = None

    def close(self) -> None:
        if self._connection is not None:
            import libvirt

            try:
                self._connection.close()
            except libvirt.libvirtError:  # the daemon is gone, and the connection with it
                pass
            self._connection = None

    def open(self) -> libvirt.virConnect:
        import libvirt

        if self._connection is not None:
            try:
                if self._connection.isAlive():
                    return self._connection
            except libvirt.libvirtError:  # gone: a new one is opened below
                pass
            self.close()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # by default it prints to stderr
        with translated(f"Connecting to libvirt at {self.uri}"):
            self._connection = libvirt.open(self.uri)
        return self._connection

    def domains(self) -> Sequence[libvirt.virDomain]:
        with translated(f"Listing the VMs of {self.uri}"):
            found: Sequence[libvirt.virDomain] = self.open().listAllDomains()
        return found

    def domain(self, vm: str) -> libvirt.virDomain:
        """By name, or else by UUID."""
        import libvirt

        connection = self.open()
        for look_up in (connection.lookupByName, connection.lookupByUUIDString):
            try:
                return look_up(vm)
            except libvirt.libvirtError as error:
                # what is no UUID at all is refused with another code
                if error.get_error_code() != NO_DOMAIN and look_up == connection.lookupByName:
                    with translated(f"Looking up {vm}"):
                        raise
        raise VmferryError(
            "not_found",
            f"There is no VM {vm!r} at {self.uri}.",
            "List what is there with vmferry.migrate.vm_info.",
        )
